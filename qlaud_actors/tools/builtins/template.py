"""The grammar of http-call's templates: `{{source.name}}`, filled once, escaped where it stands. Pure.

Values come from models that read strangers' texts. So what is filled in is never read again for
placeholders, and can end neither the text, nor the path segment, nor the parameter that it stands in.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote
from xml.sax.saxutils import escape

import msgspec

SOURCES = ("input", "end_user", "thread", "secrets", "call")
_OPEN, _CLOSE = "{{", "}}"
_NAME = re.compile(r"[a-z_]+(\.[A-Za-z0-9_-]{1,64}){0,8}")

Style: TypeAlias = Literal["json", "form", "xml", "text", "url"]


class TemplateProblem(Exception):
    """A template is wrong, or cannot be filled with these values; the words name no value."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`{{end_user.metadata.email}}` as its steps."""

    steps: tuple[str, ...]

    @property
    def source(self) -> str:
        """The first step: where the value comes from."""
        return self.steps[0]

    def __str__(self) -> str:
        return _OPEN + ".".join(self.steps) + _CLOSE


Template: TypeAlias = tuple[str | Placeholder, ...]


def parse(text: str) -> Template:
    """The pieces of a template. Raises TemplateProblem for what is between braces and no placeholder."""
    pieces: list[str | Placeholder] = []
    while True:
        before, opened, rest = text.partition(_OPEN)
        if before:
            pieces.append(before)
        if not opened:
            return tuple(pieces)
        inner, closed, text = rest.partition(_CLOSE)
        name = inner.strip()
        if not closed or not _NAME.fullmatch(name):
            raise TemplateProblem(f"{_OPEN}{inner[:40]}{_CLOSE if closed else ''} is no placeholder")
        placeholder = Placeholder(tuple(name.split(".")))
        if placeholder.source not in SOURCES:
            raise TemplateProblem(f"{placeholder} is unknown: it begins with {', '.join(SOURCES)}")
        pieces.append(placeholder)


def placeholders(template: Template) -> Iterator[Placeholder]:
    """Those of a template, in order."""
    return (piece for piece in template if isinstance(piece, Placeholder))


def fill(template: Template, values: Mapping[str, Any], style: Style) -> str:
    """The template as text. What an input lacks is empty (`null` as a JSON value).

    Raises TemplateProblem when the session or the configuration lacks a value: nothing stands in for it.
    """
    parts: list[str] = []
    quoted = False  # within a JSON string
    for piece in template:
        if isinstance(piece, str):
            parts.append(piece)
            quoted = _ends_in_string(piece, quoted=quoted) if style == "json" else False
            continue
        value = _value(piece, values)
        if style == "json" and not quoted:
            parts.append(msgspec.json.encode(value).decode())
        else:
            parts.append(_ESCAPES[style](_text(value)))
    return "".join(parts)


def _value(placeholder: Placeholder, values: Mapping[str, Any]) -> Any:
    found: Any = values
    for step in placeholder.steps:
        found = found.get(step) if isinstance(found, Mapping) else None
    if found is None and placeholder.source != "input":
        raise TemplateProblem(f"there is no {placeholder} in this session")
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _ends_in_string(text: str, *, quoted: bool) -> bool:
    """Whether what follows a piece of JSON is within a string."""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
    return quoted


_ESCAPES: dict[Style, Callable[[str], str]] = {
    "json": lambda text: msgspec.json.encode(text).decode()[1:-1],
    "form": lambda text: quote(text, safe=""),
    "url": lambda text: quote(text, safe=""),
    "xml": lambda text: escape(text, {'"': "&quot;", "'": "&apos;"}),
    "text": str,
}
