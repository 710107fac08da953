"""An API key as the service knows it: everything but its secret."""

import hashlib
import re
import uuid
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qlaud_actors.billing.model import Remembered

Scope: TypeAlias = Literal["standard", "admin"]
ThreadAccess: TypeAlias = Literal["own", "account"]
CapPeriod: TypeAlias = Literal["lifetime", "day", "week", "month"]
"""Calendar periods in UTC; a week begins on Monday."""

SECRET_PATTERN = re.compile(r"^qlk_(live|test)_[0-9a-f]{64}\Z")

BOOTSTRAP_ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")
"""The account that exists from the start."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do beside spending; None is no limit."""

    rpm: int | None = None
    """Requests per minute."""
    tpm: int | None = None
    """Tokens per minute, in and out."""
    max_concurrent: int | None = None
    """Requests at the same time."""
    allowed_models: tuple[str, ...] | None = None
    """Slugs as the catalogue spells them."""
    expires_at_ms: int | None = None

    @property
    def paced(self) -> bool:
        """Whether anything has to be counted."""
        return (self.rpm, self.tpm, self.max_concurrent) != (None, None, None)

    def allows(self, slug: str) -> bool:
        """Whether the key may use the model of this slug."""
        return self.allowed_models is None or slug in self.allowed_models


UNLIMITED = KeyLimits()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with its budget. Times in ms since the epoch, money in nano-USD.

    `spent` and `held` are of the present period, which ends at `resets_at`. `wallet` is what the
    account has if it is prepaid.
    """

    id: uuid.UUID
    account_id: uuid.UUID
    name: str
    scope: Scope
    prefix: str
    end_user_id: str | None
    thread_access: ThreadAccess
    is_master: bool
    created_at_ms: int
    last_used_at_ms: int | None
    revoked: bool
    limit_nanos: int | None
    cap_period: CapPeriod
    spent_nanos: int
    held_nanos: int
    resets_at_ms: int | None
    wallet_nanos: int | None
    limits: KeyLimits = UNLIMITED
    remembered: Remembered | None = None
    """Set when the key was verified before this request: its figures are old, and a hold looks again."""

    @property
    def limited(self) -> bool:
        """Whether a cap or a wallet limits its money."""
        return self.limit_nanos is not None or self.wallet_nanos is not None


def hash_of(secret: str) -> bytes:
    """What is stored of a secret: its SHA-256. The secret has 256 random bits, so no salt is needed."""
    return hashlib.sha256(secret.encode()).digest()


def prefix_of(secret: str) -> str:
    """What may be shown of a secret: `qlk_live_` + first 4 + `…` + last 4."""
    kind, body = secret[:9], secret[9:]
    return f"{kind}{body[:4]}…{body[-4:]}"
