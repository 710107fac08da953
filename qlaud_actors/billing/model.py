"""The money of one call: what is held, what is charged, and why it was refused."""

import uuid
from dataclasses import dataclass
from typing import Literal

from qlaud_actors.usage import Price, Usage


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside before a call; `max_tokens` is what it affords."""

    id: uuid.UUID
    amount_nanos: int
    max_tokens: int


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


@dataclass(frozen=True, slots=True)
class Refused:
    """Which money did not suffice. A wallet's limit is its balance; what it spent is gone from that."""

    scope: Literal["key", "wallet"]
    limit_nanos: int
    spent_nanos: int
    held_nanos: int
    resets_at_ms: int | None
    """When the key's cap begins anew; None for a lifetime cap and for wallets."""
    needed_nanos: int
