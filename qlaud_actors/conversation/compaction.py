"""Keeps what a turn's model sees of its thread within the model's window (`loop.Context`).

Each change of the view is a version, saved before it is used. A long part is summarised in pieces, each a
version of its own, so that whoever takes the turn over goes on behind the last piece that was paid for.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from qlaud_actors.conversation import events
from qlaud_actors.conversation.context import (
    Content,
    ContextOverflow,
    Entry,
    Measured,
    Policy,
    Room,
    View,
    begins_turn,
    cut_results,
    entry,
    next_view,
    room_of,
    show,
    spans,
)
from qlaud_actors.conversation.events import Event
from qlaud_actors.conversation.history import build_request
from qlaud_actors.conversation.journal import StepJournal, fenced
from qlaud_actors.conversation.model import Compaction, Progress, Turn
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.conversation.summaries import SummaryJournal, save_view
from qlaud_actors.conversation.summary import (
    next_piece,
    omitting,
    piece_bytes,
    summary_bound,
    summary_tokens,
)
from qlaud_actors.db.pool import Pool, Rows
from qlaud_actors.errors import BudgetRefused, ProviderRejected
from qlaud_actors.log import get_logger
from qlaud_actors.providers.bound import fixed_tokens, likely_tokens, message_tokens
from qlaud_actors.providers.model import Message, Model, ModelRequest
from qlaud_actors.tools.model import Toolset

logger = get_logger(__name__)


async def latest(rows: Rows, thread_id: object) -> Compaction | None:
    """What a model sees of a thread now in place of its oldest messages; None while it sees all."""
    row = await rows.fetchrow(QUERIES.latest_compaction, thread_id)
    return Compaction(**{name: row[name] for name in Compaction.__dataclass_fields__}) if row else None


async def policy_of(rows: Rows, thread_id: object) -> Policy:
    """What a thread says of its length."""
    row = await rows.fetchrow(QUERIES.compaction_policy, thread_id)
    if row is None:
        return Policy()
    return Policy(row["compaction"], row["compaction_threshold"], row["compaction_model"])


def reader_of(candidates: Sequence[Model]) -> Model:
    """The model that is asked first, with the smallest window of its hosts."""
    same = [model for model in candidates if model.slug == candidates[0].slug]
    return min(same, key=lambda model: model.context_window)


@dataclass(slots=True)
class ThreadContext:
    """The view of one owned turn's thread."""

    pool: Pool
    turn: Turn
    reader: Model
    toolset: Toolset
    policy: Policy
    view: View
    steps: StepJournal
    summaries: SummaryJournal
    _entries: dict[int, Entry] = field(default_factory=dict)
    _news: list[Event] = field(default_factory=list)
    _digests: dict[int, bytes] = field(default_factory=dict)

    def news(self) -> list[Event]:
        """What happened to the view since the last time, to be told."""
        told, self._news = self._news, []
        return told

    async def request(self, progress: Progress) -> ModelRequest:
        """The model request for the next step, within the model's window.

        Raises ContextOverflow, ProviderError; LeaseLost.
        """
        room = room_of(self.reader, self.turn.request.max_tokens, self.policy.threshold)
        while True:
            shown = show(progress.numbered, self.view)
            request = build_request(self.turn.request, shown, self.toolset, first=progress.steps == 0)
            self.steps.view = self._digest(request)
            content = self._content(request, progress)
            tokens = content.shown(self.view)
            if tokens > room.limit:
                measured = await self._measured()
                content = replace(content, known=spans(content.entries, measured))
                tokens = min(content.shown(self.view), *self._since(content, measured, tokens))
            wanted = None
            if tokens > room.limit and self.policy.mode == "auto":
                wanted = next_view(content, self.view, room)
            least = self._newest(request, progress) if wanted else request
            if tokens > room.most and likely_tokens(least, self.reader) > room.most:
                raise self._overflow(room)
            if wanted is None:
                return self._clamped(request, tokens)
            await self._move(wanted, progress)

    async def _move(self, wanted: View, progress: Progress) -> None:
        """Make the view smaller, and tell it."""
        cost = 0
        if wanted.through_seq > self.view.through_seq:
            cost = await self._summarise(progress, wanted.through_seq)
        else:
            await self._save(wanted)
        view = self.view
        self._news.append(
            events.compaction(
                view.version, view.through_seq, view.trimmed_seq, omitted=view.omitted, cost_nanos=cost
            )
        )
        logger.info("compacted", version=view.version, through_seq=view.through_seq, cost_nanos=cost)

    async def _summarise(self, progress: Progress, through: int) -> int:
        """Summarise what is shown up to a seq, piece by piece; returns the cost in nano-USD.

        When there is no money for it, or the writer refuses it, the rest is left out without a summary: the
        turn goes on.
        """
        shown = [one for one in progress.numbered if self.view.through_seq < one[0] <= through]
        turns = _turns(shown)
        most, total = summary_tokens(self.reader), 0
        while turns:
            before = self.view
            writer = self.summaries.candidates[0]
            piece, last = next_piece(turns, piece_bytes(writer, most, before.summary))
            wanted = replace(before, version=before.version + 1, through_seq=last)
            try:
                self.view, cost = await self.summaries.write(self.reader, wanted, most, piece)
            except (BudgetRefused, ProviderRejected):
                left_out = omitting(before.summary)
                await self._save(replace(wanted, through_seq=through, summary=left_out, omitted=True))
                break
            total += cost
            turns = [turn for turn in turns if turn[-1][0] > last]
        return total

    async def _save(self, view: View) -> None:
        async with fenced(self.pool, self.turn) as connection:
            await save_view(connection, self.turn, view)
        self.view = view

    def _content(self, request: ModelRequest, progress: Progress) -> Content:
        fixed = fixed_tokens(request, self.reader)
        summary = show((), self.view)
        beside = fixed + sum(message_tokens(message, self.reader) for message in summary)
        entries = tuple(
            self._entry(seq, message) for seq, message in progress.numbered if seq > self.view.through_seq
        )
        return Content(entries, (), beside, fixed + summary_bound(self.reader))

    def _entry(self, seq: int, message: Message) -> Entry:
        if seq not in self._entries:
            self._entries[seq] = entry(seq, message, self.reader)
        return self._entries[seq]

    async def _measured(self) -> list[Measured]:
        rows = await self.pool.fetch(
            QUERIES.measured_steps, self.turn.thread_id, self.reader.slug, self.view.through_seq
        )
        return [Measured(row["message_seq"], row["tokens"], row["view_digest"]) for row in rows]

    def _since(self, content: Content, measured: list[Measured], otherwise: int) -> list[int]:
        """The tokens of this very beginning as the last step had it, with all that came after."""
        last = max(
            (one for one in measured if one.digest == self.steps.view), key=lambda one: one.seq, default=None
        )
        if last is None:
            return [otherwise]
        return [last.tokens + sum(one.whole for one in content.entries if one.seq >= last.seq)]

    def _newest(self, request: ModelRequest, progress: Progress) -> ModelRequest:
        """The request with the newest turn alone: where that is too long, no summary helps."""
        turn = _turns(list(progress.numbered))[-1]
        messages = [cut_results(message) for _, message in turn[:-1]]
        return replace(request, messages=(*messages, turn[-1][1]))

    def _overflow(self, room: Room) -> ContextOverflow:
        """For what surely is too long; what is only perhaps too long its provider may judge."""
        off = " Its compaction is off." if self.policy.mode == "off" else ""
        return ContextOverflow(
            f"This is too long for {self.reader.slug}, whose context window has "
            f"{self.reader.context_window:,} tokens: {room.most:,} are left beside the answer.{off}"
        )

    def _clamped(self, request: ModelRequest, tokens: int) -> ModelRequest:
        """The request, whose answer fits beside it: some providers refuse more than the window."""
        window = self.reader.context_window
        most = max(window // 2, window - tokens)
        return request if request.max_tokens <= most else replace(request, max_tokens=most)

    def _digest(self, request: ModelRequest) -> bytes:
        """Of all that stands before the messages that are shown whole."""
        view = self.view
        if view.version not in self._digests:
            tools = [(tool.name, tool.description, tool.input_schema) for tool in request.tools]
            seen = (view.summary, view.through_seq, view.trimmed_seq)
            before = msgspec.json.encode((self.reader.provider.slug, *seen, request.system, tools))
            self._digests[view.version] = hashlib.blake2b(before, digest_size=16).digest()
        return self._digests[view.version]


def _turns(messages: Sequence[tuple[int, Message]]) -> list[list[tuple[int, Message]]]:
    """Messages by turns, of which the first may be the rest of one."""
    turns: list[list[tuple[int, Message]]] = []
    for seq, message in messages:
        if not turns or begins_turn(message):
            turns.append([])
        turns[-1].append((seq, message))
    return turns
