"""The journal of one owned turn: every write is fenced by the turn's epoch.

A step is opened with its hold and settled with its message, usage row and intended calls, each in one
transaction. What becomes of the calls is in `call_journal.py`.
"""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from qlaud_actors.billing import meter
from qlaud_actors.conversation import store
from qlaud_actors.conversation.cache_marks import marked
from qlaud_actors.conversation.history import messages_from
from qlaud_actors.conversation.loop import StepCall
from qlaud_actors.conversation.model import Progress, Step, Turn
from qlaud_actors.conversation.publisher import TurnLog
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.conversation.turn_money import charge_for, first_held, release_stale, within_turn
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import Connection, Pool
from qlaud_actors.errors import BudgetRefused, LeaseLost, ProviderUnavailable, TurnCancelled
from qlaud_actors.ids import new_call_id
from qlaud_actors.keys.limits import Limits
from qlaud_actors.providers.model import Block, Model, ModelReply, ModelRequest
from qlaud_actors.providers.quote import quote
from qlaud_actors.providers.reply import ReplyBuilder
from qlaud_actors.tools.model import ToolCall, Toolset
from qlaud_actors.usage import Usage

MAX_SEQ = 2**31 - 1


@contextlib.asynccontextmanager
async def fenced(pool: Pool, turn: Turn) -> AsyncIterator[Connection]:
    """A transaction that exists only while this epoch owns the turn. Raises LeaseLost."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.lock_turn, turn.id, turn.epoch) is None:
            raise LeaseLost
        yield connection


@dataclass(slots=True)
class StepJournal:
    """The steps of one owned turn."""

    pool: Pool
    turn: Turn
    candidates: tuple[Model, ...]
    """Whom to ask, in order."""
    toolset: Toolset
    turn_log: TurnLog
    limits: Limits
    markup_bps: int
    handing_back: bool = False
    """Set before the turn is left to another worker: its open step is then not billed but redone."""
    view: bytes = b""
    """A digest of what stands before the messages: with one model, steps of one view measure them."""
    _opened_at: float = 0.0

    @staticmethod
    async def saved_position(pool: Pool, turn: Turn) -> int:
        """Where the event log stood when the turn's last step was saved."""
        return int(await pool.fetchval(QUERIES.saved_log_seq, turn.id))

    async def load(self, after: int = 0) -> Progress:
        """How far the turn has come, from Postgres alone, with the messages behind a seq."""
        rows = await store.list_messages(
            self.pool,
            self.turn.thread_id,
            after=after,
            before=MAX_SEQ,
            limit=MAX_SEQ,
            descending=False,
        )
        if not rows:
            raise TurnCancelled("The thread was deleted.")
        if await self.pool.fetchval(QUERIES.failed_step, self.turn.id):
            raise ProviderUnavailable("The model provider broke off in the middle of its answer.")
        done = await self.pool.fetchval(QUERIES.steps_done, self.turn.id)
        pending = await self._pending(done) if rows[-1].role == "assistant" else ()
        return Progress(messages_from(rows), done, pending, rows[-1].seq)

    async def open(self, number: int, request: ModelRequest) -> Step:
        """Hold the worst case of the first candidate that the money suffices for, and note the step.

        `max_tokens` comes back as far as the money goes.
        """
        self._opened_at = time.monotonic()
        async with fenced(self.pool, self.turn) as connection:
            await release_stale(connection, self.turn)
            return await first_held(
                self.candidates, lambda model: self._hold(connection, number, request, model)
            )

    async def hold_for(self, step: Step, model: Model) -> Step:
        """The step as another candidate would take it; when it is refused nothing is held any more."""
        try:
            async with fenced(self.pool, self.turn) as connection:
                return await self._hold(connection, step.number, step.wanted, model, step.call_id)
        except BudgetRefused:
            await meter.release(self.pool, [step.call_id])
            raise

    async def _hold(
        self,
        connection: Connection,
        number: int,
        wanted: ModelRequest,
        model: Model,
        call_id: uuid.UUID | None = None,
    ) -> Step:
        offer = quote(marked(wanted, model), model, self.markup_bps)
        worst = await within_turn(connection, self.turn, offer)
        turn, floor = self.turn, offer.floor_tokens
        if call_id is None:
            hold = await meter.hold(connection, turn.key_id, turn.id, worst, floor)
        else:
            hold = await meter.change_hold(connection, call_id, turn.key_id, turn.id, worst, floor)
        opened = (turn.id, number, turn.epoch, model.slug, hold.id, hold.max_tokens, self.view)
        await connection.execute(QUERIES.open_step, *opened)
        return Step(number, wanted, model, offer.clamped(hold.max_tokens), hold.id)

    async def settle(self, call: StepCall, reply: ModelReply) -> tuple[ToolCall, ...]:
        """Save a reply: message, charge, step and intended calls, all or nothing."""
        calls = tuple(_call_from(block) for block in reply.tool_uses) if _wants_tools(reply) else ()
        await persistently(lambda: self._settle(call, reply, calls))
        await self.limits.count(self.turn.key_id, reply.usage.input_total + reply.usage.output)
        return calls

    async def _settle(self, call: StepCall, reply: ModelReply, calls: tuple[ToolCall, ...]) -> None:
        step = call.step
        async with fenced(self.pool, self.turn) as connection:
            if await connection.fetchval(QUERIES.step_state, self.turn.id, step.number) == "done":
                return  # the try before has landed
            seq = await store.append_message(connection, self.turn, "assistant", reply.content)
            for ordinal, intended in enumerate(calls):
                await self._note_intended(connection, step.number, ordinal, intended)
            await self._close_step(connection, call, reply.usage, reply, seq)

    async def settle_broken(self, call: StepCall, partial: ReplyBuilder) -> None:
        """Bill what a call that broke off had produced; release its hold when it never began."""
        if self.handing_back:
            return
        usage = call.produced_usage(partial.output_chars)
        with contextlib.suppress(LeaseLost):
            await persistently(lambda: self._settle_broken(call, usage))

    async def _settle_broken(self, call: StepCall, usage: Usage | None) -> None:
        step = call.step
        async with fenced(self.pool, self.turn) as connection:
            if await connection.fetchval(QUERIES.step_state, self.turn.id, step.number) == "failed":
                return  # the try before has landed
            if usage is None:
                await meter.release(connection, [step.call_id])
                await self._finish_step(connection, step, Usage(), None, None, 0)
                await self._note_attempts(connection, call)
            else:
                await self._close_step(connection, call, usage, None, None)

    async def save_results(self, results: list[Block]) -> None:
        """The results of a step's calls are the next user message."""
        await persistently(lambda: self._save_results(results))

    async def _save_results(self, results: list[Block]) -> None:
        async with fenced(self.pool, self.turn) as connection:
            if await connection.fetchval(QUERIES.last_role, self.turn.id) == "assistant":
                await store.append_message(connection, self.turn, "user", results)

    async def _close_step(
        self, connection: Connection, call: StepCall, usage: Usage, reply: ModelReply | None, seq: int | None
    ) -> None:
        step = call.step
        charge = charge_for(self.turn, step, step.number, usage, self.markup_bps, self._opened_at)
        settled = await meter.settle(connection, step.call_id, charge)
        cost = settled.charged_nanos if settled else 0
        await connection.execute(QUERIES.add_to_turn, self.turn.id, step.number, cost)
        await self._finish_step(connection, step, usage, reply, seq, cost)
        await self._note_attempts(connection, call)
        meter.count(charge, settled)

    async def _note_attempts(self, connection: Connection, call: StepCall) -> None:
        turn, step = self.turn, call.step
        await meter.note_attempts(connection, step.call_id, turn.key_id, call.attempts, turn.id, step.number)

    async def _finish_step(
        self,
        connection: Connection,
        step: Step,
        usage: Usage,
        reply: ModelReply | None,
        seq: int | None,
        cost_nanos: int,
    ) -> None:
        await connection.execute(
            QUERIES.finish_step,
            self.turn.id,
            step.number,
            "done" if reply else "failed",
            reply.message_id if reply else None,
            seq,
            reply.stop_reason if reply else None,
            reply.stop_sequence if reply else None,
            usage.input,
            usage.output,
            usage.cache_read,
            usage.cache_write_5m + usage.cache_write_1h,
            cost_nanos,
            self.turn_log.seq,
        )

    async def _note_intended(self, connection: Connection, step: int, ordinal: int, call: ToolCall) -> None:
        tool = self.toolset.find(call.name)
        await connection.execute(
            QUERIES.insert_tool_call,
            call.id,
            self.turn.id,
            step,
            ordinal,
            call.tool_use_id,
            call.name,
            call.input,
            tool.effect if tool else "write",
            tool.kind if tool else "unknown",
            self.turn.epoch,
        )

    async def _pending(self, step: int) -> tuple[ToolCall, ...]:
        calls = await store.list_tool_calls(self.pool, self.turn.id)
        return tuple(
            ToolCall(call.id, call.tool_use_id, call.name, call.input)
            for call in calls
            if call.step == step and "." not in call.id
        )


def _wants_tools(reply: ModelReply) -> bool:
    """Cut-off calls (`max_tokens`) are not run: their input may be half of what was meant."""
    return reply.stop_reason == "tool_use"


def _call_from(block: Block) -> ToolCall:
    return ToolCall(new_call_id(), block["id"], block["name"], block["input"])
