"""The audit trail of the vault: who opened which secret, and what for."""

import asyncio
import uuid
from dataclasses import dataclass

from qlaud_actors.connectors.vault import Place
from qlaud_actors.db.pool import Pool
from qlaud_actors.db.queries import load_queries

QUERIES = load_queries("qlaud_actors.connectors")

MAX_BATCH = 1_000
MAX_FORGOTTEN = 10_000
"""Rows deleted by one statement."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A secret that is about to be opened."""

    place: Place
    purpose: str


Waiting = tuple[Opening, "asyncio.Future[None]"]


class AuditTrail:
    """Writes the openings of one process; those who wait at the same time share a statement."""

    def __init__(self, pool: Pool, process: uuid.UUID) -> None:
        self._pool = pool
        self._process = process
        self._waiting: list[Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def note(self, opening: Opening) -> None:
        """Return once the row is committed. Raises what the database does: then nothing may be opened."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((opening, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="vault-audit")
        await written

    async def forget(self, days: int) -> None:
        """Delete rows that are older than is kept."""
        await self._pool.execute(QUERIES.forget_openings, days, MAX_FORGOTTEN)

    async def close(self) -> None:
        """Let what is being written be written."""
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            failure: Exception | None = None
            try:
                await self._insert([opening for opening, _ in batch])
            except Exception as error:  # noqa: BLE001 - it is raised by all who wait
                failure = error
            for _, written in batch:
                if written.done():
                    continue  # who waited was cancelled
                if failure is None:
                    written.set_result(None)
                else:
                    written.set_exception(failure)

    async def _insert(self, openings: list[Opening]) -> None:
        places = [opening.place for opening in openings]
        await self._pool.execute(
            QUERIES.note_openings,
            [place.account_id for place in places],
            [place.owner for place in places],
            [place.field for place in places],
            [opening.purpose for opening in openings],
            self._process,
        )
