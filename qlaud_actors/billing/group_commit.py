"""Group commit: the holds and settlements of one process that come at the same time are one statement.

A commit costs the same for one call as for many. Whoever comes while a statement is on its way waits for
the next one, which leaves when this one is back and all who are ready by then have come along; who comes
alone does not wait. Nothing is answered before it is committed.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from qlaud_actors.billing import meter
from qlaud_actors.billing.model import Charge, Hold, Remembered, Settlement, Wanted
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import ConnectionLost, Contended, Pool, Record, Rows
from qlaud_actors.log import get_logger
from qlaud_actors.usage import WorstCase

T = TypeVar("T")
R = TypeVar("R")

MOST = 256
"""Members of one statement."""

TURNS = 2
"""Of the event loop: in the first a request is read, in the second it gets here."""

IN_DOUBT_SECONDS = 60.0
"""A statement whose answer was lost has ended by then, one way or the other."""

GIVE_BACK_SECONDS = 3600.0
"""How long a hold in doubt waits for a database that is away to be given back."""

logger = get_logger(__name__)


class GroupCommit:
    """The money of calls that a process makes by itself (`owner`); a turn's is in its own transactions."""

    def __init__(self, pool: Pool, owner: uuid.UUID) -> None:
        self.pool = pool
        self.owner = owner
        self._holds: Group[Wanted, Record] = Group(pool, self._place)
        self._settlements: Group[tuple[uuid.UUID, Charge], Settlement | None] = Group(
            pool, meter.settle_calls
        )
        self._in_doubt: set[asyncio.Task[None]] = set()

    async def hold(
        self,
        call_id: uuid.UUID,
        key_id: uuid.UUID,
        worst: WorstCase,
        floor_tokens: int,
        remembered: Remembered | None = None,
    ) -> Hold:
        """As `meter.hold`. Raises SpendCapReached, WalletEmpty; KeyChanged for a remembered key."""
        wanted = meter.wanting(call_id, key_id, worst, floor_tokens, remembered=remembered)
        try:
            return meter.granted(wanted, await self._holds.add(wanted))
        except (asyncio.CancelledError, *ConnectionLost):
            self._give_back(call_id)  # nobody knows whether it was placed, and nobody will use it
            raise

    async def settle(self, call_id: uuid.UUID, charge: Charge) -> Settlement | None:
        """As `meter.settle`; it may be repeated after a lost connection."""
        return await self._settlements.add((call_id, charge))

    async def close(self) -> None:
        """End what still waits to be given back: the process leaves, and that is done for it then."""
        for task in self._in_doubt:
            task.cancel()
        await asyncio.gather(*self._in_doubt, return_exceptions=True)

    async def _place(self, rows: Rows, wanted: Sequence[Wanted]) -> list[Record]:
        return await meter.place_holds(rows, self.owner, wanted)

    def _give_back(self, call_id: uuid.UUID) -> None:
        task = asyncio.create_task(self._release(call_id))
        self._in_doubt.add(task)
        task.add_done_callback(self._in_doubt.discard)

    async def _release(self, call_id: uuid.UUID) -> None:
        """Twice: the statement may be on its way still when its answer is given up."""
        for wait in (0.0, IN_DOUBT_SECONDS):
            await asyncio.sleep(wait)
            await persistently(lambda: meter.release(self.pool, [call_id]), GIVE_BACK_SECONDS)


class Group(Generic[T, R]):
    """Members of one kind: all that wait are written by one statement, one statement at a time."""

    def __init__(self, pool: Pool, write: Callable[[Rows, Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._pool = pool
        self._write = write
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    async def add(self, member: T) -> R:
        """What came of this member, once it is committed. Raises what its statement did."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((member, future))
        if self._writer is None:  # in a context of its own: what it logs concerns no single request
            self._writer = asyncio.get_running_loop().create_task(self._write_all(), context=Context())
        return await future

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._let_others_come()
                batch = [one for one in self._waiting[:MOST] if not one[1].done()]
                del self._waiting[:MOST]
                if batch:
                    await self._write_batch(batch)
        finally:
            self._writer = None

    async def _let_others_come(self) -> None:
        """Whoever is ready now comes along: the loop goes round as long as more have come with each turn."""
        seen = 0
        while seen < len(self._waiting) < MOST:
            seen = len(self._waiting)
            for _ in range(TURNS):
                await asyncio.sleep(0)

    async def _write_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write(self._pool, [member for member, _ in batch])
        except Exception as error:  # noqa: BLE001 - told to all who wait
            if len(batch) > 1 and (isinstance(error, Contended) or not isinstance(error, ConnectionLost)):
                self._write_alone(batch, error)
            else:
                _fail(batch, error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _write_alone(self, batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        """One member cannot be written, or waits for a row: the others must not suffer from it."""
        logger.warning("batch_failed", members=len(batch), error=type(error).__name__)
        for one in batch:
            task = asyncio.get_running_loop().create_task(self._write_batch([one]))
            self._alone.add(task)
            task.add_done_callback(self._alone.discard)


def _fail(batch: list[tuple[T, "asyncio.Future[R]"]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
