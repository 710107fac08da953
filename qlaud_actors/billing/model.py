"""The money of one call: what is held, what is charged, and why it was refused."""

import uuid
from dataclasses import dataclass

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
