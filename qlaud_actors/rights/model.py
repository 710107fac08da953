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


@dataclass(frozen=True, slots=True)
class Going:
    """A thread that is kept no longer, or of which only a part is: the messages from `first` on."""

    thread_id: uuid.UUID
    oldest_ms: int
    """When it was last active; of a part, when its first message was said."""
    own_days: int | None = None
    own_messages: int | None = None
    """The thread's own rule, where that is the one."""
    first: int | None = None
    messages: int = 0
    """Of a part: how many go."""

    @property
    def own(self) -> bool:
        """Whether a rule of the thread's own takes the place of the account's."""
        return self.own_days is not None or self.own_messages is not None


@dataclass(frozen=True, slots=True)
class Due:
    """What is kept no longer: whole threads, and parts of those that stay."""

    whole: list[Going]
    trimmed: list[Going]

    @property
    def messages(self) -> int:
        """How many messages go from threads that stay."""
        return sum(one.messages for one in self.trimmed)

    @property
    def oldest_ms(self) -> int | None:
        """Of all that goes; None when nothing does."""
        return min((one.oldest_ms for one in (*self.whole, *self.trimmed)), default=None)

    def by_account(self) -> "Due":
        """What goes by the account's rule."""
        return Due([one for one in self.whole if not one.own], [one for one in self.trimmed if not one.own])

    def by_threads(self) -> list[Going]:
        """What goes by threads' own rules, the oldest first."""
        return sorted((one for one in (*self.whole, *self.trimmed) if one.own), key=lambda one: one.oldest_ms)
