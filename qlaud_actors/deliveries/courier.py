"""Delivers what the outbox has, at least once: one attempt is one claim, and Postgres knows what is due.

A wake-up from the broker only makes it sooner. A process that dies in an attempt delays that delivery
until its lease has ended.
"""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from qlaud_actors import log, metrics
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import VaultError
from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.deliveries import outbox
from qlaud_actors.deliveries.model import MAX_ATTEMPTS, Attempted, Delivery, next_wait
from qlaud_actors.deliveries.store import QUERIES, delivery_from
from qlaud_actors.outbound.attempt import Attempt, PostFailed, Session, post
from qlaud_actors.outbound.guard import ForbiddenURL, check_url
from qlaud_actors.tools.signature import signed_headers

Wait = Callable[[int, Attempted, Callable[[], float]], float | None]

SLOTS = 64
"""Attempts at the same time in one process."""

PER_WEBHOOK = 8
"""Of one webhook, as long as it has others beside it: a receiver that hangs keeps only these."""

TIMEOUT_SECONDS = 10.0
LEASE_SECONDS = 30.0
"""Longer than an attempt and the writing of its result."""

MAX_ANSWER_BYTES = 16 * 1024
"""An answer is read to there and thrown away; its status is what counts."""

LOST = "the process that made the last attempt was lost, or the webhook was deleted"

logger = log.get_logger(__name__)


@dataclass(slots=True)
class Courier:
    """All attempts of this process."""

    pool: Pool
    session: Session
    """Guarded against private addresses."""
    vault: Vault
    allow_private: bool
    retention_days: int
    timeout_seconds: float = TIMEOUT_SECONDS
    next_wait: Wait = next_wait
    _running: dict[asyncio.Task[None], uuid.UUID] = field(default_factory=dict)
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    _draining: bool = False

    async def start(self, delivery_id: uuid.UUID | None = None) -> None:
        """Begin attempts of what is due, or of one delivery, as far as there are free slots.

        It never waits for one: what finds none is due at the next sweep.
        """
        async with self._claiming:
            free = SLOTS - len(self._running)
            if free <= 0 or self._draining:
                return
            per_webhook = Counter(self._running.values())
            busy = [webhook_id for webhook_id, count in per_webhook.items() if count >= PER_WEBHOOK]
            rows = await self.pool.fetch(
                QUERIES.claim_deliveries, delivery_id, free, busy, PER_WEBHOOK, LEASE_SECONDS, MAX_ATTEMPTS
            )
            for row in rows:
                delivery = delivery_from(row, self.vault)
                task = asyncio.create_task(self._carry(delivery), name=f"delivery-{delivery.id}")
                self._running[task] = delivery.webhook_id
                task.add_done_callback(self._running.pop)

    async def sweep(self) -> None:
        """Tell of new usage and low wallets, give up what is beyond help, begin what is due."""
        await outbox.tell_usage(self.pool)
        await outbox.tell_low_wallets(self.pool)
        given_up = await self.pool.fetch(QUERIES.give_up_deliveries, MAX_ATTEMPTS, LOST)
        metrics.DELIVERIES.labels("dead").inc(len(given_up))
        await self.start()

    async def delete_old(self) -> None:
        """Forget deliveries that ended longer ago than is kept."""
        await self.pool.execute(QUERIES.delete_old_deliveries, self.retention_days)

    async def drain(self) -> None:
        """Begin nothing more, and let attempts end: none is longer than its time-out."""
        self._draining = True
        if self._running:
            await asyncio.wait(list(self._running), timeout=self.timeout_seconds)
        for task in list(self._running):
            task.cancel()

    async def _carry(self, delivery: Delivery) -> None:
        log.clear()
        log.bind(delivery_id=str(delivery.id), webhook_id=str(delivery.webhook_id), event_type=delivery.event)
        try:
            outcome = await self._attempt(delivery)
            await self._note(delivery, outcome)
        except ConnectionLost as error:
            # The result is lost, not the delivery: it is due again when its lease ends.
            logger.warning("delivery_interrupted", error=type(error).__name__)
        except Exception:
            logger.exception("delivery_crashed")

    async def _attempt(self, delivery: Delivery) -> Attempted:
        """Send it once, and say what came of it."""
        try:
            secret = await delivery.secret.open(f"delivery:{delivery.id}")
        except VaultError as error:
            logger.error("webhook_secret_lost", reason=str(error))  # noqa: TRY400 - no trace needed
            return Attempted(error="the webhook's secret cannot be read here: rotate it")
        headers = signed_headers(secret, str(delivery.id), int(time.time()), delivery.body)
        headers["content-type"] = "application/json"
        headers["x-qlaud-event"] = delivery.event
        attempt = Attempt()
        try:
            url = check_url(delivery.url, allow_private=self.allow_private).url
            async with asyncio.timeout(self.timeout_seconds):
                answer = await post(
                    self.session, url, headers, delivery.body, attempt=attempt, max_bytes=MAX_ANSWER_BYTES
                )
            return Attempted(status=answer.status)
        except ForbiddenURL as error:
            return Attempted(error=f"its URL {error}")
        except PostFailed as error:
            return Attempted(error=str(error))
        except TimeoutError:
            return Attempted(error=f"no answer within {self.timeout_seconds:g} s")

    async def _note(self, delivery: Delivery, outcome: Attempted) -> None:
        """Write the result, unless somebody asked for the delivery anew meanwhile."""
        if outcome.taken:
            await self.pool.execute(QUERIES.note_delivered, delivery.id, delivery.epoch, outcome.status)
            result = "delivered"
        else:
            wait = self.next_wait(delivery.attempts, outcome, random.random)
            error = outcome.error or f"answered with {outcome.status}"
            await self.pool.execute(
                QUERIES.note_failed, delivery.id, delivery.epoch, outcome.status, error, wait
            )
            result = "dead" if wait is None else "failed"
        metrics.DELIVERIES.labels(result).inc()
        logger.info("delivery_attempted", result=result, status=outcome.status, attempt=delivery.attempts)
