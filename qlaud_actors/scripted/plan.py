"""What the model will do: blocks cut into pieces, how it stops, what it costs, what goes wrong."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from qlaud_actors.scripted.tokens import BYTES_PER_TOKEN, cut, size, tokens
from qlaud_actors.scripted.view import View


@dataclass(frozen=True, slots=True)
class Block:
    """One content block of an answer; joined, `pieces` are its text or its input's JSON."""

    kind: Literal["text", "thinking", "tool_use"]
    pieces: tuple[str, ...]
    name: str = ""

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece as it is streamed: of which block, and whether it opens or closes it."""

    block: int
    text: str
    first: bool
    last: bool


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Token counts that replace the counted ones; the buckets are disjoint."""

    input: int | None = None
    output: int | None = None
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: an error instead of an answer, or an end after some pieces."""

    status: int | None = None
    retry_after: float | None = None
    cut_after: int | None = None
    error_after: int | None = None
    times: int | None = None
    """How often it happens to one and the same request body; None is always."""
    only: str | None = None
    """The one it happens to: a model, or the end of the caller's API key; None is everybody."""

    def at(self, seen: int) -> "Fault":
        """This fault for a body that was already seen that often; none once it is used up."""
        return self if self.times is None or seen < self.times else NO_FAULT

    def concerns(self, model: str, key: str) -> bool:
        """Whether it happens to a request for this model with this key."""
        return self.only is None or self.only == model or key.endswith(self.only)


NO_FAULT = Fault()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by bucket, disjoint (`cache_write` is for five minutes); `thinking` is a part of `output`."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    thinking: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer before it is given. Times are milliseconds; a delay stands between two pieces."""

    blocks: tuple[Block, ...]
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    first_byte_ms: float = 0
    delay_ms: float = 0
    counts: Counts = field(default_factory=Counts)
    omit_usage: bool = False
    fault: Fault = NO_FAULT

    def pieces(self) -> Iterator[Piece]:
        """The whole answer, piece by piece."""
        for index, block in enumerate(self.blocks):
            end = len(block.pieces) - 1
            for n, text in enumerate(block.pieces):
                yield Piece(index, text, first=n == 0, last=n == end)


class Progress:
    """How much of a plan has been produced; asked for the bill at any moment."""

    def __init__(self, view: View, plan: Plan) -> None:
        self._view = view
        self._plan = plan
        self._total = sum(size(block.name) + size(block.text) for block in plan.blocks)
        self._done = 0
        self._thought = 0
        self._started = False

    def start(self) -> None:
        """The answer has begun; from here on it counts one token at least, as real ones do."""
        self._started = True

    def add(self, piece: Piece) -> None:
        """One more piece was produced."""
        block = self._plan.blocks[piece.block]
        self._done += size(piece.text) + (size(block.name) if piece.first else 0)
        self._thought += size(piece.text) if block.kind == "thinking" else 0

    def usage(self) -> Usage:
        """Tokens read and produced so far; an `output` set by the script grows in proportion."""
        counts = self._plan.counts
        output = tokens(self._done)
        if counts.output is not None:
            output = -(-counts.output * self._done // self._total) if self._total else counts.output
        limit = self._view.max_tokens
        output = max(output, int(self._started))
        output = output if limit is None else min(output, limit)
        cached = counts.cache_read + counts.cache_write + counts.cache_write_1h
        fresh = max(0, self._view.input_tokens - cached) if counts.input is None else counts.input
        thought = min(tokens(self._thought), output)
        copies = self._view.copies
        return Usage(
            input=fresh,
            output=output * copies,
            cache_read=counts.cache_read,
            cache_write=counts.cache_write,
            cache_write_1h=counts.cache_write_1h,
            thinking=thought * copies,
        )


def fitted(plan: Plan, view: View) -> Plan:
    """The plan as far as the request lets it go: to a stop sequence, to `max_tokens`."""
    plan = _stopped(plan, view.stop_sequences)
    if view.max_tokens is None:
        return plan
    left = view.max_tokens * BYTES_PER_TOKEN
    blocks: list[Block] = []
    for block in plan.blocks:
        left -= size(block.name)
        if left <= 0:
            return replace(plan, blocks=tuple(blocks), stop_reason="max_tokens", stop_sequence=None)
        kept = _shortened(block, left)
        blocks += [kept] if kept.pieces else []
        if kept.text != block.text:
            return replace(plan, blocks=tuple(blocks), stop_reason="max_tokens", stop_sequence=None)
        left -= size(kept.text)
    return replace(plan, blocks=tuple(blocks))


def _stopped(plan: Plan, sequences: tuple[str, ...]) -> Plan:
    """The plan up to the first stop sequence in a text block, which is not part of the answer."""
    for n, block in enumerate(plan.blocks):
        hits = [(block.text.find(sequence), sequence) for sequence in sequences if sequence in block.text]
        if block.kind != "text" or not hits:
            continue
        position, sequence = min(hits)
        kept = _shortened(block, size(block.text[:position]))
        blocks = (*plan.blocks[:n], kept) if kept.pieces else plan.blocks[:n]
        return replace(plan, blocks=blocks, stop_reason="stop_sequence", stop_sequence=sequence)
    return plan


def _shortened(block: Block, byte_count: int) -> Block:
    """The beginning of a block, in the same pieces."""
    pieces: list[str] = []
    for piece in block.pieces:
        kept = cut(piece, byte_count)
        if kept or not piece:
            pieces.append(kept)
        if kept != piece:
            break
        byte_count -= size(piece)
    return replace(block, pieces=tuple(pieces))
