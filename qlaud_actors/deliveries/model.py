"""Webhooks, deliveries, and when one is tried again."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qlaud_actors.connectors.vault import ClosedSecret

Event: TypeAlias = Literal["job.completed", "usage.recorded", "key.cap_exceeded", "wallet.low"]
"""What can be told."""

DeliveryStatus: TypeAlias = Literal["pending", "delivered", "dead"]

MINUTE, HOUR = 60, 3_600
WAITS = (5, 30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 8 * HOUR)
"""Seconds behind each failed attempt, 24 hours in all."""

MAX_ATTEMPTS = len(WAITS) + 1
"""Then the delivery is dead until somebody asks for it again."""

JITTER = 0.1
"""A wait is longer or shorter by up to this part: a receiver that was away is not met by all at once."""

GONE = 410


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where an account wants to be told. Without a URL it signs what goes to addresses that jobs name."""

    id: uuid.UUID
    account_id: uuid.UUID
    url: str | None
    events: list[Event]
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt that this process makes: what goes where, signed with what."""

    id: uuid.UUID
    webhook_id: uuid.UUID
    event: Event
    url: str
    body: bytes
    epoch: int
    attempts: int
    secret: ClosedSecret


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """How far a delivery is. Times in ms since the epoch."""

    id: uuid.UUID
    event: Event
    url: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at_ms: int | None
    last_attempt_at_ms: int | None
    last_status: int | None
    last_error: str | None
    created_at_ms: int
    ended_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Attempted:
    """What an attempt came to: the receiver's status, or the reason in words why there is none."""

    status: int | None = None
    error: str | None = None

    @property
    def taken(self) -> bool:
        """The receiver has it."""
        return self.status is not None and 200 <= self.status < 300


def next_wait(attempts: int, outcome: Attempted, random: Callable[[], float]) -> float | None:
    """Seconds until the next attempt after `attempts` of them failed; None: no more.

    A receiver that says it is gone (410) is believed. `random` answers from 0 up to 1.
    """
    if outcome.status == GONE or attempts >= MAX_ATTEMPTS:
        return None
    return WAITS[attempts - 1] * (1 - JITTER + 2 * JITTER * random())
