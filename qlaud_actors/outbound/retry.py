"""When to try again, and when to give up. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

BASE_SECONDS = 0.5
CAP_SECONDS = 8.0
PATIENCE_SECONDS = 30.0
"""The longest wait that a peer may ask of us; beyond it the caller hears of the refusal instead."""


def delay(attempt: int, retry_after: float | None, random: Callable[[], float]) -> float | None:
    """Seconds to wait after failed attempt number `attempt` (from 1); None means: do not retry.

    Exponential with full jitter, as in the AWS Architecture Blog's "Exponential Backoff And
    Jitter" (2015), and never earlier than the peer asked. `random` answers from 0 up to 1.
    """
    if retry_after is not None and retry_after > PATIENCE_SECONDS:
        return None
    backoff = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** (attempt - 1)) * random()
    return max(backoff, retry_after or 0.0)


def within(wait: float, asked: float, left: float) -> float | None:
    """The wait, within the seconds that are left; None when there is no time for another attempt.

    Half of what is left is kept for that attempt, unless the peer asked for more.
    """
    pause = max(asked, min(wait, left / 2))
    return pause if pause < left else None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often something is tried in all."""

    attempts: int

    def wait(self, attempt: int, retry_after: float | None, random: Callable[[], float]) -> float | None:
        """As `delay`, and None once all attempts are spent."""
        return delay(attempt, retry_after, random) if attempt < self.attempts else None
