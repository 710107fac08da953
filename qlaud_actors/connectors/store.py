"""The vault with its memory: data keys are rows in Postgres, wrapped, and are remembered for a while."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from qlaud_actors.connectors.trail import QUERIES, AuditTrail, Opening
from qlaud_actors.connectors.vault import (
    OLD_FORM,
    Ciphertext,
    ClosedSecret,
    DataKey,
    Keyring,
    Place,
    VaultError,
)
from qlaud_actors.db.pool import Pool, Record, Rows, in_transaction
from qlaud_actors.ids import new_uuid
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Secret

REMEMBER_SECONDS = 300.0
MAX_REMEMBERED = 10_000
"""Data keys that a process has in memory at most."""

SEALS = ""
"""Stands for the key that seals, where another key is named by its id."""

logger = get_logger(__name__)


class Vault:
    """Seals and opens secrets; one for each process."""

    def __init__(
        self,
        keyring: Keyring,
        pool: Pool,
        process: uuid.UUID | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keyring = keyring
        self.trail = AuditTrail(pool, process or new_uuid())
        self._pool = pool
        self._clock = clock
        self._remembered: dict[tuple[uuid.UUID, str], tuple[DataKey, float]] = {}

    async def seal(self, rows: Rows, place: Place, plaintext: str) -> bytes:
        """The ciphertext for a place.

        `rows` is what the row itself is written through: a data key that is made now is committed with it.
        """
        return (await self._sealing_key(rows, place.account_id)).seal(plaintext, place)

    async def open(self, place: Place, sealed: bytes, purpose: str) -> Secret:
        """What was sealed for this very place; the opening is on record before. Raises VaultError."""
        await self.trail.note(Opening(place, purpose))
        if sealed[:1] == bytes([OLD_FORM]):
            return self.keyring.open_old(sealed, place)
        key_id = Ciphertext.parse(sealed).key_id
        data_key = self._recall(place.account_id, key_id)
        if data_key is None:
            row = await self._pool.fetchrow(QUERIES.data_keys, place.account_id, key_id)
            if row is None:
                raise VaultError(f"sealed with the data key {key_id!r}, which the account does not have")
            data_key = self.keyring.unwrap(row["wrapped"], place.account_id, key_id)
            self._remember(data_key, key_id)
        return data_key.open(sealed, place)

    def closed(self, place: Place, sealed: bytes) -> ClosedSecret:
        """A secret to be opened by whoever comes to use it."""
        return _StoredSecret(self, place, sealed)

    async def close(self) -> None:
        """Let the audit be written, and forget the data keys."""
        await self.trail.close()
        self._remembered.clear()

    async def _sealing_key(self, rows: Rows, account_id: uuid.UUID) -> DataKey:
        """The account's newest data key that opens; a new one when there is none."""
        data_key = self._recall(account_id, SEALS)
        if data_key is not None:
            return data_key
        data_key = self._first_that_opens(await rows.fetch(QUERIES.data_keys, account_id, None), account_id)
        if data_key is None:
            data_key = DataKey.generate(account_id)
            await rows.execute(QUERIES.insert_data_key, data_key.id, account_id, self.keyring.wrap(data_key))
        # What is read inside a transaction may have been made in it, and may yet be undone.
        if not in_transaction(rows):
            self._remember(data_key, SEALS)
        return data_key

    def _first_that_opens(self, rows: list[Record], account_id: uuid.UUID) -> DataKey | None:
        for row in rows:
            try:
                return self.keyring.unwrap(row["wrapped"], account_id, row["id"])
            except VaultError as error:
                logger.error("data_key_lost", account_id=str(account_id), reason=str(error))  # noqa: TRY400 - no trace needed
        return None

    def _recall(self, account_id: uuid.UUID, which: str) -> DataKey | None:
        data_key, until = self._remembered.get((account_id, which), (None, 0.0))
        return data_key if self._clock() < until else None

    def _remember(self, data_key: DataKey, which: str) -> None:
        slot = (data_key.account_id, which)
        self._remembered.pop(slot, None)
        self._remembered[slot] = (data_key, self._clock() + REMEMBER_SECONDS)
        if len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]


@dataclass(frozen=True, slots=True, repr=False)
class _StoredSecret:
    """A sealed secret and the vault that opens it."""

    vault: Vault
    place: Place
    sealed: bytes

    async def open(self, purpose: str) -> Secret:
        """The secret; the opening is on record before. Raises VaultError."""
        return await self.vault.open(self.place, self.sealed, purpose)
