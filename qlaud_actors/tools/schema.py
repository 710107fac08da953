"""What a tool's definition may be, and whether an input fits it. Pure."""

import re
from functools import lru_cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from qlaud_actors.errors import InvalidRequest

NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}$")
RESERVED = ("qlaud-builtin/", "qlaud-mcp/", "qlaud_")
MAX_DESCRIPTION = 4000
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_PROBLEMS = 5


def check_definition(name: str, description: str, input_schema: dict[str, Any]) -> None:
    """Raises InvalidRequest that says what is wrong with a tool's definition."""
    if not NAME.match(name):
        raise InvalidRequest(
            "`name` must have 1 to 128 of A-Z a-z 0-9 _ . / - and begin with a letter, digit or _."
        )
    if name.startswith(RESERVED):
        raise InvalidRequest(f"`name` must not begin with {', '.join(RESERVED)}: these are reserved.")
    if not 1 <= len(description) <= MAX_DESCRIPTION:
        raise InvalidRequest(f"`description` must have 1 to {MAX_DESCRIPTION} characters.")
    check_schema(input_schema)


def check_schema(schema: dict[str, Any]) -> None:
    """Raises InvalidRequest unless this is a JSON Schema (2020-12) of an object, whole in itself."""
    if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"`input_schema` must have at most {MAX_SCHEMA_BYTES} bytes.")
    if schema.get("type") != "object":
        raise InvalidRequest('`input_schema` must be a JSON Schema with "type": "object".')
    _walk(schema, 0)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidRequest(f"`input_schema` is not a valid JSON Schema: {error.message[:300]}.") from None


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with an input, in words for a model; empty when it fits."""
    validator = _validator(msgspec.json.encode(schema))
    found = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
    return [f"{_where(error.absolute_path)}: {error.message[:300]}" for error in found[:MAX_PROBLEMS]]


@lru_cache(maxsize=1024)
def _validator(schema: bytes) -> Draft202012Validator:
    return Draft202012Validator(msgspec.json.decode(schema))


def _where(path: Any) -> str:
    return "input" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _walk(node: Any, depth: int) -> None:
    """Refuse what is nested too deep, and references that would have to be fetched."""
    if depth > MAX_SCHEMA_DEPTH:
        raise InvalidRequest(f"`input_schema` is nested deeper than {MAX_SCHEMA_DEPTH} levels.")
    if isinstance(node, dict):
        for name in ("$ref", "$dynamicRef"):
            if isinstance(node.get(name), str) and not node[name].startswith("#"):
                raise InvalidRequest(f"`input_schema` must not refer to another document ({name}).")
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _walk(child, depth + 1)
