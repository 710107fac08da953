"""Carries turns in one worker process: slots, leases, and the end of each turn.

A turn is a task on the process's event loop. One loop renews the leases of all of them; a turn whose
lease cannot be renewed is stopped well before the lease ends, so two workers never carry one turn.
"""

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass, field

from qlaud_actors import log, metrics
from qlaud_actors.connectors.vault import Vault
from qlaud_actors.conversation import events, mailbox, threads
from qlaud_actors.conversation.call_journal import ToolJournal
from qlaud_actors.conversation.calls import TurnModels
from qlaud_actors.conversation.closing import Wake, announce, close_stream
from qlaud_actors.conversation.journal import StepJournal
from qlaud_actors.conversation.loop import Ports, run_turn
from qlaud_actors.conversation.model import Turn, TurnOutcome
from qlaud_actors.conversation.publisher import Publisher, TurnLog
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.errors import LeaseLost, QlaudError, TurnCancelled
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys.limits import Limits
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback
from qlaud_actors.providers.routing import candidates
from qlaud_actors.settings import Settings
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.model import CallContext, ToolCall, ToolOutcome, Toolset
from qlaud_actors.tools.registry import toolset_for

logger = log.get_logger(__name__)

RENEW_EVERY = 0.2
RENEW_TIMEOUT = 0.2
GIVE_UP_AFTER = 0.6
"""Parts of the lease: renew at 2 s of 10, stop a turn that was last renewed 6 s ago."""


@dataclass(slots=True)
class Carried:
    """A turn that this process owns."""

    turn: Turn
    renewed_at: float
    task: asyncio.Task[None] | None = None
    journal: StepJournal | None = None
    cancelled: bool = False
    """The user wants it to stop."""
    stopping: bool = False
    ending: bool = False
    """Its last transaction is on its way: there is nothing left to stop."""

    def stop(self, *, by_user: bool = False) -> None:
        """Cancel the task, once: a second cancel would break into its last transaction.

        Unless it is the user who cancels, the open step is left to whoever takes the turn over.
        """
        if self.stopping or self.ending or self.task is None:
            return
        self.stopping, self.cancelled = True, by_user
        if self.journal:
            self.journal.handing_back = not by_user
        self.task.cancel()


@dataclass(frozen=True, slots=True)
class TurnTools:
    """The tools of one turn (`loop.Tools`)."""

    dispatcher: Dispatcher
    toolset: Toolset
    context: CallContext
    journal: ToolJournal

    async def run(self, call: ToolCall) -> ToolOutcome:
        """The outcome of a call, journaled."""
        outcome = await self.dispatcher.run(call, self.toolset, self.context, self.journal)
        tool = self.toolset.find(call.name)
        result = "error" if outcome.is_error else "ok"
        metrics.TOOL_CALLS.labels(tool.kind if tool else "unknown", result).inc()
        return outcome


@dataclass(slots=True)
class TurnRunner:
    """All turns of this process."""

    settings: Settings
    pool: Pool
    lease_pool: Pool
    """A connection of its own: renewing must not wait behind the turns' own work."""
    publisher: Publisher
    catalog: Catalog
    caller: Caller
    fallback: Fallback
    limits: Limits
    vault: Vault
    dispatcher: Dispatcher
    wake: Wake
    owner: str = field(default_factory=lambda: str(new_uuid()))
    draining: bool = False
    _carried: dict[uuid.UUID, Carried] = field(default_factory=dict)
    _slots: asyncio.Semaphore | None = None

    async def start(self, turn_id: uuid.UUID) -> None:
        """Claim a turn and carry it in the background. Waits while all slots are taken."""
        self._slots = self._slots or asyncio.Semaphore(self.settings.turns_per_worker)
        await self._slots.acquire()
        turn = None
        try:
            if not self.draining and turn_id not in self._carried:
                sent = time.monotonic()
                turn = await mailbox.claim(self.pool, turn_id, self.owner, self.settings.lease_seconds)
        finally:
            if turn is None:
                self._slots.release()
        if turn is not None:
            carried = self._carried[turn.id] = Carried(turn, sent)
            carried.task = asyncio.create_task(self._carry(carried), name=f"turn-{turn.id}")

    async def sweep(self) -> None:
        """One sweep: wake what waits, close what is beyond help."""
        swept = await mailbox.sweep(self.pool)
        for finished in (*swept.finished, *await threads.purge_leftovers(self.pool)):
            await announce(self.publisher, finished, self.wake)
        await self.wake(swept.wake)

    async def drain(self) -> None:
        """Stop: let turns end for a while, then give the rest to other workers."""
        self.draining = True
        tasks = [c.task for c in self._carried.values() if c.task]
        if tasks:
            await asyncio.wait(tasks, timeout=self.settings.drain_seconds)
        left = list(self._carried.values())
        for carried in left:
            carried.stop()
        await asyncio.gather(*(c.task for c in left if c.task), return_exceptions=True)
        await self.wake(await mailbox.hand_back(self.pool, [c.turn for c in left]))

    async def _carry(self, carried: Carried) -> None:
        turn = carried.turn
        log.clear()
        log.bind(turn_id=str(turn.id), thread_id=str(turn.thread_id), key_id=str(turn.key_id))
        log.bind(request_id=turn.request_id, epoch=turn.epoch)
        metrics.TURNS_RUNNING.inc()
        try:
            await self._run(carried)
        except LeaseLost:
            logger.warning("turn_lost")
        except ConnectionLost as error:
            # Not the turn's fault and not a result: it is handed back, or else its lease ends.
            logger.warning("turn_interrupted", error=type(error).__name__)
            with contextlib.suppress(*ConnectionLost):
                await self.wake(await persistently(lambda: mailbox.hand_back(self.pool, [turn])))
        finally:
            metrics.TURNS_RUNNING.dec()
            self._carried.pop(turn.id, None)
            assert self._slots is not None
            self._slots.release()

    async def _run(self, carried: Carried) -> None:
        turn = carried.turn
        saved = await StepJournal.saved_position(self.pool, turn)
        turn_log = await self.publisher.open(turn.id, turn.epoch, saved, carried.stop)
        if turn.epoch > 1:
            metrics.TAKEOVERS.inc()
            turn_log.publish(events.rewind(saved))
        result = await self._result(carried, turn_log)
        carried.ending = True
        finished = await persistently(lambda: mailbox.finish(self.pool, turn, result))
        if finished:
            await close_stream(self.publisher, turn_log, finished, self.wake)
            _log_end(finished.turn)

    async def _result(self, carried: Carried, turn_log: TurnLog) -> TurnOutcome | QlaudError:
        """How the turn ends: well, or with an error that the caller may see."""
        try:
            if carried.turn.cancel_requested:
                return TurnCancelled()
            return await self._work(carried, turn_log)
        except asyncio.CancelledError:
            if not carried.cancelled:
                raise
            return TurnCancelled()
        except (LeaseLost, *ConnectionLost):
            raise
        except QlaudError as error:
            return error
        except Exception:
            logger.exception("turn_crashed")
            return QlaudError()

    async def _work(self, carried: Carried, turn_log: TurnLog) -> TurnOutcome:
        turn, asked = carried.turn, carried.turn.request
        toolset = await toolset_for(
            self.pool, self.vault, turn.account_id, asked.tools_mode, asked.tools, asked.client_tools
        )
        found = candidates(self.catalog, asked.model, self.fallback.healthy, asked.fallbacks)
        steps = StepJournal(self.pool, turn, found, toolset, turn_log, self.limits, self.settings.markup_bps)
        carried.journal = steps
        models = TurnModels(self.caller, self.fallback, steps, found)
        context = CallContext(turn.account_id, turn.request_id, turn.thread_id, turn.id, turn.end_user_id)
        tools = TurnTools(self.dispatcher, toolset, context, ToolJournal(self.pool, turn))
        ports = Ports(toolset, models, steps, tools, turn_log)
        return await run_turn(turn, await steps.load(), ports)

    async def renew(self) -> None:
        """Keep the leases of all carried turns; stop those that are lost, late, or not wanted any more."""
        carried = list(self._carried.values())
        if not carried:
            return
        sent, lease = time.monotonic(), self.settings.lease_seconds
        renewals = None
        try:
            async with asyncio.timeout(lease * RENEW_TIMEOUT):
                renewals = await mailbox.renew(self.lease_pool, [c.turn for c in carried], lease)
        except Exception as error:  # noqa: BLE001 - whatever it is, leases are running out
            logger.warning("renewal_failed", error=type(error).__name__, turns=len(carried))
        for one in carried:
            renewal = renewals.get(one.turn.id) if renewals is not None else None
            if renewal and renewal.renewed:
                one.renewed_at = sent
            if renewal and renewal.cancel_requested:
                one.stop(by_user=True)
            gone = renewals is not None and renewal is None
            if gone or time.monotonic() - one.renewed_at > lease * GIVE_UP_AFTER:
                one.stop()


def _log_end(turn: Turn) -> None:
    """The one wide line of a turn."""
    logger.info(
        "turn_ended",
        status=turn.status,
        model=turn.request.model,
        iterations=turn.iterations,
        cost_nanos=turn.cost_nanos,
        attempts=turn.attempts,
        error=turn.error["code"] if turn.error else None,
        ms=(turn.finished_at_ms or 0) - turn.created_at_ms,
    )
