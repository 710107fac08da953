"""The journal of one owned turn: every write is fenced by the turn's epoch.

A step is opened with its hold and settled with its message, usage row and intended calls, each in one
transaction. What becomes of the calls is in `call_journal.py`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from qlaud_actors import metrics
from qlaud_actors.billing import meter
from qlaud_actors.billing.model import Charge, Settlement
from qlaud_actors.conversation import store
from qlaud_actors.conversation.history import messages_from
from qlaud_actors.conversation.loop import ModelCall
from qlaud_actors.conversation.model import FLOOR_TOKENS, Progress, Step, Turn
from qlaud_actors.conversation.publisher import TurnLog
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.pool import Connection, ConnectionLost, Pool
from qlaud_actors.errors import LeaseLost, ProviderUnavailable, TurnCancelled
from qlaud_actors.ids import new_call_id
from qlaud_actors.money import nanos_to_usd
from qlaud_actors.providers.bound import input_bound
from qlaud_actors.providers.model import Block, Model, ModelReply, ModelRequest
from qlaud_actors.providers.reply import ReplyBuilder
from qlaud_actors.tools.model import ToolCall, Toolset
from qlaud_actors.usage import Usage, WorstCase

T = TypeVar("T")

PATIENCE_SECONDS = 5.0
"""How long a result waits for a Postgres that is away, before the turn is left to be taken over."""

RETRY_SECONDS = 0.25
MAX_MESSAGES = 1_000_000


@contextlib.asynccontextmanager
async def fenced(pool: Pool, turn: Turn) -> AsyncIterator[Connection]:
    """A transaction that exists only while this epoch owns the turn. Raises LeaseLost."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.lock_turn, turn.id, turn.epoch) is None:
            raise LeaseLost
        yield connection


async def persistently(write: Callable[[], Awaitable[T]], seconds: float = PATIENCE_SECONDS) -> T:
    """Write, and again while Postgres is away: what was paid for is not thrown away over a restart.

    `write` must find out by itself whether an earlier try has landed: its answer may have been lost.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            return await write()
        except ConnectionLost:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(RETRY_SECONDS)


@dataclass(slots=True)
class StepJournal:
    """The steps of one owned turn."""

    pool: Pool
    turn: Turn
    model: Model
    toolset: Toolset
    turn_log: TurnLog
    markup_bps: int
    handing_back: bool = False
    """Set before the turn is left to another worker: its open step is then not billed but redone."""
    _opened_at: float = 0.0

    @staticmethod
    async def saved_position(pool: Pool, turn: Turn) -> int:
        """Where the event log stood when the turn's last step was saved."""
        return int(await pool.fetchval(QUERIES.saved_log_seq, turn.id))

    async def load(self) -> Progress:
        """How far the turn has come, from Postgres alone."""
        rows = await store.list_messages(
            self.pool, self.turn.thread_id, after=0, before=MAX_MESSAGES, limit=MAX_MESSAGES, descending=False
        )
        if not rows:
            raise TurnCancelled("The thread was deleted.")
        if await self.pool.fetchval(QUERIES.failed_step, self.turn.id):
            raise ProviderUnavailable("The model provider broke off in the middle of its answer.")
        done = await self.pool.fetchval(QUERIES.steps_done, self.turn.id)
        pending = await self._pending(done) if rows[-1].role == "assistant" else ()
        return Progress(messages_from(rows), done, pending)

    async def open(self, number: int, request: ModelRequest) -> Step:
        """Hold the worst case and note the step; `max_tokens` comes back as far as the money goes."""
        self._opened_at = time.monotonic()
        worst = WorstCase(
            self.model.price, input_bound(request, self.model), request.max_tokens, self.markup_bps
        )
        async with fenced(self.pool, self.turn) as connection:
            await self._release_stale(connection)
            hold = await meter.hold(connection, self.turn.key_id, self.turn.id, worst, _floor(request))
            await connection.execute(
                QUERIES.open_step,
                self.turn.id,
                number,
                self.turn.epoch,
                self.model.slug,
                hold.id,
                hold.max_tokens,
            )
        return Step(number, replace(request, max_tokens=hold.max_tokens), hold.id)

    async def settle(self, step: Step, reply: ModelReply) -> tuple[ToolCall, ...]:
        """Save a reply: message, charge, step and intended calls, all or nothing."""
        calls = tuple(_call_from(block) for block in reply.tool_uses) if _wants_tools(reply) else ()
        await persistently(lambda: self._settle(step, reply, calls))
        return calls

    async def _settle(self, step: Step, reply: ModelReply, calls: tuple[ToolCall, ...]) -> None:
        async with fenced(self.pool, self.turn) as connection:
            if await connection.fetchval(QUERIES.step_state, self.turn.id, step.number) == "done":
                return  # the try before has landed
            seq = await store.append_message(connection, self.turn, "assistant", reply.content)
            for ordinal, call in enumerate(calls):
                await self._note_intended(connection, step.number, ordinal, call)
            await self._close_step(connection, step, reply.usage, reply, seq)

    async def settle_broken(self, step: Step, call: ModelCall, partial: ReplyBuilder) -> None:
        """Bill what a call that broke off had produced; release its hold when it never began."""
        if self.handing_back:
            return
        usage = call.produced_usage(partial.partial().output_chars)
        with contextlib.suppress(LeaseLost):
            async with fenced(self.pool, self.turn) as connection:
                if usage is None:
                    await meter.release(connection, [step.hold_id])
                    await self._finish_step(connection, step, Usage(), None, None, 0)
                else:
                    await self._close_step(connection, step, usage, None, None)

    async def save_results(self, results: list[Block]) -> None:
        """The results of a step's calls are the next user message."""
        await persistently(lambda: self._save_results(results))

    async def _save_results(self, results: list[Block]) -> None:
        async with fenced(self.pool, self.turn) as connection:
            if await connection.fetchval(QUERIES.last_role, self.turn.id) == "assistant":
                await store.append_message(connection, self.turn, "user", results)

    async def _close_step(
        self, connection: Connection, step: Step, usage: Usage, reply: ModelReply | None, seq: int | None
    ) -> None:
        charge = self._charge(step, usage)
        settled = await meter.settle(connection, step.hold_id, charge)
        cost = settled.charged_nanos if settled else 0
        await connection.execute(QUERIES.add_to_turn, self.turn.id, step.number, cost)
        await self._finish_step(connection, step, usage, reply, seq, cost)
        _count(self.model, usage, settled)

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

    def _charge(self, step: Step, usage: Usage) -> Charge:
        return Charge(
            account_id=self.turn.account_id,
            key_id=self.turn.key_id,
            turn_id=self.turn.id,
            step=step.number,
            end_user_id=self.turn.end_user_id,
            model_slug=self.model.slug,
            provider_slug=self.model.provider.slug,
            usage=usage,
            price=self.model.price,
            markup_bps=self.markup_bps,
            latency_ms=round((time.monotonic() - self._opened_at) * 1000),
            status=200,
        )

    async def _release_stale(self, connection: Connection) -> None:
        """Holds of this turn that are still there belong to owners that are gone."""
        stale = [row["id"] for row in await connection.fetch(QUERIES.holds_of_turn, self.turn.id)]
        if stale:
            await meter.release(connection, stale)

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


def _floor(request: ModelRequest) -> int:
    """The smallest useful answer: thinking needs its budget on top."""
    thinking: dict[str, Any] = request.params.get("thinking") or {}
    return FLOOR_TOKENS + int(thinking.get("budget_tokens") or 0)


def _count(model: Model, usage: Usage, settled: Settlement | None) -> None:
    """Tell Prometheus of a metered step."""
    metrics.STEPS.labels(model.slug).inc()
    metrics.TOKENS.labels("input").inc(usage.input_total)
    metrics.TOKENS.labels("output").inc(usage.output)
    if settled:
        metrics.COST.inc(nanos_to_usd(settled.charged_nanos))
        metrics.OVERRUN.inc(nanos_to_usd(settled.overrun_nanos))
