"""Carries turns in one worker process: slots, what a turn is made of, and its end.

A turn is a task on the process's event loop; its lease is kept by the `Carrier`.
"""

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass, field

from qlaud_actors import log, metrics
from qlaud_actors.carrier import Carried, Carrier
from qlaud_actors.connectors.store import Vault
from qlaud_actors.conversation import approvals, compaction, events, mailbox, threads
from qlaud_actors.conversation.approvals import TurnApprovals
from qlaud_actors.conversation.call_journal import ToolJournal
from qlaud_actors.conversation.calls import TurnModels
from qlaud_actors.conversation.closing import Wake, WakeIndex, announce, close_stream
from qlaud_actors.conversation.compaction import ThreadContext
from qlaud_actors.conversation.context import View
from qlaud_actors.conversation.journal import StepJournal
from qlaud_actors.conversation.loop import Ports, run_turn
from qlaud_actors.conversation.model import Parked, Turn, TurnOutcome
from qlaud_actors.conversation.publisher import Publisher, TurnLog
from qlaud_actors.conversation.summaries import SummaryJournal
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.errors import LeaseLost, QlaudError, TurnCancelled
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.limits import Limits
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.routing import candidates
from qlaud_actors.settings import Settings
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome, Toolset
from qlaud_actors.tools.registry import toolset_for

logger = log.get_logger(__name__)


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
    connectors: tuple[Tool, ...]
    """Actions that turns in dynamic mode reach."""
    wake: Wake
    wake_index: WakeIndex
    owner: str = field(default_factory=lambda: str(new_uuid()))
    carrier: Carrier[Turn] = field(init=False)
    _slots: asyncio.Semaphore | None = None

    def __post_init__(self) -> None:
        lease, drain = self.settings.lease_seconds, self.settings.drain_seconds
        self.carrier = Carrier(self.lease_pool, lease, drain, mailbox.renew, self._hand_back)

    async def start(self, turn_id: uuid.UUID) -> None:
        """Claim a turn and carry it in the background. Waits while all slots are taken."""
        slots = self._slots = self._slots or asyncio.Semaphore(self.settings.turns_per_worker)
        await slots.acquire()
        turn, carrier = None, self.carrier
        try:
            if not carrier.draining and turn_id not in carrier.carried:
                sent = time.monotonic()
                turn = await mailbox.claim(self.pool, turn_id, self.owner, self.settings.lease_seconds)
        finally:
            if turn is None:
                slots.release()
        if turn is not None:
            carrier.begin(turn, sent, self._carry).add_done_callback(lambda _: slots.release())

    async def sweep(self) -> None:
        """One sweep: wake what waits, close what is beyond help."""
        swept = await mailbox.sweep(self.pool)
        for finished in (*swept.finished, *await threads.purge_leftovers(self.pool)):
            await announce(self.publisher, finished, self.wake)
        await self.wake([*swept.wake, *await approvals.expire(self.pool)])

    async def _carry(self, carried: Carried[Turn]) -> None:
        turn = carried.work
        log.clear()
        log.bind(turn_id=str(turn.id), thread_id=str(turn.thread_id), key_id=str(turn.key_id))
        log.bind(request_id=turn.request_id, epoch=turn.epoch)
        with metrics.TURNS_RUNNING.track_inprogress():
            await self._run(carried)

    async def _hand_back(self, turns: list[Turn]) -> None:
        await self.wake(await mailbox.hand_back(self.pool, turns))

    async def _run(self, carried: Carried[Turn]) -> None:
        turn = carried.work
        saved = await StepJournal.saved_position(self.pool, turn)
        turn_log = await self.publisher.open(turn.id, turn.epoch, saved, carried.stop)
        if turn.epoch > 1 and not turn.resumes:
            metrics.TAKEOVERS.inc()
            turn_log.publish(events.rewind(saved))
        result = await self._result(carried, turn_log)
        if isinstance(result, Parked):
            logger.info("turn_parked")
            return
        carried.ending = True
        finished = await persistently(lambda: mailbox.finish(self.pool, turn, result))
        if finished:
            await close_stream(self.publisher, turn_log, finished, self.wake)
            await self.wake_index(turn.thread_id)
            _log_end(finished.turn)

    async def _result(self, carried: Carried[Turn], turn_log: TurnLog) -> TurnOutcome | Parked | QlaudError:
        """How the turn ends: well, or with an error that the caller may see; or that it waits."""
        try:
            if carried.work.cancel_requested:
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

    async def _work(self, carried: Carried[Turn], turn_log: TurnLog) -> TurnOutcome | Parked:
        turn, asked = carried.work, carried.work.request
        key = await lifecycle.require_alive(self.pool, turn.account_id, turn.key_id)
        toolset = await toolset_for(
            self.pool,
            self.vault,
            turn.account_id,
            asked.tools_mode,
            asked.tools,
            asked.client_tools,
            self.connectors,
        )
        found = candidates(self.catalog, asked.model, self.fallback.healthy, asked.fallbacks)
        steps = StepJournal(self.pool, turn, found, toolset, turn_log, self.limits, self.settings.markup_bps)

        def leave_open(by_user: bool) -> None:
            """Unless it is the user who stops the turn, its open step is left to whoever takes it over."""
            steps.handing_back = not by_user

        carried.on_stop = leave_open
        models = TurnModels(self.caller, self.fallback, steps, found)
        history = await self._history(turn, key, found, toolset, steps)
        context = CallContext(
            turn.account_id,
            turn.request_id,
            turn.thread_id,
            turn.id,
            turn.end_user_id,
            turn.key_id,
            own_key_id=None if key.scope == "admin" else key.id,
        )
        asking = TurnApprovals(self.pool, turn, toolset, turn_log, self.publisher.flush_soon)
        tools = TurnTools(self.dispatcher, toolset, context, ToolJournal(self.pool, turn))
        ports = Ports(history, models, steps, asking, tools, turn_log)
        return await run_turn(turn, await steps.load(history.view.through_seq), ports)

    async def _history(
        self, turn: Turn, key: ApiKey, found: tuple[Model, ...], toolset: Toolset, steps: StepJournal
    ) -> ThreadContext:
        """What the turn's model sees of its thread, and who summarises what it does not."""
        policy = await compaction.policy_of(self.pool, turn.thread_id)
        last = await compaction.latest(self.pool, turn.thread_id)
        writers = self._writers(policy.model or self.settings.compaction_model, key, found)
        summaries = SummaryJournal(self.pool, turn, writers, self.limits, self.settings.markup_bps, steps)
        summaries.calls = TurnModels(self.caller, self.fallback, summaries, writers)
        view = last.view if last else View()
        reader = compaction.reader_of(found)
        return ThreadContext(self.pool, turn, reader, toolset, policy, view, steps, summaries)

    def _writers(self, slug: str | None, key: ApiKey, found: tuple[Model, ...]) -> tuple[Model, ...]:
        """Who may write a summary: the model of this name where the key may use it, then the turn's own.

        None that reads less at once than the first.
        """
        chosen: tuple[Model, ...] = ()
        with contextlib.suppress(QlaudError):
            allows, limited = key.limits.allows, key.limited
            if slug is not None:
                chosen = candidates(self.catalog, slug, self.fallback.healthy, (), allows, limited=limited)
        ready = [model for model in chosen if self.catalog.configured(model.provider)]
        writers = dict.fromkeys((*ready, *found))
        least = next(iter(writers)).context_window
        return tuple(model for model in writers if model.context_window >= least)


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
