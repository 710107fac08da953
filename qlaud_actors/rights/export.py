"""A copy of a thread, or of all that is kept of an end user: one JSON object on each line.

`export`, then for each thread `thread`, `message`…, `turn`…, `tool_call`…, `usage`…, `compaction`…,
`artifact`…, then what was kept for the end user in no thread (`artifact`…), `connection`…, and `end` at last,
so that a copy which was cut off is noticed. A page is one short statement: any size in constant memory.
Lines have a `cursor`, but those of connections; a download goes on behind the last one that arrived.
"""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.billing.export import plain
from qlaud_actors.db.pool import Pool, Record
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.ids import parse_uuid

QUERIES = load_queries("qlaud_actors.rights")

VERSION = 1
PAGE_ROWS = 200
SECTIONS = {
    "message": QUERIES.export_message,
    "turn": QUERIES.export_turn,
    "tool_call": QUERIES.export_tool_call,
    "usage": QUERIES.export_usage,
    "compaction": QUERIES.export_compaction,
    "artifact": QUERIES.export_artifact,
}
"""The parts of a thread, in order."""

ARTIFACT = tuple(SECTIONS)[-1]
LAST_ID = 2**128 - 1

ARTIFACTS_AT_ONCE = 4
"""They may have megabytes each."""

NO_THREAD = uuid.UUID(int=LAST_ID)
"""Behind all threads: the cursor of what was kept in none."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose copy it is: a thread, or an end user."""

    account_id: uuid.UUID
    thread_id: uuid.UUID | None = None
    end_user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last line that arrived: `<thread>/<section>/<position>`; the line `thread` has no section.

    The position counts what is only added to; of an artifact, which may be removed in between, it is the id.
    """

    thread_id: uuid.UUID
    section: str = ""
    position: int = 0

    def __str__(self) -> str:
        return f"{self.thread_id}/{self.section}/{self.position}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises InvalidRequest."""
        thread, _, rest = text.partition("/")
        section, _, position = rest.partition("/")
        thread_id = parse_uuid(thread)
        known = section in ("", *SECTIONS) and position.isdecimal() and position.isascii()
        most = len(str(LAST_ID)) if section == ARTIFACT else 18
        if thread_id is None or not known or len(position) > most or int(position) > LAST_ID:
            raise InvalidRequest("`after` must be the `cursor` of a line of this export.")
        return cls(thread_id, section, int(position))

    def behind(self, section: str) -> int | None:
        """Where a section of the cursor's thread goes on; None when it is behind us already."""
        names = ["", *SECTIONS]
        if names.index(section) < names.index(self.section):
            return None
        return self.position if section == self.section else 0


async def lines(pool: Pool, subject: Subject, after: Cursor | None = None) -> AsyncIterator[bytes]:
    """The copy in pieces, each of whole lines."""
    if after is None:
        of = {"thread_id": subject.thread_id, "end_user_id": subject.end_user_id}
        yield _line("export", {"version": VERSION, **of})
    at = after
    while True:
        found = await pool.fetch(
            QUERIES.export_threads,
            subject.account_id,
            subject.thread_id,
            subject.end_user_id,
            at.thread_id if at else None,
            PAGE_ROWS,
        )
        for row in found:
            resumed = at if at and at.thread_id == row["id"] else None
            if resumed is None:
                yield _line("thread", dict(row), Cursor(row["id"]))
            async for piece in _thread_lines(pool, row["id"], resumed):
                yield piece
        if len(found) < PAGE_ROWS:
            break
        # The last one comes again, as the one that is complete.
        at = Cursor(found[-1]["id"], ARTIFACT, LAST_ID)
    if subject.end_user_id is not None:
        whose = subject.account_id, subject.end_user_id
        behind = after if after and after.thread_id == NO_THREAD else Cursor(NO_THREAD)
        async for piece in _artifacts(pool, QUERIES.export_loose_artifacts, whose, behind):
            yield piece
        for row in await pool.fetch(QUERIES.export_connections, *whose):
            yield _line("connection", dict(row))
    yield _line("end", {})


async def _thread_lines(pool: Pool, thread_id: uuid.UUID, resumed: Cursor | None) -> AsyncIterator[bytes]:
    for section, query in SECTIONS.items():
        position = resumed.behind(section) if resumed else 0
        if section == ARTIFACT and position is not None:
            async for piece in _artifacts(pool, query, (thread_id,), Cursor(thread_id, ARTIFACT, position)):
                yield piece
            continue
        while position is not None:
            rows = await pool.fetch(query, thread_id, position, PAGE_ROWS)
            if rows:
                yield b"".join(_part(section, thread_id, row) for row in rows)
            position = rows[-1]["position"] if len(rows) == PAGE_ROWS else None


async def _artifacts(
    pool: Pool, query: str, whose: tuple[object, ...], after: Cursor
) -> AsyncIterator[bytes]:
    """Behind a cursor; whatever is removed meanwhile, none of the others is left out or told twice."""
    last = uuid.UUID(int=after.position)
    while rows := await pool.fetch(query, *whose, last, ARTIFACTS_AT_ONCE):
        yield b"".join(_part(ARTIFACT, after.thread_id, row) for row in rows)
        last = rows[-1]["id"]


def _part(section: str, thread_id: uuid.UUID, row: Record) -> bytes:
    fields = dict(row)
    cursor = Cursor(thread_id, section, int(fields.pop("position")))
    where = {"thread_id": None if thread_id == NO_THREAD else thread_id}
    return _line(section, {**where, **fields}, cursor)


def _line(kind: str, fields: dict[str, Any], cursor: Cursor | None = None) -> bytes:
    told = {name: plain(value) for name, value in fields.items()}
    where = {"cursor": str(cursor)} if cursor else {}
    return msgspec.json.encode({"type": kind, **told, **where}) + b"\n"
