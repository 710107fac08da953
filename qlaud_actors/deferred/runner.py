"""Carries jobs in one worker process: one call each, through the same admission as every other call.

A job is charged for the answer that it keeps: settlement, response and the telling of it are one
transaction, which exists only while this epoch owns the job. The call of a worker that was lost is made
again by another one, so a provider may have billed it twice; the key pays once.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import msgspec

from qlaud_actors import log, metrics
from qlaud_actors.billing import meter
from qlaud_actors.carrier import Carried, Carrier
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import Connection, ConnectionLost, Pool
from qlaud_actors.deferred import queue
from qlaud_actors.deferred.endpoints import ask_from
from qlaud_actors.deferred.model import End, Job, response_limit
from qlaud_actors.deferred.queue import Ended
from qlaud_actors.errors import (
    JobCancelled,
    LeaseLost,
    ProviderUnavailable,
    QlaudError,
    ResponseTooLarge,
)
from qlaud_actors.gateway.admission import Admission, Ticket
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.settings import Settings

CALL_SECONDS = 3_600.0
"""The longest that one call may take; providers that fall silent are given up long before."""

Wake = Callable[[list[uuid.UUID]], Awaitable[None]]
"""Sends wake-ups for deliveries."""

logger = log.get_logger(__name__)


@dataclass(slots=True)
class JobRunner:
    """All jobs of this process."""

    settings: Settings
    pool: Pool
    lease_pool: Pool
    admission: Admission
    wake: Wake
    owner: str = field(default_factory=lambda: str(new_uuid()))
    carrier: Carrier[Job] = field(init=False)
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        settings = self.settings
        self.carrier = Carrier(
            self.lease_pool, settings.lease_seconds, settings.drain_seconds, queue.renew, self._hand_back
        )

    async def start(self, job_id: uuid.UUID | None = None) -> None:
        """Claim what waits, or one job, as far as there are free slots, and carry it in the background.

        It never waits for a slot: what finds none is claimed by a later sweep, here or elsewhere.
        """
        async with self._claiming:
            free = self.settings.jobs_per_worker - len(self.carrier.carried)
            if free <= 0 or self.carrier.draining:
                return
            sent = time.monotonic()
            lease = self.settings.lease_seconds
            for job in await queue.claim(self.pool, job_id, free, self.owner, lease):
                self.carrier.begin(job, sent, self._carry)

    async def sweep(self) -> None:
        """End what is beyond help, and take what waits."""
        for ended in await queue.sweep(self.pool):
            await self._ended(ended)
        await self.start()

    async def delete_old(self) -> None:
        """Forget jobs that ended longer ago than is kept."""
        await queue.delete_old(self.pool, self.settings.retention_days)

    async def _carry(self, carried: Carried[Job]) -> None:
        job = carried.work
        log.clear()
        log.bind(job_id=str(job.id), key_id=str(job.key_id), request_id=job.request_id, epoch=job.epoch)
        call_id = await queue.open_call(self.pool, job)
        try:
            ended = await self._work(carried, call_id)
        except BaseException:
            # Whatever it was, the job goes on elsewhere or is over: this call is not what it pays for.
            with contextlib.suppress(*ConnectionLost):
                await meter.release(self.pool, [call_id])
            raise
        await self._ended(ended)

    async def _work(self, carried: Carried[Job], call_id: uuid.UUID) -> Ended:
        """Make the call and end the job with what came of it."""
        job, ticket = carried.work, None
        try:
            ticket = await self._admitted(job, call_id)
            how = End("succeeded", response=await _read(ticket, response_limit(job.endpoint)))
        except asyncio.CancelledError:
            if not carried.cancelled:
                raise
            how = End("cancelled", error=JobCancelled())
        except (LeaseLost, *ConnectionLost):
            raise
        except QlaudError as error:
            how = End("cancelled" if isinstance(error, JobCancelled) else "failed", error=error)
        except Exception:
            logger.exception("job_crashed")
            how = End("failed", error=QlaudError())
        carried.ending = True
        if ticket is None:
            return await persistently(lambda: self._end(job, call_id, how))
        return await self._settle(job, ticket, how)

    async def _admitted(self, job: Job, call_id: uuid.UUID) -> Ticket:
        """The right to the call, if the job is still wanted and its key may make it. Raises QlaudError."""
        if job.cancel_requested:
            raise JobCancelled
        assert job.body is not None
        ask = ask_from(job.endpoint, job.body, job.headers)
        key = await lifecycle.require_alive(self.pool, job.account_id, job.key_id)
        return await self.admission.admit(key, ask, call_id)

    async def _settle(self, job: Job, ticket: Ticket, how: End) -> Ended:
        """Settle the call and end the job, in one transaction. Raises LeaseLost."""
        ended: list[Ended] = []

        @contextlib.asynccontextmanager
        async def transaction() -> AsyncIterator[Connection]:
            async with queue.fenced(self.pool, job) as connection:
                yield connection
                charged = replace(how, model_slug=ticket.model.slug, cost_nanos=ticket.charged_nanos)
                ended.append(await queue.end(connection, job.id, charged))

        await ticket.settle(how.error.status if how.error else 200, transaction)
        if not ended:  # the database stayed away
            raise LeaseLost
        return ended[-1]

    async def _end(self, job: Job, call_id: uuid.UUID, how: End) -> Ended:
        async with queue.fenced(self.pool, job) as connection:
            await meter.release(connection, [call_id])  # it may have been held before it was cancelled
            return await queue.end(connection, job.id, how)

    async def _ended(self, ended: Ended) -> None:
        job = ended.job
        metrics.JOBS.labels(job.status).inc()
        logger.info(
            "job_ended",
            job=str(job.id),
            status=job.status,
            model=job.model_slug,
            cost_nanos=job.cost_nanos,
            attempts=job.attempts,
            error=job.error["code"] if job.error else None,
            ms=(job.finished_at_ms or 0) - job.created_at_ms,
        )
        await self.wake(ended.deliveries)

    async def _hand_back(self, jobs: list[Job]) -> None:
        await queue.hand_back(self.pool, jobs)


async def _read(ticket: Ticket, most: int) -> str:
    """The whole answer, verbatim. Raises ProviderError, ResponseTooLarge; the call is paid for either way."""
    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(CALL_SECONDS) as deadline, aclosing(ticket.call.events()) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size <= most:
                    body += piece
    except TimeoutError:
        if not deadline.expired():
            raise
        raise ProviderUnavailable("The answer took too long.") from None
    if size > most:
        raise ResponseTooLarge
    try:
        msgspec.json.decode(body)
        return body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ProviderUnavailable("The model provider did not answer with JSON.") from None
