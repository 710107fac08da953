"""The pace of a key: requests and tokens per minute, requests at the same time, over all front doors.

Counted in Redis, in one script. When Redis is away requests are admitted, with a log line: these limits
keep a key from crowding out others; what protects money is the hold in Postgres, which fails closed.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.resources import files

from redis.asyncio import Redis
from redis.exceptions import RedisError

from qlaud_actors.errors import RateLimited, ScopeMissing
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import pace
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.keys.pace import WINDOW_MS, Counts, Refusal
from qlaud_actors.log import get_logger

LEASE_SECONDS = 60.0
"""A place of `max_concurrent` is free again this long after its process died."""

PATIENCE_SECONDS = 0.5
"""For Redis; then the request goes on without being counted."""

QUIET_SECONDS = 10.0
"""Between two log lines that Redis is away."""

ADMIT = files("qlaud_actors.keys").joinpath("admit.lua").read_text()

AWAY = (RedisError, OSError, TimeoutError)

logger = get_logger(__name__)


@dataclass(slots=True)
class Admitted:
    """One admitted request."""

    headers: dict[str, str] = field(default_factory=dict)
    """`x-ratelimit-*`, for the answer; empty for a key without such limits."""
    tokens: int = 0
    """What was counted for it."""
    used: int | None = None
    """Set it to what the request really used, and the difference is made up at its end."""


def require_model(key: ApiKey, slug: str) -> None:
    """Raises ScopeMissing when the key may not use the model of this slug."""
    if not key.limits.allows(slug):
        raise ScopeMissing(f"This key may not use the model {slug!r}.", scope="model")


class Limits:
    """Admits requests; one for each process."""

    def __init__(self, redis: Redis, lease_seconds: float = LEASE_SECONDS) -> None:
        self._redis = redis
        self._script = redis.register_script(ADMIT)
        self._lease_seconds = lease_seconds
        self._told_at = -QUIET_SECONDS

    def admit(
        self, key: ApiKey, tokens_bound: int = 0, now_ms: int | None = None
    ) -> AbstractAsyncContextManager[Admitted]:
        """Admit a request for as long as the block lasts. Raises RateLimited.

        `tokens_bound` is the most that it can use; a request larger than the whole limit is let into an
        empty minute. `now_ms` is the clock of this process when left out.
        """
        if not key.limits.paced:
            return contextlib.nullcontext(Admitted())
        return self._counted(key, tokens_bound, now_ms)

    @contextlib.asynccontextmanager
    async def _counted(self, key: ApiKey, tokens_bound: int, now_ms: int | None) -> AsyncIterator[Admitted]:
        now_ms = round(time.time() * 1000) if now_ms is None else now_ms
        tokens = min(tokens_bound, key.limits.tpm) if key.limits.tpm else tokens_bound
        lease = str(new_uuid())
        admission = Admitted(tokens=tokens)
        counts = await self._enter(key, tokens, lease, now_ms)
        if counts is None:
            yield admission
            return
        admission.headers = pace.headers(key.limits, counts)
        renewal = asyncio.create_task(self._renew(key, lease)) if key.limits.max_concurrent else None
        try:
            yield admission
        finally:
            if renewal:
                renewal.cancel()
            await self._leave(key, admission, lease, now_ms)

    async def count(self, key_id: uuid.UUID, tokens: int) -> None:
        """Count tokens that were used beside any request: those of a turn's steps."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._add(key_id, tokens, round(time.time() * 1000))
        except AWAY as error:
            self._tell(error)

    async def _enter(self, key: ApiKey, tokens: int, lease: str, now_ms: int) -> Counts | None:
        """The counters, with this request in them; None when Redis is away. Raises RateLimited."""
        limits = key.limits
        arguments: list[int | str] = [
            limits.rpm or 0,
            limits.tpm or 0,
            limits.max_concurrent or 0,
            tokens,
            lease,
        ]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                admitted, *rest = await self._script(
                    keys=[
                        _counts_key(key.id, now_ms),
                        _counts_key(key.id, now_ms - WINDOW_MS),
                        _running_key(key),
                    ],
                    args=[now_ms, WINDOW_MS, *arguments, round(self._lease_seconds * 1000)],
                )
        except AWAY as error:
            self._tell(error)
            return None
        counts = Counts(now_ms, *rest)
        if not admitted:
            raise _refused(pace.refusal(limits, counts, tokens), pace.headers(limits, counts))
        return counts

    async def _leave(self, key: ApiKey, admission: Admitted, lease: str, now_ms: int) -> None:
        """Free the place, and count what was really used."""
        difference = 0 if admission.used is None else admission.used - admission.tokens
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if key.limits.max_concurrent:
                    await self._redis.zrem(_running_key(key), lease)
                if difference:
                    await self._add(key.id, difference, now_ms)
        except AWAY as error:
            self._tell(error)

    async def _add(self, key_id: uuid.UUID, tokens: int, at_ms: int) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hincrby(_counts_key(key_id, at_ms), "t", tokens)
            pipe.pexpire(_counts_key(key_id, at_ms), 2 * WINDOW_MS)
            await pipe.execute()

    async def _renew(self, key: ApiKey, lease: str) -> None:
        """Keep the place while the request runs."""
        milliseconds = round(self._lease_seconds * 1000)
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            end = round(time.time() * 1000) + milliseconds
            with contextlib.suppress(*AWAY):
                await self._redis.zadd(_running_key(key), {lease: end}, xx=True)
                await self._redis.pexpire(_running_key(key), milliseconds)

    def _tell(self, error: BaseException) -> None:
        if time.monotonic() - self._told_at >= QUIET_SECONDS:
            self._told_at = time.monotonic()
            logger.warning("limits_not_counted", error=type(error).__name__)


def _refused(refusal: Refusal | None, headers: dict[str, str]) -> RateLimited:
    if refusal is None:  # between the script's arithmetic and ours lies less than a request
        return RateLimited(retry_after=1.0, headers=headers)
    named = {
        "requests": f"{refusal.limit} requests per minute",
        "tokens": f"{refusal.limit} tokens per minute",
        "concurrency": f"{refusal.limit} requests at the same time",
    }[refusal.scope]
    return RateLimited(
        f"This key may use {named}.",
        retry_after=refusal.retry_after,
        headers=headers,
        scope=refusal.scope,
        limit=refusal.limit,
    )


def _counts_key(key_id: uuid.UUID, at_ms: int) -> str:
    """The braces keep all keys of one API key in one cluster slot."""
    return f"qlaud:pace:{{{key_id}}}:{at_ms // WINDOW_MS}"


def _running_key(key: ApiKey) -> str:
    return f"qlaud:pace:{{{key.id}}}:running"
