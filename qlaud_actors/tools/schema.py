"""What a tool's definition may be, and whether an input fits it. Pure.

Schemas come from strangers and run in everybody's process. So they are small, refer to nothing outside
(nothing is ever fetched), their regular expressions are not run (one can hold the process for hours),
and a check stops after a bounded amount of work (twenty levels of doubling references are a million
checks).
"""

import re
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.reply import INVALID_JSON
from qlaud_actors.tools.model import Tool

NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
RESERVED = ("qlaud-builtin/", "qlaud-mcp/", "qlaud/", "qlaud_")
MAX_DESCRIPTION = 4000
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_PROBLEMS = 5
MAX_PROBLEM_CHARS = 200
MAX_WORK = 100_000
"""Applications of keywords in one check; some hundred milliseconds at worst."""

# Anthropic and OpenAI refuse a request with these at the top of a tool's schema.
NOT_AT_TOP = ("oneOf", "anyOf", "allOf", "not", "enum")


def check_definition(name: str, description: str, input_schema: dict[str, Any]) -> None:
    """Raises InvalidRequest that says what is wrong with a tool's definition."""
    if not NAME.fullmatch(name):
        raise InvalidRequest("`name` must have 1 to 128 characters of A-Z a-z 0-9 _ . / -")
    if name.startswith(RESERVED):
        raise InvalidRequest(f"`name` must not begin with {', '.join(RESERVED)}: these are reserved.")
    if not 1 <= len(description.strip()) <= len(description) <= MAX_DESCRIPTION or "\x00" in description:
        raise InvalidRequest(f"`description` must have 1 to {MAX_DESCRIPTION} characters, none of them NUL.")
    check_schema(input_schema)


def check_schema(schema: dict[str, Any]) -> None:
    """Raises InvalidRequest unless this is a JSON Schema (2020-12) of an object, whole in itself."""
    if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"`input_schema` must have at most {MAX_SCHEMA_BYTES} bytes.")
    if schema.get("type") != "object":
        raise InvalidRequest('`input_schema` must be a JSON Schema with "type": "object".')
    if at_top := [name for name in NOT_AT_TOP if name in schema]:
        raise InvalidRequest(
            f"`input_schema` must not have {', '.join(at_top)} at the top: models refuse it."
        )
    _walk(schema, 1)
    try:
        # Without formats: patterns are ECMAScript's, and Python would refuse some that are right.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        raise InvalidRequest(f"`input_schema` is not a valid JSON Schema: {_told(error)}.") from None


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with an input, in words for a model; empty when it fits, at most MAX_PROBLEMS."""
    token = _work_left.set([MAX_WORK])
    try:
        found = islice(_validator(msgspec.json.encode(schema)).iter_errors(value), MAX_PROBLEMS)
        return [_told(error) for error in found]
    except _TooMuchWorkError:
        return ["the input is too large to be checked against the tool's schema"]
    except (Unresolvable, RecursionError):
        return ["the tool's own schema cannot be followed, so no input fits it; tell the user"]
    finally:
        _work_left.reset(token)


def refusal(tool: Tool, arguments: dict[str, Any]) -> str:
    """Why an input is not passed on to a tool, in words for the model; empty when it is."""
    if INVALID_JSON in arguments:
        return "The input of this call was not a JSON object. Send it again."
    if wrong := problems(tool.input_schema, arguments):
        return "The call was not made, because its input does not fit the tool's schema. " + "; ".join(wrong)
    return ""


class _TooMuchWorkError(Exception):
    """The schema refers to itself without end, or the input is too large for it."""


_work_left: ContextVar[list[int]] = ContextVar("work_left")


def _counted(check: Any) -> Any:
    """Charge each application of a keyword by its size and its subject's: an `enum` of 1000 costs 1000."""

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left = _work_left.get()
        left[0] -= sum(len(part) for part in (value, instance) if isinstance(part, dict | list)) or 1
        if left[0] < 0:
            raise _TooMuchWorkError
        yield from check(validator, value, instance, schema) or ()

    return counted


def _not_run(*_: Any) -> tuple[()]:
    return ()


def _additional(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
    """Which properties are left over is only known after running the patterns."""
    check: Any = Draft202012Validator.VALIDATORS["additionalProperties"]
    return () if "patternProperties" in schema else check(validator, value, instance, schema)


def _unique(_: Any, value: Any, instance: Any, __: Any) -> Iterator[ValidationError]:
    """In linear time; the library compares each with each."""
    if value and isinstance(instance, list):
        distinct = {msgspec.json.encode(item, order="sorted") for item in instance}
        if len(distinct) < len(instance):
            yield ValidationError("has non-unique elements")


_KEYWORDS = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _not_run,
    "patternProperties": _not_run,
    "additionalProperties": _additional,
    "unevaluatedProperties": _not_run,
    "uniqueItems": _unique,
}
_extend: Any = extend
_Validator = _extend(Draft202012Validator, {name: _counted(check) for name, check in _KEYWORDS.items()})


@lru_cache(maxsize=1024)
def _validator(schema: bytes) -> Any:
    return _Validator(msgspec.json.decode(schema), registry=Registry())


def _told(error: ValidationError | SchemaError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    message = error.message
    if len(message) > MAX_PROBLEM_CHARS:
        message = message[:MAX_PROBLEM_CHARS] + "…"
    return f"{path.removeprefix('.')}: {message}" if path else message


def _walk(node: Any, depth: int) -> None:
    """Refuse what is nested too deep, and references that would have to be fetched."""
    if depth > MAX_SCHEMA_DEPTH:
        raise InvalidRequest(f"`input_schema` is nested deeper than {MAX_SCHEMA_DEPTH} levels.")
    if isinstance(node, dict):
        for name in ("$ref", "$dynamicRef"):
            if isinstance(node.get(name), str) and not node[name].startswith("#"):
                raise InvalidRequest(f"`input_schema` must not refer to another document ({name}).")
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        if isinstance(child, dict | list):
            _walk(child, depth + 1)
