"""The table of actors: job name → function, queue. One line per background job."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import dramatiq

from qlaud_actors.conversation.runner import TurnRunner
from qlaud_actors.deferred.runner import JobRunner
from qlaud_actors.deliveries.courier import Courier
from qlaud_actors.jobs import DeleteEndUser, IndexThread, Job, RunJob, RunTurn, SendDelivery
from qlaud_actors.rights.deletion import Deleter
from qlaud_actors.search.indexer import Indexer


@dataclass(frozen=True, slots=True)
class Actor:
    """One line of the table."""

    job: type[Job]
    run: Callable[..., Coroutine[Any, Any, None]]


def actor_table(
    runner: TurnRunner, job_runner: JobRunner, courier: Courier, indexer: Indexer, deleter: Deleter
) -> list[Actor]:
    """Every background job and what it does."""

    async def run_turn(turn_id: str) -> None:
        await runner.start(uuid.UUID(turn_id))

    async def run_job(job_id: str) -> None:
        await job_runner.start(uuid.UUID(job_id))

    async def send_delivery(delivery_id: str) -> None:
        await courier.start(uuid.UUID(delivery_id))

    async def delete_end_user(deletion_id: str) -> None:
        await deleter.start(uuid.UUID(deletion_id))

    async def index_thread(thread_id: str) -> None:
        del thread_id  # what is due is taken in its order, so that no thread waits behind a busy one
        await indexer.start()

    return [
        Actor(RunTurn, run_turn),
        Actor(RunJob, run_job),
        Actor(SendDelivery, send_delivery),
        Actor(DeleteEndUser, delete_end_user),
        Actor(IndexThread, index_thread),
    ]


def declare(table: list[Actor], broker: dramatiq.Broker, loop: asyncio.AbstractEventLoop) -> None:
    """Declare the table's actors on a broker.

    An actor runs in a thread of dramatiq's and hands its coroutine to the process's event loop. A
    message is a wake-up: it is acknowledged once the work is running. For a turn it blocks while every
    slot is taken, which is the back-pressure. It is never retried: the sweeper asks again.
    """
    for actor in table:
        declared = dramatiq.actor(actor_name=actor.job.actor, queue_name=actor.job.queue, broker=broker)
        declared(_bridge(actor, loop))


def _bridge(actor: Actor, loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    def call(**payload: str) -> None:
        asyncio.run_coroutine_threadsafe(actor.run(**payload), loop).result()

    return call
