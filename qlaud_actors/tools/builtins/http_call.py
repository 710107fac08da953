"""One call of the built-in http-call: its request built, its answer told. Pure.

Scheme, host and port of the URL are fixed text. What a model gives stays within its segment, parameter,
header or JSON string; what the session must give (locked inputs) a model cannot give in its place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from qlaud_actors.connectors.answer import Received
from qlaud_actors.connectors.model import Effect
from qlaud_actors.connectors.request import MAX_BODY, MAX_HEADER, MAX_URL, Request
from qlaud_actors.tools.builtins.template import (
    Placeholder,
    Style,
    Template,
    TemplateProblem,
    fill,
    placeholders,
)
from qlaud_actors.tools.model import ToolOutcome

EFFECTS: dict[str, Effect] = {"GET": "read", "PUT": "idempotent", "DELETE": "idempotent"}
"""By method (RFC 9110, 9.2); the others are `write`."""

HIDDEN = "[hidden]"

MAX_ANSWER_BYTES = 256 * 1024

LOCKED = "locked"
"""In a session: the metadata that locked inputs may take, which no template can name."""

_SESSION = {"end_user_id": ("end_user", "id"), "thread_id": ("thread", "id")}
"""Locked inputs that are not metadata."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A configuration, read."""

    method: str
    url: Template
    headers: Mapping[str, Template]
    body: Template
    secrets: Mapping[str, str]
    locked: tuple[str, ...]

    @property
    def effect(self) -> Effect:
        """What a repetition may do, by the method."""
        return EFFECTS.get(self.method, "write")

    @property
    def style(self) -> Style:
        """How values are escaped in the body, by its content type."""
        return style_of(self.content_type) or "text"

    @property
    def content_type(self) -> str:
        """As the headers say, else JSON."""
        given = next((value for name, value in self.headers.items() if name.lower() == "content-type"), None)
        return "application/json" if given is None else "".join(map(str, given))

    @property
    def needs_session(self) -> bool:
        """Whether the metadata of the call's thread is asked for."""
        return bool(self.locked) or any(found.source in ("thread", "end_user") for found in self.used())

    def inputs(self) -> list[str]:
        """Top-level inputs that the templates name, each once, in order."""
        named = [found.steps[1] for found in self.used() if found.source == "input" and len(found.steps) > 1]
        return [name for name in dict.fromkeys(named) if name not in self.locked]

    def used(self) -> list[Placeholder]:
        """All placeholders of its templates."""
        templates = (self.url, *self.headers.values(), self.body)
        return [found for template in templates for found in placeholders(template)]

    def spelled(self) -> tuple[str, ...]:
        """The secrets in every spelling that the request has, longest first; none may come back."""
        values = set(self.secrets.values())
        values |= {quote(value, safe="") for value in values} | {json.dumps(value)[1:-1] for value in values}
        return tuple(sorted(values, key=len, reverse=True))

    def request(self, arguments: Mapping[str, Any], session: Mapping[str, Any], call_id: str) -> Request:
        """The request of one call, for a session: `end_user`, `thread`, `locked`. Raises TemplateProblem."""
        forced = {name: _locked_value(name, session) for name in self.locked}
        given = {"input": {**arguments, **forced}, "secrets": self.secrets, "call": {"id": call_id}}
        values = {**session, **given}
        url = fill(self.url, values, "url")
        check_path(self.url, url)
        if len(url) > MAX_URL:
            raise TemplateProblem("the URL becomes too long")
        headers = {name: _header(name, fill(value, values, "text")) for name, value in self.headers.items()}
        body = fill(self.body, values, self.style).encode() if self.body else None
        if body is not None and len(body) > MAX_BODY:
            raise TemplateProblem(f"the body becomes larger than {MAX_BODY} bytes")
        names = {name.lower() for name in headers}
        if body is not None and "content-type" not in names:
            headers["Content-Type"] = "application/json"
        if self.effect != "read" and "idempotency-key" not in names:
            headers["Idempotency-Key"] = call_id
        return Request(self.method, url, headers, body)


def sample(template: Template) -> str:
    """The template with `x` for every value."""
    return "".join("x" if isinstance(piece, Placeholder) else piece for piece in template)


def check_path(template: Template, url: str) -> None:
    """Each segment is there and is one that nobody folds away. Raises TemplateProblem."""
    wanted, given = (text.partition("?")[0].split("/")[3:] for text in (sample(template), url))
    for want, step in zip(wanted, given, strict=True):
        if step in (".", "..") or (want and not step):
            raise TemplateProblem("a value in the path must not be empty or consist of dots")


def style_of(content_type: str) -> Style | None:
    """How values stand in a body of this type; None: nobody knows."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return "json"
    if kind == "application/x-www-form-urlencoded":
        return "form"
    if kind in ("application/xml", "text/xml", "text/html") or kind.endswith("+xml"):
        return "xml"
    return "text" if kind == "text/plain" else None


def _locked_value(name: str, session: Mapping[str, Any]) -> Any:
    source, key = _SESSION.get(name, (LOCKED, name))
    found = session[source].get(key)
    if found is None:
        words = f"the session has no `{name}`, which the developer has locked"
        raise TemplateProblem(words if name in _SESSION else f"{words}: an admin key must write it")
    return found


def _header(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()) or len(value) > MAX_HEADER:
        raise TemplateProblem(f"what becomes the header {name} must be printable ASCII in one line")
    return value


def outcome(call: HttpCall, received: Received) -> ToolOutcome:
    """The answer as a model gets it: status and body, without any secret."""
    status = received.status
    if 300 <= status < 400:
        words = f"The endpoint answered with a redirect ({status}), which is not followed."
        return ToolOutcome(words, is_error=True)
    if len(received.body) > MAX_ANSWER_BYTES:
        done = "did its work" if 200 <= status < 300 else f"refused ({status})"
        words = f"The endpoint {done}, but its answer is larger than {MAX_ANSWER_BYTES // 1024} KiB."
        return ToolOutcome(f"{words} Ask for less.", is_error=True)
    body = blotted(_decoded(received), call.spelled())
    return ToolOutcome({"status": status, "body": body}, is_error=not 200 <= status < 300)


def blotted(value: Any, secrets: tuple[str, ...]) -> Any:
    """The value without the secrets, in keys as well."""
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, HIDDEN)
            return value
        case list():
            return [blotted(item, secrets) for item in value]
        case dict():
            return {blotted(key, secrets): blotted(item, secrets) for key, item in value.items()}
    return value


def _decoded(received: Received) -> Any:
    if not received.body:
        return None
    kind = received.headers.get("content-type", "").partition(";")[0].strip().lower()
    if style_of(kind) is None and not kind.startswith("text/") and kind:
        return f"{len(received.body)} bytes of {kind[:100]}, which cannot be read here"
    try:
        return msgspec.json.decode(received.body)
    except (msgspec.DecodeError, RecursionError):
        return received.body.decode("utf-8", "replace")
