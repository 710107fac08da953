"""An API key as the service knows it: everything but its secret."""

import hashlib
import re
import uuid
from dataclasses import dataclass
from typing import Literal, TypeAlias

Scope: TypeAlias = Literal["standard", "admin"]
ThreadAccess: TypeAlias = Literal["own", "account"]

SECRET_PATTERN = re.compile(r"^qlk_(live|test)_[0-9a-f]{64}\Z")

BOOTSTRAP_ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")
"""The account that exists from the start."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with its budget. Times in ms since the epoch, money in nano-USD."""

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
    spent_nanos: int
    held_nanos: int


def hash_of(secret: str) -> bytes:
    """What is stored of a secret: its SHA-256. The secret has 256 random bits, so no salt is needed."""
    return hashlib.sha256(secret.encode()).digest()


def prefix_of(secret: str) -> str:
    """What may be shown of a secret: `qlk_live_` + first 4 + `…` + last 4."""
    kind, body = secret[:9], secret[9:]
    return f"{kind}{body[:4]}…{body[-4:]}"
