"""The fold of a model's events into its reply."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from qlaud_actors.providers.model import (
    Block,
    BlockDelta,
    BlockStarted,
    BlockStopped,
    MessageEnded,
    MessageStarted,
    ModelEvent,
    ModelReply,
)

INVALID_JSON = "_invalid_json"
"""The only key of a call's input that was not a JSON object; its value is the text that the model sent.

So the call stays in the history as an object, as providers want it. Such a call must not be run.
"""


@dataclass(frozen=True, slots=True)
class PartialReply:
    """What a broken call had produced. `content` lacks a tool call that was cut in its input.

    `output_chars` counts everything that the model wrote, thinking and tool inputs included.
    """

    message_id: str | None
    content: list[Block]
    output_chars: int


@dataclass(slots=True)
class _Growing:
    """A block in the making: text pieces by the field that they belong to, joined once."""

    block: Block
    pieces: dict[str, list[str]] = field(default_factory=dict)
    input_pieces: list[str] = field(default_factory=list)
    stopped: bool = False

    def add(self, delta: Block) -> int:
        """Take a delta in and tell its size in characters.

        A delta's text belongs to the block's field of the same name, also for kinds that are newer
        than this code.
        """
        match delta.get("type"):
            case "input_json_delta":
                piece = delta.get("partial_json") or ""
                self.input_pieces.append(piece)
                return len(piece)
            case "citations_delta":
                self.block["citations"] = [*(self.block.get("citations") or []), delta.get("citation")]
                return 0
        for name, value in delta.items():
            if name != "type" and isinstance(value, str):
                self.pieces.setdefault(name, []).append(value)
        return _written(delta)

    def build(self) -> Block:
        """The block as far as it has come."""
        block = dict(self.block)
        for name, pieces in self.pieces.items():
            block[name] = (block.get(name) or "") + "".join(pieces)
        if self.input_pieces:
            block["input"] = parse_input("".join(self.input_pieces))
        return block


class ReplyBuilder:
    """Folds the events of one answer, in their order. `build` when it has ended, `partial` at any time."""

    def __init__(self) -> None:
        self._message_id: str | None = None
        self._blocks: dict[int, _Growing] = {}
        self._end: MessageEnded | None = None
        self._output_chars = 0

    def add(self, event: ModelEvent) -> None:
        """Take the next event in."""
        match event:
            case MessageStarted(message_id):
                self._message_id = message_id
            case BlockStarted(index, block):
                self._blocks[index] = _Growing(dict(block))
                self._output_chars += len(block.get("text") or "") + len(block.get("thinking") or "")
            case BlockDelta(index, delta):
                self._output_chars += self._blocks[index].add(delta)
            case BlockStopped(index):
                self._blocks[index].stopped = True
            case MessageEnded():
                self._end = event

    @property
    def output_chars(self) -> int:
        """Everything that the model has written so far, thinking and tool inputs included."""
        return self._output_chars

    def build(self) -> ModelReply:
        """The complete reply. Raises ValueError when the answer has not ended."""
        if self._message_id is None or self._end is None:
            raise ValueError("the answer has not ended")
        content = [growing.build() for growing in self._blocks.values()]
        end = self._end
        return ModelReply(self._message_id, content, end.stop_reason, end.usage, end.stop_sequence)

    def partial(self) -> PartialReply:
        """What there is so far."""
        content = [
            growing.build()
            for growing in self._blocks.values()
            if growing.stopped or growing.block.get("type") in ("text", "thinking")
        ]
        return PartialReply(self._message_id, content, self._output_chars)


def characters(event: ModelEvent) -> int:
    """How much the model wrote with one event, thinking and tool inputs included."""
    match event:
        case BlockStarted(_, block):
            return len(block.get("text") or "") + len(block.get("thinking") or "")
        case BlockDelta(_, delta):
            return _written(delta)
    return 0


def _written(delta: Block) -> int:
    return sum(
        len(value)
        for name, value in delta.items()
        if name not in ("type", "signature") and isinstance(value, str)
    )


def parse_input(text: str) -> dict[str, Any]:
    """A tool call's input from its JSON; `{}` for none, and see `INVALID_JSON` for anything else."""
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {INVALID_JSON: text}
    if value is None:
        return {}
    return value if isinstance(value, dict) else {INVALID_JSON: text}
