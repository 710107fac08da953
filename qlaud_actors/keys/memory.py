"""Keys that were verified a moment ago, for requests that place a hold.

A hold looks at the key again, in its own statement: a key that was revoked, has expired, was changed or has
another secret since is refused as changed, and is then verified anew. So nothing is ever spent on what is
remembered here. Keys with a pace or a list of models are not remembered: those limits are looked at before.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from qlaud_actors.db.pool import Pool
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.model import ApiKey, hash_of

SECONDS = 10.0
"""How long a key is remembered; looking it up also notes once a minute that it is in use."""

MOST = 10_000


@dataclass(slots=True)
class KnownKeys:
    """What one process remembers, by the hash of a secret."""

    pool: Pool
    clock: Callable[[], float] = time.monotonic
    _known: dict[bytes, tuple[float, ApiKey]] = field(default_factory=dict)

    async def verify(self, secret: str) -> ApiKey:
        """As `lifecycle.verify`, from memory where that is fresh (then `remembered` is set)."""
        digest = hash_of(secret)
        until, key = self._known.get(digest, (0.0, None))
        if key is not None and self.clock() < until:
            return key
        return await self.verify_anew(secret)

    async def verify_anew(self, secret: str) -> ApiKey:
        """As `lifecycle.verify`; what was remembered is forgotten. Raises InvalidKey."""
        self._known.pop(hash_of(secret), None)
        key, remembered = await lifecycle.look_up(self.pool, secret)
        if remembered and not key.limits.paced and key.limits.allowed_models is None:
            if len(self._known) >= MOST:
                self._known.clear()
            until = self.clock() + SECONDS
            self._known[remembered.secret_hash] = until, replace(key, remembered=remembered)
        return key
