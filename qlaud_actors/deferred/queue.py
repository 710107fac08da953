"""The queue of jobs: accepted, claimed, renewed, ended, cancelled and swept here. Postgres is its truth."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from qlaud_actors.billing import meter
from qlaud_actors.carrier import Renewal
from qlaud_actors.db.pool import Connection, Pool, Record, Rows, UniqueViolation
from qlaud_actors.db.queries import load_queries
from qlaud_actors.deferred.model import (
    MAX_ATTEMPTS,
    MAX_UNFINISHED,
    MAX_UNFINISHED_BYTES,
    End,
    Job,
    shown,
    stored_error,
)
from qlaud_actors.deliveries import outbox
from qlaud_actors.errors import (
    IdempotencyConflict,
    JobAbandoned,
    JobCancelled,
    LeaseLost,
    NotFound,
    RateLimited,
    SpendCapReached,
)
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle

QUERIES = load_queries("qlaud_actors.deferred")

JOB_FIELDS = Job.__dataclass_fields__


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it comes in at the front door."""

    id: uuid.UUID
    account_id: uuid.UUID
    key_id: uuid.UUID
    endpoint: str
    body: dict[str, Any]
    headers: dict[str, str]
    request_id: str
    fingerprint: bytes
    """Of the request body: the same idempotency key must come with the same one."""
    size: int
    """Bytes of that body."""
    webhook_url: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended, and the deliveries that tell of it."""

    job: Job
    deliveries: list[uuid.UUID]


async def accept(pool: Pool, new: NewJob) -> uuid.UUID:
    """Put a job into the queue, once per idempotency key; the id of the job that answers the request.

    Raises IdempotencyConflict, RateLimited (too many of this key), InvalidKey (it was revoked meanwhile).
    """
    if first := await first_use(pool, new):
        return first
    values = (new.id, new.account_id, new.key_id, new.endpoint, new.body, new.headers, new.webhook_url)
    try:
        made = await pool.fetchval(
            QUERIES.insert_job,
            *values,
            new.request_id,
            new.idempotency_key,
            new.fingerprint,
            new.size,
            MAX_UNFINISHED,
            MAX_UNFINISHED_BYTES,
        )
    except UniqueViolation:
        if first := await first_use(pool, new):
            return first
        raise
    if made is None:
        await lifecycle.require_alive(pool, new.account_id, new.key_id)
        raise RateLimited(
            f"A key may have {MAX_UNFINISHED} unfinished jobs, {MAX_UNFINISHED_BYTES // 2**20} MiB in all; "
            "wait for some to end."
        )
    return new.id


async def first_use(pool: Pool, new: NewJob) -> uuid.UUID | None:
    """The job that an idempotency key was used for before. Raises IdempotencyConflict."""
    if new.idempotency_key is None:
        return None
    row = await pool.fetchrow(QUERIES.job_by_idempotency_key, new.key_id, new.idempotency_key)
    if row is None:
        return None
    if row["fingerprint"] != new.fingerprint:
        raise IdempotencyConflict
    return uuid.UUID(str(row["id"]))


async def get(rows: Rows, job_id: uuid.UUID) -> Job:
    """One job, whoever asks. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.get_job, job_id)
    if row is None:
        raise NotFound("There is no such job.")
    return _job_from(row)


async def list_jobs(
    rows: Rows,
    account_id: uuid.UUID,
    key_id: uuid.UUID | None,
    status: str | None,
    before: uuid.UUID | None,
    limit: int,
) -> list[Job]:
    """Jobs of an account, or of one key of it, newest first, without bodies and responses."""
    found = await rows.fetch(QUERIES.list_jobs, account_id, key_id, status, before, limit)
    return [_job_from(row) for row in found]


async def claim(
    pool: Pool, job_id: uuid.UUID | None, most: int, owner: str, lease_seconds: float
) -> list[Job]:
    """Own jobs that wait or whose worker was lost: this one, or those whose keys' turn it is."""
    claimed = await pool.fetch(QUERIES.claim_jobs, job_id, most, owner, lease_seconds, MAX_ATTEMPTS)
    return [_job_from(row) for row in claimed]


@contextlib.asynccontextmanager
async def fenced(pool: Pool, job: Job) -> AsyncIterator[Connection]:
    """A transaction that exists only while this epoch owns the job. Raises LeaseLost."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.lock_job, job.id, job.epoch) is None:
            raise LeaseLost
        yield connection


async def open_call(pool: Pool, job: Job) -> uuid.UUID:
    """Note the call that is about to be made, and give back what a lost attempt still holds."""
    call_id = new_uuid()
    async with fenced(pool, job) as connection:
        if job.call_id:
            await meter.release(connection, [job.call_id])
        await connection.execute(QUERIES.note_call, job.id, call_id)
    return call_id


async def renew(rows: Rows, jobs: list[Job], lease_seconds: float) -> dict[uuid.UUID, Renewal]:
    """Extend the leases; a job that is missing from the answer is not ours any more."""
    found = await rows.fetch(QUERIES.renew_jobs, [j.id for j in jobs], [j.epoch for j in jobs], lease_seconds)
    return {row["id"]: Renewal(row["cancel_requested"], row["renewed"]) for row in found}


async def hand_back(pool: Pool, jobs: list[Job]) -> list[uuid.UUID]:
    """Give jobs to whoever comes next, without counting it as an attempt."""
    rows = await pool.fetch(QUERIES.hand_back_jobs, [j.id for j in jobs], [j.epoch for j in jobs])
    return [row["id"] for row in rows]


async def end(connection: Connection, job_id: uuid.UUID, how: End) -> Ended:
    """End a job whose row this transaction has locked, and tell of it."""
    error = stored_error(how.error) if how.error else None
    await connection.execute(
        QUERIES.end_job, job_id, how.status, how.model_slug, how.response, how.cost_nanos, error
    )
    job = await get(connection, job_id)
    told = await outbox.tell(connection, job.account_id, "job.completed", shown(job))
    if job.webhook_url:
        told += await outbox.tell_address(
            connection, job.account_id, "job.completed", job.webhook_url, shown(job)
        )
    if isinstance(how.error, SpendCapReached):
        told += await outbox.tell_cap_exceeded(connection, job.key_id)
    return Ended(job, told)


async def cancel(pool: Pool, job_id: uuid.UUID) -> Ended | None:
    """Cancel a job. One that nobody alive owns ends here and now; a running one is asked to stop."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES.request_cancel, job_id)
        row = await connection.fetchrow(QUERIES.lock_unowned_job, job_id)
        if row is None:
            return None
        return await _end_unowned(connection, job_id, row["call_id"], End("cancelled", error=JobCancelled()))


async def sweep(pool: Pool) -> list[Ended]:
    """Fail the jobs that lost as many workers as they may, each in a transaction of its own."""
    ended: list[Ended] = []
    while True:
        async with pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(QUERIES.job_beyond_help, MAX_ATTEMPTS)
            if row is None:
                return ended
            how = End("failed", error=JobAbandoned())
            ended.append(await _end_unowned(connection, row["id"], row["call_id"], how))


async def delete_old(rows: Rows, days: int) -> None:
    """Forget jobs that ended more than so many days ago."""
    await rows.execute(QUERIES.delete_old_jobs, days)


async def _end_unowned(
    connection: Connection, job_id: uuid.UUID, call_id: uuid.UUID | None, how: End
) -> Ended:
    """End a locked job that no living worker owns, and give back what its lost attempt held."""
    if call_id:
        await meter.release(connection, [call_id])
    return await end(connection, job_id, how)


def _job_from(row: Record) -> Job:
    return Job(**{name: row[name] for name in JOB_FIELDS})
