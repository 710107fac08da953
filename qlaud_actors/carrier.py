"""Carries work of a kind in one process: its leases, and its end when the process stops.

Each piece is a task on the event loop. One loop renews the leases of all of them; work whose lease cannot
be renewed is stopped well before the lease ends, so two processes never carry the same.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from qlaud_actors import log
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import ConnectionLost, Pool, Rows
from qlaud_actors.errors import LeaseLost

logger = log.get_logger(__name__)

RENEW_EVERY = 0.2
RENEW_TIMEOUT = 0.2
GIVE_UP_AFTER = 0.6
"""Parts of the lease: renew at 2 s of 10, stop what was last renewed 6 s ago."""


class Work(Protocol):
    """Something that is owned at an epoch."""

    @property
    def id(self) -> uuid.UUID:
        """Its row."""

    @property
    def epoch(self) -> int:
        """The fence of its owner."""


W = TypeVar("W", bound=Work)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What renewing told of work that is still ours."""

    cancel_requested: bool
    renewed: bool
    """False when the row was locked just then: still ours, but the lease was not extended."""


@dataclass(slots=True)
class Carried(Generic[W]):
    """Work that this process owns."""

    work: W
    renewed_at: float
    task: asyncio.Task[None] | None = None
    on_stop: Callable[[bool], None] = lambda _: None
    """Hears of a stop before the task does, and whether it is the user's wish."""
    cancelled: bool = False
    """The user wants it to stop."""
    stopping: bool = False
    ending: bool = False
    """Its last transaction is on its way: there is nothing left to stop."""

    def stop(self, *, by_user: bool = False) -> None:
        """Cancel the task, once: a second cancel would break into its last transaction."""
        if self.stopping or self.ending or self.task is None:
            return
        self.stopping, self.cancelled = True, by_user
        self.on_stop(by_user)
        self.task.cancel()


Run: TypeAlias = Callable[[Carried[W]], Awaitable[None]]


@dataclass(slots=True)
class Carrier(Generic[W]):
    """All work of one kind in this process."""

    leases: Pool
    """A connection of its own: renewing must not wait behind the work itself."""
    lease_seconds: float
    drain_seconds: float
    renew_leases: Callable[[Rows, list[W], float], Awaitable[Mapping[uuid.UUID, Renewal]]]
    hand_back: Callable[[list[W]], Awaitable[None]]
    draining: bool = False
    carried: dict[uuid.UUID, Carried[W]] = field(default_factory=dict)

    def begin(self, work: W, claimed_at: float, run: Run[W]) -> asyncio.Task[None]:
        """Carry claimed work in the background; `claimed_at` is this process's clock before the claim."""
        one = self.carried[work.id] = Carried(work, claimed_at)
        one.task = asyncio.create_task(self._carry(one, run), name=f"{type(work).__name__}-{work.id}")
        one.task.add_done_callback(lambda _: self.carried.pop(work.id, None))
        return one.task

    async def drain(self) -> None:
        """Stop: let work end for a while, then give the rest to other processes."""
        self.draining = True
        tasks = [one.task for one in self.carried.values() if one.task]
        if tasks:
            await asyncio.wait(tasks, timeout=self.drain_seconds)
        left = list(self.carried.values())
        for one in left:
            one.stop()
        await asyncio.gather(*(one.task for one in left if one.task), return_exceptions=True)
        await self.hand_back([one.work for one in left])

    async def renew(self) -> None:
        """Keep the leases of all carried work; stop what is lost, late, or not wanted any more."""
        carried = list(self.carried.values())
        if not carried:
            return
        sent, lease = time.monotonic(), self.lease_seconds
        renewals = None
        try:
            async with asyncio.timeout(lease * RENEW_TIMEOUT):
                renewals = await self.renew_leases(self.leases, [one.work for one in carried], lease)
        except Exception as error:  # noqa: BLE001 - whatever it is, leases are running out
            logger.warning("renewal_failed", error=type(error).__name__, carried=len(carried))
        for one in carried:
            renewal = renewals.get(one.work.id) if renewals is not None else None
            if renewal and renewal.renewed:
                one.renewed_at = sent
            if renewal and renewal.cancel_requested:
                one.stop(by_user=True)
            gone = renewals is not None and renewal is None
            if gone or time.monotonic() - one.renewed_at > lease * GIVE_UP_AFTER:
                one.stop()

    async def _carry(self, one: Carried[W], run: Run[W]) -> None:
        try:
            await run(one)
        except LeaseLost:
            logger.warning("lease_lost")
        except ConnectionLost as error:
            # Not the work's fault and not a result: it is handed back, or else its lease ends.
            logger.warning("work_interrupted", error=type(error).__name__)
            with contextlib.suppress(*ConnectionLost):
                await persistently(lambda: self.hand_back([one.work]))
