"""The money of one call: what is held, what is charged, and why it was refused."""

import uuid
from dataclasses import dataclass
from typing import Literal, Protocol

from qlaud_actors.usage import Price, Usage, WorstCase


class KeyChanged(Exception):
    """A key that was verified from memory is not what it was: verify it anew."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """How a key was known before this request: the hold looks whether it still is that key."""

    secret_hash: bytes
    version: int
    """Of the key's row, as Postgres counts."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Money that a call wants set aside: its worst case, and the least that is worth it."""

    call_id: uuid.UUID
    key_id: uuid.UUID
    worst: WorstCase
    nanos: int
    least_nanos: int
    turn_id: uuid.UUID | None = None
    remembered: Remembered | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside before a call; `max_tokens` is what it affords."""

    id: uuid.UUID
    amount_nanos: int
    max_tokens: int
    left_nanos: int | None = None
    """What the key's cap had left before it; None without a cap."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call used, for whom, at which price: the columns of a usage event."""

    account_id: uuid.UUID
    key_id: uuid.UUID
    turn_id: uuid.UUID | None
    step: int | None
    end_user_id: str | None
    model_slug: str
    provider_slug: str
    usage: Usage
    price: Price
    markup_bps: int
    latency_ms: int
    status: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What came of settling a hold."""

    charged_nanos: int
    overrun_nanos: int


class Attempted(Protocol):
    """A candidate that was asked for a call (`providers.fallback.Attempt` is one)."""

    @property
    def provider(self) -> str:
        """Its slug."""

    @property
    def model(self) -> str:
        """Its slug."""

    @property
    def status(self) -> int:
        """The HTTP status of its answer, or that which it stands for."""

    @property
    def ms(self) -> int:
        """Until the first piece of the answer, or until it failed."""

    @property
    def error(self) -> str | None:
        """The code of what went wrong; None when it answered."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Which money did not suffice. A wallet's limit is its balance; what it spent is gone from that."""

    scope: Literal["key", "wallet", "turn"]
    limit_nanos: int
    spent_nanos: int
    held_nanos: int
    resets_at_ms: int | None
    """When the key's cap begins anew; None for a lifetime cap and for wallets."""
    needed_nanos: int
