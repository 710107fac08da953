"""A conversation as it is taken in, and what its readers share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["user", "assistant"]
Block: TypeAlias = dict[str, Any]


class FormatError(Exception):
    """A file is not of the format that it is read as; says where."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message in the Anthropic block vocabulary; `created_at_ms` is None when nobody knows."""

    role: Role
    content: str | list[Block]
    created_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What becomes one thread. `external_id` names it in its source for good."""

    external_id: str
    messages: list[Said]
    title: str | None = None
    end_user_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """Further fields of the thread, where the file is of our own."""
    compactions: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)


Reader: TypeAlias = Callable[[bytes], Iterator[Conversation]]
"""From the bytes of a file. Raises FormatError."""


def alternating(messages: Iterable[Said]) -> list[Said]:
    """Without empty messages, and those of one role in a row as one: as our own turns are stored."""
    joined: list[Said] = []
    for message in messages:
        if not message.content:
            continue
        if joined and joined[-1].role == message.role:
            joined[-1] = replace(joined[-1], content=[*_blocks(joined[-1]), *_blocks(message)])
        else:
            joined.append(message)
    return joined


def _blocks(said: Said) -> list[Block]:
    return text(said.content) if isinstance(said.content, str) else said.content


def text(value: object) -> list[Block]:
    """A text block; none for what is no text or empty."""
    return [{"type": "text", "text": value}] if isinstance(value, str) and value.strip() else []


def note(words: str) -> Block:
    """In place of something that cannot be brought along."""
    return {"type": "text", "text": f"[{words}]"}


def image(url: object) -> Block:
    """An image block for a URL or a data URL."""
    if not isinstance(url, str):
        return note("an image, not imported")
    if url.startswith("data:"):
        kind, comma, data = url.removeprefix("data:").partition(";base64,")
        if not comma:
            return note("an image, not imported")
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}


def millis(seconds: object) -> int | None:
    """Milliseconds of a time in seconds; None for what is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return None
    return int(seconds * 1000)
