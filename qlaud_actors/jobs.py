"""Background jobs: their names and payloads (ids only), shared by the API and the workers."""

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import dramatiq
import redis
from dramatiq.broker import Consumer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed

NAMESPACE = "{qlaud-jobs}"
"""One hash tag, so that every key of the broker lives in one cluster slot."""

BUSY_SECONDS = 0.02
"""After which a consumer that has given messages away looks for more."""


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


@dataclass(frozen=True, slots=True)
class IndexThread:
    """Wake a worker for the messages of this thread that search lacks. A hint only, too."""

    actor: ClassVar[str] = "index_thread"
    queue: ClassVar[str] = "search"
    thread_id: str


Job = RunTurn | RunJob | SendDelivery | IndexThread | DeleteEndUser

QUEUES = (RunTurn.queue, RunJob.queue, SendDelivery.queue, IndexThread.queue, DeleteEndUser.queue)


class WaitingConsumer(Consumer):
    """Reads a queue; while that is empty it waits in Redis, which wakes it for the next message.

    The broker's own consumer asks again and again instead: twenty times a second for each queue, or late.
    """

    def __init__(self, broker: RedisBroker, queue_name: str, prefetch: int, timeout_ms: int) -> None:
        self._reader = broker.consumer_class(broker, queue_name, prefetch, 1)
        self._redis = broker.client
        self._list = f"{broker.namespace}:{queue_name}"
        self._seconds = timeout_ms / 1000

    def ack(self, message: Any) -> None:
        """It is done."""
        self._reader.ack(message)

    def nack(self, message: Any) -> None:
        """It cannot be done."""
        self._reader.nack(message)

    def requeue(self, messages: Any) -> None:
        """Others may do them."""
        self._reader.requeue(messages)

    def __next__(self) -> Any:
        """A message, or None after a while without."""
        message = next(self._reader)
        if message is None and self._reader.outstanding_message_count:
            time.sleep(BUSY_SECONDS)  # it may have as many as it can take
        elif message is None:
            try:  # an element that is moved to where it is: nothing but a wait for one
                self._redis.blmove(self._list, self._list, self._seconds, "LEFT", "LEFT")  # type: ignore[arg-type]
            except redis.ConnectionError as error:
                raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
        return message


class Broker(RedisBroker):
    """As dramatiq's, with consumers that wait. No job of ours is delayed: nobody looks for those."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """A reader of a queue."""
        return WaitingConsumer(self, queue_name, prefetch, timeout)

    def get_declared_delay_queues(self) -> set[str]:
        """None that is read."""
        return set()


def make_broker(redis_url: str) -> RedisBroker:
    """A broker without middleware; the workers add theirs."""
    broker = Broker(  # type: ignore[no-untyped-call]
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
