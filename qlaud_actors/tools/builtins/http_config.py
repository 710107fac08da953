"""The configuration of the built-in http-call, checked when it is registered. Pure."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from qlaud_actors.connectors.request import MAX_HEADER
from qlaud_actors.outbound.guard import ForbiddenURL, check_url
from qlaud_actors.tools.builtins.http_call import HttpCall, check_path, sample, style_of
from qlaud_actors.tools.builtins.template import (
    Placeholder,
    Template,
    TemplateProblem,
    fill,
    parse,
    placeholders,
)

MIN_SECRET = 6
"""Characters: shorter ones could not be blotted out of answers without harm to the rest."""

MAX_HEADERS, MAX_SECRETS, MAX_LOCKED = 20, 20, 20

_ORIGIN = re.compile(r"https?://[^/?#{}\s]+(?=[/?]|$)")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_NOT_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
    | {"proxy-authorization", "accept-encoding", "keep-alive"}
)

T = TypeVar("T")


def read(config: Mapping[str, str], *, allow_private: bool) -> HttpCall:
    """A configuration, checked in itself. Raises TemplateProblem that begins with the field's name."""
    with _named("url"):
        url = _url(config.get("url", ""), allow_private=allow_private)
    with _named("headers"):
        given = _decoded(config.get("headers") or "{}", dict[str, str], "a JSON object of texts")
        headers = _headers(given)
    with _named("secrets"):
        secrets = _decoded(config.get("secrets") or "{}", dict[str, str], "a JSON object of texts")
        _check_secrets(secrets)
    with _named("lock_input_fields"):
        locked = _decoded(config.get("lock_input_fields") or "[]", list[str], "a JSON list of texts")
        if len(locked) > MAX_LOCKED or any(not _NAME.fullmatch(name) for name in locked):
            raise TemplateProblem(f"has at most {MAX_LOCKED} names of inputs")
    with _named("body_template"):
        body = parse(config.get("body_template") or "")
        if body and config.get("method") == "GET":
            raise TemplateProblem("is not sent with GET")
    call = HttpCall(config.get("method", "POST"), url, headers, body, secrets, tuple(dict.fromkeys(locked)))
    with _named("body_template"):
        _check_body(call)
    return call


def check_names(call: HttpCall, schema: Mapping[str, Any]) -> None:
    """Raises TemplateProblem for a placeholder that stands for nothing, given the tool's input schema."""
    known = set(schema.get("properties") or {}) | set(call.locked)
    fields = {"url": [call.url], "headers": [*call.headers.values()], "body_template": [call.body]}
    for name, templates in fields.items():
        with _named(name):
            for found in (found for template in templates for found in placeholders(template)):
                _check_name(found, known, call.secrets.keys())


def schema_for(call: HttpCall, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema that a model is shown: the registration's, or texts for all inputs; never what is locked."""
    if schema is None:
        texts = {name: {"type": "string", "maxLength": 10_000} for name in call.inputs()}
        given: dict[str, Any] = {"type": "object", "properties": texts, "required": list(texts)}
    else:
        given = dict(schema)
    given["properties"] = {k: v for k, v in (given.get("properties") or {}).items() if k not in call.locked}
    required = [name for name in given.pop("required", ()) if name not in call.locked]
    return {**given, "required": required} if required else given


def _url(text: str, *, allow_private: bool) -> Template:
    if not _ORIGIN.match(text):
        raise TemplateProblem("must begin with https:// and a host without placeholders, then / or ?")
    template = parse(text)
    filled = sample(template)
    if not filled.isascii() or not filled.isprintable() or " " in filled or "#" in filled:
        raise TemplateProblem("must be printable ASCII without spaces and without a fragment")
    check_path(template, filled)
    try:
        check_url(filled, allow_private=allow_private)
    except ForbiddenURL as error:
        raise TemplateProblem(str(error)) from None
    return template


def _headers(given: Mapping[str, str]) -> dict[str, Template]:
    if len(given) > MAX_HEADERS or len({name.lower() for name in given}) < len(given):
        raise TemplateProblem(f"has at most {MAX_HEADERS} headers, each once")
    for name, value in given.items():
        if not _HEADER.fullmatch(name) or name.lower() in _NOT_OURS:
            raise TemplateProblem(f"the header {name[:64]!r} cannot be set")
        if not (value.isascii() and value.isprintable()) or len(value) > MAX_HEADER:
            raise TemplateProblem(f"{name} must be printable ASCII")
    headers = {name: parse(value) for name, value in given.items()}
    for name, template in headers.items():
        if name.lower() == "content-type" and list(placeholders(template)):
            raise TemplateProblem("Content-Type must not have placeholders")
    return headers


def _check_secrets(secrets: Mapping[str, str]) -> None:
    if len(secrets) > MAX_SECRETS or any(not _NAME.fullmatch(name) for name in secrets):
        raise TemplateProblem(f"has at most {MAX_SECRETS} names of letters, digits, _ and -")
    if any(len(value) < MIN_SECRET for value in secrets.values()):
        raise TemplateProblem(f"each value has at least {MIN_SECRET} characters")


def _check_body(call: HttpCall) -> None:
    if not call.body:
        return
    if style_of(call.content_type) is None:
        kind = call.content_type[:100]
        raise TemplateProblem(f"of the type {kind} cannot be filled: use JSON, a form, XML or text")
    if call.style == "json":
        try:
            msgspec.json.decode(_sample_json(call.body))
        except (msgspec.DecodeError, RecursionError):
            raise TemplateProblem("does not become JSON when its placeholders are filled") from None


def _sample_json(template: Template) -> str:
    values: dict[str, Any] = {}
    for found in placeholders(template):
        node = values
        for step in found.steps[:-1]:
            inner = node.get(step)
            node[step] = inner if isinstance(inner, dict) else {}
            node = node[step]
        node.setdefault(found.steps[-1], "x")
    return fill(template, values, "json")


def _check_name(found: Placeholder, inputs: set[str], secrets: Any) -> None:
    match found.steps:
        case ("input",):
            pass
        case ("input", name, *_) if name in inputs:
            pass
        case ("secrets", name) if name in secrets:
            pass
        case ("thread" | "end_user" | "call", "id"):
            pass
        case ("thread" | "end_user", "metadata", _, *_):
            pass
        case _:
            raise TemplateProblem(f"{found} stands for nothing: no input, no secret, nothing of the session")


def _decoded(text: str, kind: type[T], words: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        raise TemplateProblem(f"must be {words}, as text") from None


@contextmanager
def _named(field: str) -> Iterator[None]:
    """Put a field's name before what is wrong within."""
    try:
        yield
    except TemplateProblem as problem:
        raise TemplateProblem(f"`config.{field}`: {problem}") from None
