"""A deletion and its receipt, which says how much is gone and of whom nothing. Pure."""

import uuid
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Deletion:
    """An end user who is being deleted."""

    id: uuid.UUID
    account_id: uuid.UUID
    end_user_id: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a deletion has removed so far, in rows. Times in ms since the epoch."""

    id: uuid.UUID
    removed: dict[str, int]
    created_at_ms: int
    completed_at_ms: int | None


COUNTED = (
    *("threads", "messages", "turns", "tool_calls", "kept_results", "artifacts", "jobs", "keys"),
    *("connections", "connect_links", "deliveries", "billing_links", "usage_events_unlinked"),
)
"""What receipts count."""


def receipt_object(receipt: Receipt) -> dict[str, Any]:
    """A receipt as the API shows it. It has no name, not even a hashed one: that could be guessed."""
    return {
        "id": str(receipt.id),
        "object": "deletion",
        "status": "running" if receipt.completed_at_ms is None else "completed",
        "removed": {name: receipt.removed.get(name, 0) for name in COUNTED},
        "created_at": receipt.created_at_ms,
        "completed_at": receipt.completed_at_ms,
    }


@dataclass(frozen=True, slots=True)
class Rule:
    """How long an account's conversations are kept; None is for ever, or all."""

    ttl_days: int | None = None
    """Since a thread was last active."""
    keep_latest_threads: int | None = None
    """Of each end user; of threads without one, of each key."""
    keep_latest_messages: int | None = None
    """Of each thread, and a few more: what stays begins with a question."""
