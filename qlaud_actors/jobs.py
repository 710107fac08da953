"""Background jobs: their names and payloads (ids only), shared by the API and the workers."""

import asyncio
from dataclasses import asdict, dataclass
from typing import ClassVar

import dramatiq
from dramatiq.brokers.redis import RedisBroker

NAMESPACE = "{qlaud-jobs}"
"""One hash tag, so that every key of the broker lives in one cluster slot."""


@dataclass(frozen=True, slots=True)
class RunTurn:
    """Wake a worker for this turn. A hint only: losing or repeating it changes nothing."""

    actor: ClassVar[str] = "run_turn"
    queue: ClassVar[str] = "turns"
    turn_id: str


@dataclass(frozen=True, slots=True)
class SendDelivery:
    """Wake a worker for this delivery of a webhook. A hint only, too."""

    actor: ClassVar[str] = "send_delivery"
    queue: ClassVar[str] = "deliveries"
    delivery_id: str


@dataclass(frozen=True, slots=True)
class RunJob:
    """Wake a worker for this job of the API. A hint only, too."""

    actor: ClassVar[str] = "run_job"
    queue: ClassVar[str] = "jobs"
    job_id: str


@dataclass(frozen=True, slots=True)
class DeleteEndUser:
    """Wake a worker for this deletion of an end user. A hint only, too."""

    actor: ClassVar[str] = "delete_end_user"
    queue: ClassVar[str] = "deletions"
    deletion_id: str


Job = RunTurn | RunJob | SendDelivery | DeleteEndUser

QUEUES = (RunTurn.queue, RunJob.queue, SendDelivery.queue, DeleteEndUser.queue)


def make_broker(redis_url: str) -> RedisBroker:
    """A broker without middleware; the workers add theirs."""
    broker = RedisBroker(  # type: ignore[no-untyped-call]
        url=redis_url,
        namespace=NAMESPACE,
        middleware=[],
        heartbeat_timeout=20_000,
        maintenance_chance=100_000,
        dead_message_ttl=24 * 3600 * 1000,
    )
    for queue in QUEUES:
        broker.declare_queue(queue)
    return broker


def message(job: Job) -> dramatiq.Message[None]:
    """The broker's form of a job."""
    return dramatiq.Message(
        queue_name=job.queue, actor_name=job.actor, args=(), kwargs=asdict(job), options={}
    )


async def enqueue(broker: dramatiq.Broker, *jobs: Job) -> None:
    """Send jobs from async code; the broker's client blocks, so it runs in a thread."""
    if jobs:
        await asyncio.to_thread(_enqueue_all, broker, jobs)


def _enqueue_all(broker: dramatiq.Broker, jobs: tuple[Job, ...]) -> None:
    for job in jobs:
        broker.enqueue(message(job))
