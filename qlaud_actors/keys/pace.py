"""What a key's counters say: whom they refuse, for how long, and what callers are told. Pure.

The last minute is estimated from two calendar minutes: all of the present one, and of the one before as
much as still reaches into the last sixty seconds. `admit.lua` decides by the same rule.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qlaud_actors.keys.model import KeyLimits

WINDOW_MS = 60_000
BUSY_SECONDS = 1.0
"""How soon a place may be free when all are taken: nobody knows, so callers ask again soon."""

Scope: TypeAlias = Literal["requests", "tokens", "concurrency"]


@dataclass(frozen=True, slots=True)
class Counts:
    """A key's counters at a time (ms since the epoch), from this minute and the one before."""

    now_ms: int
    requests_before: int
    requests: int
    tokens_before: int
    tokens: int
    running: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit was reached, and after how many seconds the same request would pass, if it were alone."""

    scope: Scope
    limit: int
    retry_after: float


def refusal(limits: KeyLimits, counts: Counts, tokens: int) -> Refusal | None:
    """Why a request was refused: the limit that holds it back longest. None when none does."""
    found = []
    if limits.rpm is not None:
        wait = seconds_until(limits.rpm - 1, counts.requests_before, counts.requests, counts.now_ms)
        found.append(Refusal("requests", limits.rpm, wait))
    if limits.tpm is not None:
        wait = seconds_until(limits.tpm - tokens, counts.tokens_before, counts.tokens, counts.now_ms)
        found.append(Refusal("tokens", limits.tpm, wait))
    if limits.max_concurrent is not None and counts.running >= limits.max_concurrent:
        found.append(Refusal("concurrency", limits.max_concurrent, BUSY_SECONDS))
    return max((one for one in found if one.retry_after > 0), key=lambda one: one.retry_after, default=None)


def seconds_until(room: int, before: int, present: int, now_ms: int) -> float:
    """When the estimate has fallen to `room`: 0 when it has, at most two minutes."""
    passed = now_ms % WINDOW_MS
    if before * (1 - passed / WINDOW_MS) + present <= room:
        return 0.0
    if present <= room:  # enough of the minute before will have gone
        return (WINDOW_MS * (1 - (room - present) / before) - passed) / 1000
    # The present minute must become the one before, and shrink in its turn.
    gone = WINDOW_MS * (1 - max(room, 0) / present)
    return (WINDOW_MS - passed + gone) / 1000


def headers(limits: KeyLimits, counts: Counts) -> dict[str, str]:
    """The `x-ratelimit-*` headers, named as OpenAI does; `reset` is when nothing counts any more."""
    passed = counts.now_ms % WINDOW_MS
    told: dict[str, str] = {}
    for name, limit, before, present in (
        ("requests", limits.rpm, counts.requests_before, counts.requests),
        ("tokens", limits.tpm, counts.tokens_before, counts.tokens),
    ):
        if limit is None:
            continue
        used = math.ceil(before * (1 - passed / WINDOW_MS) + present)
        reset = seconds_until(0, before, present, counts.now_ms)
        told[f"x-ratelimit-limit-{name}"] = str(limit)
        told[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - used))
        told[f"x-ratelimit-reset-{name}"] = f"{math.ceil(reset)}s"
    return told
