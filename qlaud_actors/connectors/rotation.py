"""Rotation of the key ring, while the service runs.

Data keys are wrapped anew under the newest key, and secrets in the old form are sealed with their
account's data key. Each row is one statement that replaces exactly the ciphertext that was read: a row
that somebody else has written meanwhile is left to the next pass. So a rotation can be killed at any
point, run again, and run several times at once.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.trail import QUERIES
from qlaud_actors.connectors.vault import Keyring, Place, VaultError
from qlaud_actors.db.pool import Pool, Record, Rows

BATCH = 100
"""Rows read at once; each is written by itself."""

PURPOSE = "rotation"

Say = Callable[[str], None]
Renew = Callable[[Record], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a key of the ring is still needed for; keys without any use are not listed."""

    key_id: str
    rows: dict[str, int]
    """Rows by what they are: data_keys, tools, webhooks."""

    def words(self) -> str:
        """`3 data keys, 1 secret of tools`."""
        return ", ".join(f"{count} {NAMES[what]}" for what, count in self.rows.items())


@dataclass(frozen=True, slots=True)
class Status:
    """Which keys are in use; `newest` is the one that wraps."""

    newest: str
    held: frozenset[str]
    """The ids that are in the ring."""
    uses: tuple[KeyUse, ...]

    @property
    def old(self) -> list[KeyUse]:
        """Keys that rotation has still to replace: they must stay in the ring."""
        return [
            use
            for use in self.uses
            if use.key_id != self.newest or any(what != "data_keys" for what in use.rows)
        ]

    @property
    def removable(self) -> list[str]:
        """Keys of the ring that nothing needs, in the order of their names."""
        return sorted(self.held - {self.newest} - {use.key_id for use in self.uses})

    @property
    def missing(self) -> list[KeyUse]:
        """Keys that rows need and the ring has not: what they seal cannot be opened."""
        return [use for use in self.uses if use.key_id not in self.held]


@dataclass(slots=True)
class Outcome:
    """What a rotation has done."""

    changed: int = 0
    lost: dict[str, str] = field(default_factory=dict)
    """What does not open, and why, by place."""


NAMES = {
    "data_keys": "data keys",
    "tools": "secrets of tools in the old form",
    "webhooks": "secrets of webhooks in the old form",
}


async def status(rows: Rows, keyring: Keyring) -> Status:
    """Which keys the database needs now."""
    uses: dict[str, dict[str, int]] = {}
    for row in await rows.fetch(QUERIES.keys_in_use):
        uses.setdefault(row["key_id"] or "?", {})[row["what"]] = row["rows"]
    found = tuple(KeyUse(key_id, counts) for key_id, counts in uses.items())
    return Status(keyring.newest, frozenset(keyring.keys), found)


async def rotate(pool: Pool, vault: Vault, say: Say) -> Outcome:
    """Renew every row that is not under the newest key, until a whole pass finds nothing to change."""
    outcome = Outcome()
    while True:
        before = outcome.changed
        for shelf in _shelves(pool, vault):
            await _renew_all(pool, shelf, outcome, say)
        if outcome.changed == before:
            return outcome


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Rows of one kind: how to find the old ones, renew one, and write it back."""

    name: str
    old: str
    arguments: tuple[str, ...]
    first: str
    """Sorts before every id."""
    renew: Renew
    replace: str


def _shelves(pool: Pool, vault: Vault) -> list[_Shelf]:
    keyring = vault.keyring

    async def wrap_anew(row: Record) -> bytes:
        return keyring.wrap(keyring.unwrap(row["sealed"], row["account_id"], row["row_id"]))

    def seal_anew(kind: str) -> Renew:
        async def renew(row: Record) -> bytes:
            place = Place(row["account_id"], f"{kind}:{row['row_id']}")
            secret = await vault.open(place, row["sealed"], PURPOSE)
            return await vault.seal(pool, place, secret.reveal())

        return renew

    old, replace = QUERIES.old_data_keys, QUERIES.replace_data_key
    data_keys = _Shelf("data keys", old, (keyring.newest,), "", wrap_anew, replace)
    old, replace = QUERIES.old_tool_secrets, QUERIES.replace_tool_secret
    tools = _Shelf("tools", old, (), "", seal_anew("tool"), replace)
    old, replace = QUERIES.old_webhook_secrets, QUERIES.replace_webhook_secret
    webhooks = _Shelf("webhooks", old, (), str(uuid.UUID(int=0)), seal_anew("webhook"), replace)
    return [data_keys, tools, webhooks]


async def _renew_all(pool: Pool, shelf: _Shelf, outcome: Outcome, say: Say) -> None:
    """One pass over a shelf, in the order of ids."""
    after, changed = shelf.first, 0
    while rows := await pool.fetch(shelf.old, after, *shelf.arguments, BATCH):
        for row in rows:
            after = row["row_id"]
            try:
                fresh = await shelf.renew(row)
            except VaultError as error:
                outcome.lost[f"{shelf.name} {after}"] = str(error)
                continue
            changed += await pool.fetchval(shelf.replace, after, row["sealed"], fresh) is not None
        say(f"{shelf.name}: {changed} renewed")
    outcome.changed += changed
