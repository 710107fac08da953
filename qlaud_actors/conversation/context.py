"""What of a thread a model gets to see. Pure.

The messages of a thread stay whole. A `View` says what stands for the oldest of them: a summary, and results
of tools that are shown cut. It moves in large strides: when what is shown passes a share of the window it is
brought down to half of that, so that in between each request begins with the same bytes as the one before,
which providers cache.

Sizes are bounds. A text has no more tokens than bytes; where two steps of one view and model have told
their input, the difference is what lay between them, and the smaller figure counts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.bound import message_tokens
from qlaud_actors.providers.model import Block, Message, Model

CompactionMode: TypeAlias = Literal["auto", "off"]

THRESHOLD = 0.8
MIN_THRESHOLD, MAX_THRESHOLD = 0.1, 0.95
TARGET = 0.5
"""Of the limit: what is left of it after a stride."""

KEPT_CHARS = 200
"""The beginning of a result that stays when it is cut."""

HEAD = (
    "This is a summary of the earlier part of this conversation, whose messages are not shown any more. "
    "Go on from it.\n\n"
)
OMITTED = "[Some earlier messages are left out here without a summary.]"


class ContextOverflow(InvalidRequest):
    """This is more than the model's context window holds."""

    code = "context_length_exceeded"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a thread says of its length."""

    mode: CompactionMode = "auto"
    threshold: float = THRESHOLD
    model: str | None = None
    """Who writes its summaries."""


@dataclass(frozen=True, slots=True)
class View:
    """What stands for a thread's oldest messages; versions count from 1."""

    version: int = 0
    summary: str | None = None
    through_seq: int = 0
    """The last message that the summary stands for."""
    trimmed_seq: int = 0
    """The last message whose results of tools are shown cut."""
    omitted: bool = False
    """Some messages are neither shown nor in the summary."""


@dataclass(frozen=True, slots=True)
class Room:
    """Tokens of input: when to compact, what to come down to, and what no request may pass."""

    limit: int
    target: int
    most: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A message's size in tokens, as it is and with its results cut."""

    seq: int
    whole: int
    cut: int
    begins: bool
    """It is the user's word alone: what comes before it can go without tearing a call from its result."""
    thinks: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What a step had as input, in tokens: all before the message `seq`, in the view of that digest."""

    seq: int
    tokens: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring entries (from one index to before another) that have these tokens together."""

    start: int
    end: int
    tokens: int


def room_of(model: Model, max_tokens: int, threshold: float) -> Room:
    """The room for input beside the answer, for which at most half of the window is kept."""
    window = model.context_window
    most = window - min(max_tokens, model.max_output_tokens, window // 2)
    limit = min(int(window * threshold), most)
    return Room(limit, int(limit * TARGET), most)


def show(messages: Iterable[tuple[int, Message]], view: View) -> list[Message]:
    """The messages (each with its seq) as the model gets to see them, still to be healed."""
    shown = [] if view.summary is None else [Message("user", [{"type": "text", "text": HEAD + view.summary}])]
    for seq, message in messages:
        if seq > view.through_seq:
            shown.append(cut_results(message) if seq <= view.trimmed_seq else message)
    return shown


def cut_results(message: Message) -> Message:
    """The message with a note in place of what is cut of its results."""
    if message.role != "user" or isinstance(message.content, str):
        return message
    return replace(message, content=[_cut(block) for block in message.content])


def _cut(block: Block) -> Block:
    if block.get("type") != "tool_result":
        return block
    content = block.get("content") or ""
    parts = [content] if isinstance(content, str) else [_text(part) for part in content]
    text = "\n".join(parts)
    attached = not isinstance(content, str) and any(part.get("type") != "text" for part in content)
    if len(text) <= 2 * KEPT_CHARS and not attached:
        return block
    note = f"[{len(text) - KEPT_CHARS:,} more characters of this result are left out]"
    return {**block, "content": f"{text[:KEPT_CHARS]}\n{note if len(text) > KEPT_CHARS else ''}".rstrip()}


def _text(part: Block) -> str:
    return str(part.get("text") or "") if part.get("type") == "text" else f"[{part.get('type')} left out]"


def begins_turn(message: Message) -> bool:
    """Whether the user speaks here, and no result comes with it."""
    if message.role != "user":
        return False
    content = message.content
    return isinstance(content, str) or all(block.get("type") != "tool_result" for block in content)


def entry(seq: int, message: Message, model: Model) -> Entry:
    """A message's size."""
    whole = message_tokens(message, model)
    cut = cut_results(message)
    thinks = isinstance(message.content, list) and any(
        block.get("type") in ("thinking", "redacted_thinking") for block in message.content
    )
    smaller = whole if cut == message else min(whole, message_tokens(cut, model))
    return Entry(seq, whole, smaller, begins_turn(message), thinks)


def spans(entries: Sequence[Entry], measured: Sequence[Measured]) -> tuple[Span, ...]:
    """What lay between each two neighbouring steps of one view, as they told it.

    Where the model has thought nothing is told: a provider drops the thoughts of an earlier turn.
    """
    seqs = [one.seq for one in entries]
    found = []
    for before, after in pairwise(sorted(measured, key=lambda one: one.seq)):
        start, end = bisect_left(seqs, before.seq), bisect_left(seqs, after.seq)
        if before.digest != after.digest or start >= end or seqs[start] != before.seq:
            continue
        since = max((n for n in range(start + 1) if entries[n].begins), default=0)
        if not any(one.thinks for one in entries[since:end]):
            found.append(Span(start, end, max(0, after.tokens - before.tokens)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Content:
    """What a request is made of, in tokens."""

    entries: tuple[Entry, ...]
    known: tuple[Span, ...]
    beside: int
    """System, tools, and the present summary."""
    fresh: int
    """The same with the longest summary that there may be."""

    def size(self, first: int, cut: int) -> int:
        """The most that the entries from an index on can take, those before the index `cut` with their
        results cut.
        """
        bounds = [one.cut if n < cut else one.whole for n, one in enumerate(self.entries)]
        total = sum(bounds[first:])
        for span in self.known:
            total -= max(0, sum(bounds[max(span.start, first) : span.end]) - span.tokens)
        return total

    def shown(self, view: View) -> int:
        """The most that a request in this view can take."""
        return self.beside + self.size(0, self.cut(view))

    def cut(self, view: View) -> int:
        """How many entries are shown with their results cut."""
        return sum(1 for one in self.entries if one.seq <= view.trimmed_seq)


def next_view(content: Content, view: View, room: Room) -> View | None:
    """The next stride from a view in which the content does not fit any more: first results of tools are
    cut, the oldest first, then the oldest turns go. None when there is nothing left to give up.

    The summary of the view that comes back is still the old one.
    """
    entries, cut = content.entries, content.cut(view)
    starts = [n for n, one in enumerate(entries) if one.begins and n]
    if starts and content.beside + content.size(0, max(cut, starts[-1])) <= room.target:
        return _trimmed(content, view, room.target, starts[-1])
    if starts:
        left = room.target - content.fresh
        index = bisect_left(starts, -left, key=lambda n: -content.size(n, cut))
        first = starts[min(index, len(starts) - 1)]
        return replace(view, version=view.version + 1, through_seq=entries[first - 1].seq)
    # The newest turn alone: its last message is what the model has to answer.
    return _trimmed(content, view, room.target, len(entries) - 1)


def _trimmed(content: Content, view: View, target: int, high: int) -> View | None:
    """Cut the results of as few of the oldest messages as bring the whole to the target; at most `high`."""
    entries, low, left = content.entries, content.cut(view), target - content.beside
    if not any(one.cut < one.whole for one in entries[low:high]):
        return None
    index = bisect_left(range(low, high), -left, key=lambda n: -content.size(0, n))
    return replace(view, version=view.version + 1, trimmed_seq=entries[max(low, low + index - 1)].seq)
