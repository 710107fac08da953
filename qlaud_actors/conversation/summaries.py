"""Summaries of a turn's thread, written by a model: metered like a step, saved in one transaction with
their charge. A worker that dies before that has saved nothing; whoever comes next asks once more.
"""

import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from qlaud_actors.billing import meter
from qlaud_actors.conversation.context import View
from qlaud_actors.conversation.journal import fenced
from qlaud_actors.conversation.loop import StepCall, unbroken
from qlaud_actors.conversation.model import Step, Turn
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.conversation.summary import fitted, omitting, request_for
from qlaud_actors.conversation.turn_money import charge_for, first_held, release_stale, within_turn
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import Connection, Pool
from qlaud_actors.errors import BudgetRefused
from qlaud_actors.keys.limits import Limits
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.providers.quote import quote
from qlaud_actors.providers.reply import ReplyBuilder
from qlaud_actors.usage import Usage


class Leaving(Protocol):
    """Knows whether the turn is left to another worker (`StepJournal`)."""

    @property
    def handing_back(self) -> bool:
        """Then what is open is not billed but redone."""


class Calls(Protocol):
    """Calls the models that may write (`calls.TurnModels`)."""

    def call(self, step: Step) -> StepCall:
        """Prepare a call; nothing is sent before its events are read."""


async def save_view(connection: Connection, turn: Turn, view: View) -> None:
    """A view that nobody was asked for; the caller holds the turn's fence."""
    await _insert(connection, turn, view, None, 0, None)


@dataclass(slots=True)
class SummaryJournal:
    """The summaries of one owned turn."""

    pool: Pool
    turn: Turn
    candidates: tuple[Model, ...]
    """Whom to ask, in order."""
    limits: Limits
    markup_bps: int
    leaving: Leaving
    calls: Calls = field(init=False)
    """Set by whoever wires it: calls move this journal's hold (`hold_for`)."""
    _opened_at: float = 0.0

    async def write(self, reader: Model, view: View, most: int, piece: str) -> tuple[View, int]:
        """The view with a summary (of so many tokens at most) of the one before and of a piece more, and what
        it cost, in nano-USD. It is saved when this returns.

        Raises BudgetRefused, when nothing was asked; ProviderError; LeaseLost.
        """
        asked = request_for(self.candidates[0], most, view.summary, piece)
        call = self.calls.call(await self._open(asked))
        reply = ReplyBuilder()
        try:
            async with aclosing(call.events()) as answer:
                async for event in answer:
                    reply.add(event)
            given = reply.build()
        except BaseException:
            await unbroken(self._broken(call, reply))
            raise
        text = "".join(block.get("text") or "" for block in given.content if block.get("type") == "text")
        if summary := fitted(text, reader):
            view = replace(view, summary=summary)
        else:  # a model may have nothing to say
            view = replace(view, summary=omitting(view.summary), omitted=True)
        usage = call.produced_usage(reply.output_chars) or given.usage
        cost = await unbroken(persistently(lambda: self._settle(call, usage, view)))
        await self.limits.count(self.turn.key_id, usage.input_total + usage.output)
        return view, cost

    async def _open(self, wanted: ModelRequest) -> Step:
        self._opened_at = time.monotonic()
        async with fenced(self.pool, self.turn) as connection:
            await release_stale(connection, self.turn)
            return await first_held(self.candidates, lambda model: self._hold(connection, wanted, model))

    async def hold_for(self, step: Step, model: Model) -> Step:
        """The call as another candidate would take it; when it is refused nothing is held any more."""
        try:
            async with fenced(self.pool, self.turn) as connection:
                return await self._hold(connection, step.wanted, model, step.call_id)
        except BudgetRefused:
            await meter.release(self.pool, [step.call_id])
            raise

    async def _hold(
        self, connection: Connection, wanted: ModelRequest, model: Model, call_id: uuid.UUID | None = None
    ) -> Step:
        """A summary that is cut short is of no use: money for all of it, or none."""
        offer, turn = quote(wanted, model, self.markup_bps), self.turn
        worst = await within_turn(connection, turn, replace(offer, floor_tokens=wanted.max_tokens))
        if call_id is None:
            hold = await meter.hold(connection, turn.key_id, turn.id, worst, worst.max_tokens)
        else:
            hold = await meter.change_hold(connection, call_id, turn.key_id, turn.id, worst, worst.max_tokens)
        return Step(0, wanted, model, offer.clamped(hold.max_tokens), hold.id)

    async def _settle(self, call: StepCall, usage: Usage, view: View | None) -> int:
        step, turn = call.step, self.turn
        charge = charge_for(turn, step, None, usage, self.markup_bps, self._opened_at)
        async with fenced(self.pool, turn) as connection:
            cost = await connection.fetchval(QUERIES.compaction_charge, step.call_id)
            if cost is not None:
                return int(cost)  # the try before has landed
            settled = await meter.settle(connection, step.call_id, charge)
            cost = settled.charged_nanos if settled else 0
            await connection.execute(QUERIES.mark_compaction, step.call_id)
            await connection.execute(QUERIES.add_to_turn, turn.id, 0, cost)
            await meter.note_attempts(connection, step.call_id, turn.key_id, call.attempts, turn.id)
            if view is not None:
                await _insert(connection, turn, view, step.model.slug, cost, step.call_id)
            meter.count(charge, settled)
        return cost

    async def _broken(self, call: StepCall, partial: ReplyBuilder) -> None:
        """Bill what a call that broke off had produced; release its hold when it never began."""
        if self.leaving.handing_back:
            return
        usage = call.produced_usage(partial.output_chars)
        if usage is None:
            await persistently(lambda: meter.release(self.pool, [call.step.call_id]))
        else:
            await persistently(lambda: self._settle(call, usage, None))


async def _insert(
    connection: Connection, turn: Turn, view: View, model: str | None, cost: int, call_id: uuid.UUID | None
) -> None:
    await connection.execute(
        QUERIES.insert_compaction,
        turn.thread_id,
        view.version,
        view.summary,
        view.through_seq,
        view.trimmed_seq,
        view.omitted,
        model,
        cost,
        turn.id,
        call_id,
    )
