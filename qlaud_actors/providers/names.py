"""Tool names as providers accept them. Ours may hold `/` (`linear/search`), theirs may not."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qlaud_actors.providers.model import ModelRequest

MAX_NAME = 64
"""The shorter of the two vendors' limits (OpenAI: 64, Anthropic: 128)."""

_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_ILLEGAL_RUN = re.compile(r"[^a-zA-Z0-9_-]+")
_DIGEST = 10


def legal(text: str, limit: int = MAX_NAME, salt: int = 0) -> str:
    """`text` itself where providers accept it, else a readable legal form that ends in its hash.

    It depends on nothing else, so that a prompt which repeats it stays the same and can be cached.
    """
    if not salt and len(text) <= limit and _LEGAL.fullmatch(text):
        return text
    digest = hashlib.sha256(f"{salt}:{text}".encode()).hexdigest()[:_DIGEST]
    readable = _ILLEGAL_RUN.sub("_", text)[: limit - _DIGEST - 1]
    return f"{readable}_{digest}"


@dataclass(frozen=True, slots=True)
class ToolNames:
    """The names of one request both ways; two different names never share a wire name."""

    _to_wire: dict[str, str]
    _from_wire: dict[str, str]

    @classmethod
    def of(cls, names: Iterable[str]) -> "ToolNames":
        """Names that are legal already keep their spelling, whatever the others would like."""
        distinct = dict.fromkeys(names)
        from_wire = {name: name for name in distinct if legal(name) == name}
        for name in distinct:
            if name not in from_wire:
                from_wire[_free(name, from_wire)] = name
        return cls({ours: wire for wire, ours in from_wire.items()}, from_wire)

    @classmethod
    def for_request(cls, request: ModelRequest) -> "ToolNames":
        """All names that a request mentions: its tools first, then those its history called."""
        return cls.of(_mentioned(request))

    def to_wire(self, name: str) -> str:
        """The name that the provider sees."""
        return self._to_wire.get(name) or legal(name)

    def from_wire(self, name: str) -> str:
        """Our name; one that the model invented comes back as it is."""
        return self._from_wire.get(name, name)


def _free(name: str, taken: dict[str, str]) -> str:
    salt = 0
    while (wire := legal(name, salt=salt)) in taken:
        salt += 1
    return wire


def _mentioned(request: ModelRequest) -> Iterator[str]:
    yield from (tool.name for tool in request.tools)
    for message in request.messages:
        if message.role == "assistant" and not isinstance(message.content, str):
            yield from (block["name"] for block in message.content if block.get("type") == "tool_use")
