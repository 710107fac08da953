"""What the model sees of a request: the same form for both wires."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, takewhile
from typing import Any, Literal

from qlaud_actors.scripted.tokens import IMAGE_TOKENS, size, tokens

PartKind = Literal["text", "thinking", "tool_use", "tool_result", "image", "other"]


@dataclass(frozen=True, slots=True)
class Part:
    """One content block. `text` of a tool_use is its input as JSON, of `other` the block's JSON."""

    kind: PartKind
    text: str = ""
    name: str = ""
    input: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message; results of tools are parts of a user's message on both wires."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All its plain text."""
        return "\n".join(part.text for part in self.parts if part.kind == "text")

    @property
    def is_question(self) -> bool:
        """Whether a user said something here, beyond handing in results of tools."""
        return self.role == "user" and any(part.kind != "tool_result" for part in self.parts)


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool that the request offers, by its name on the wire."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A tool call with its result."""

    call: Part
    result: Part


@dataclass(frozen=True)
class View:
    """A request as the model sees it. `max_tokens` is None where the caller set no limit."""

    model: str
    messages: tuple[Message, ...]
    system: str = ""
    tools: tuple[Offer, ...] = ()
    tools_size: int = 0
    """Bytes of the tools' JSON."""
    max_tokens: int | None = None
    stream: bool = False
    include_usage: bool = True
    stop_sequences: tuple[str, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `any`, or the wire name of the one tool that must be called."""
    thinking: bool = False
    """Extended thinking was asked for: then an answer begins with a thinking block."""
    schema: dict[str, Any] | None = None
    """What an answer's text must be JSON of."""
    copies: int = 1
    """How many answers are asked for (`n` on the OpenAI wire)."""

    @cached_property
    def input_tokens(self) -> int:
        """Tokens of all that was sent: system, messages, calls, results, tools."""
        parts = [part for message in self.messages for part in message.parts]
        text = sum(size(part.text) + size(part.name) for part in parts if part.kind != "image")
        images = sum(part.kind == "image" for part in parts)
        return tokens(size(self.system) + text + self.tools_size) + images * IMAGE_TOKENS

    @cached_property
    def _asked_at(self) -> int:
        """Where the last question stands; -1 when there is none."""
        asked = [n for n, message in enumerate(self.messages) if message.is_question]
        return asked[-1] if asked else -1

    @property
    def question(self) -> str:
        """The text of the last message in which a user said something."""
        return self.messages[self._asked_at].text if self._asked_at >= 0 else ""

    @property
    def steps_taken(self) -> int:
        """How often the assistant has already answered since the question."""
        return sum(message.role == "assistant" for message in self.messages[self._asked_at + 1 :])

    @property
    def earlier_questions(self) -> int:
        """How many questions there were before the last one."""
        return sum(message.is_question for message in self.messages[: max(0, self._asked_at)])

    @property
    def exchanges(self) -> list[Exchange]:
        """Tool calls with their results since the question, in order."""
        return list(self._exchanges())

    def _exchanges(self) -> Iterator[Exchange]:
        for answer, results in pairwise(self.messages[self._asked_at + 1 :]):
            found = {part.id: part for part in results.parts if part.kind == "tool_result"}
            for call in answer.parts:
                if call.kind == "tool_use" and call.id in found:
                    yield Exchange(call, found[call.id])

    def offered(self, name: str) -> Offer | None:
        """The offered tool that `name` means.

        Our names may hold `/`, which the wires forbid. A mapped name starts with a readable form
        of the original, so: the exact name, else the offer that shares the longest beginning.
        """
        exact = next((tool for tool in self.tools if tool.name == name), None)
        if exact or (wire_name(name) == name and len(name) <= _NEVER_MAPPED):
            return exact
        readable = _letters(name)
        shared = [(_shared(readable, _letters(tool.name)), tool) for tool in self.tools]
        length, best = max(shared, key=lambda pair: (pair[0], -len(pair[1].name)), default=(0, None))
        return best if length >= min(len(readable), _PREFIX) else None


_PREFIX = 24
"""Letters of a long name that its mapped form keeps at least."""
_NEVER_MAPPED = 64
"""Names of allowed characters up to this length fit both wires as they are."""


def wire_name(name: str) -> str:
    """`name` with every character that the wires forbid replaced by `_`."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)


def _letters(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "_", name)


def _shared(one: str, other: str) -> int:
    """How many letters the two have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
