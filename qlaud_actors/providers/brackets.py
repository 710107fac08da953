"""Loose pieces of an answer → content blocks, one after the other, never two at once.

OpenAI's wire sends pieces that name their tool call by a number and may, on paper, mix them. Blocks
must be bracketed: the oldest unfinished block flows, later ones wait until it is known to be complete.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import msgspec

from qlaud_actors.providers.model import Block, BlockDelta, BlockStarted, BlockStopped, ModelEvent

_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


@dataclass(slots=True)
class _Entry:
    """A block that is open or waits; `sent` pieces have left, `held` ones not yet."""

    key: Hashable
    start: Block
    held: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    @property
    def is_call(self) -> bool:
        return bool(self.start["type"] == "tool_use")

    def complete(self) -> bool:
        """Whether nothing more can belong to it: a call is complete when its input is whole JSON."""
        if not self.is_call:
            return True
        pieces = "".join(self.sent)
        if not self.start["name"] or not pieces.rstrip().endswith("}"):
            return False
        try:
            msgspec.json.decode(pieces)
        except msgspec.DecodeError:
            return False
        return True

    def flush(self, index: int) -> list[ModelEvent]:
        """The held pieces as one delta."""
        if not self.held:
            return []
        kind, name = _DELTAS[self.start["type"]]
        piece = "".join(self.held)
        self.sent.append(piece)
        self.held.clear()
        return [BlockDelta(index, {"type": kind, name: piece})]


class Brackets:
    """The blocks of one answer, numbered from 0 without a gap."""

    def __init__(self) -> None:
        self._queue: deque[_Entry] = deque()
        self._closed_calls: set[Hashable] = set()
        self._index = 0
        self._open = False

    def write(self, key: Hashable, start: Block, piece: str) -> list[ModelEvent]:
        """Add a piece to the block of this key; `start` begins it when there is none yet.

        A tool call keeps its key; text and thinking begin anew after something else came between.
        """
        if key in self._closed_calls:
            return []
        entry = next((entry for entry in self._queue if entry.key == key), None)
        if entry is None:
            entry = _Entry(key, start)
            self._queue.append(entry)
        elif entry.is_call and not entry.start["name"]:
            entry.start = start
        if piece:
            entry.held.append(piece)
        return self._advance()

    def close(self) -> list[ModelEvent]:
        """End all blocks: no piece of any of them will come."""
        events: list[ModelEvent] = []
        while self._queue:
            events += [*self._flow(), *self._stop()]
        return events

    def _advance(self) -> list[ModelEvent]:
        """Let the oldest block flow, and end it when it is complete and another one waits."""
        events: list[ModelEvent] = []
        while self._open or self._queue[0].start.get("name") != "":
            events += self._flow()
            if len(self._queue) == 1 or not self._queue[0].complete():
                break
            events += self._stop()
        return events

    def _flow(self) -> list[ModelEvent]:
        head = self._queue[0]
        begun: list[ModelEvent] = [] if self._open else [BlockStarted(self._index, head.start)]
        self._open = True
        return begun + head.flush(self._index)

    def _stop(self) -> list[ModelEvent]:
        head = self._queue.popleft()
        if head.is_call:
            self._closed_calls.add(head.key)
        stopped = BlockStopped(self._index)
        self._index += 1
        self._open = False
        return [stopped]
