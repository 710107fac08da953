"""Every usage row with every column, as CSV or JSON lines, page by page: any size in constant memory.

Rows come oldest first, by (created_at, id); those of several accounts one account after another. A page is
one short statement, so no transaction stays open while a slow client reads; a span that has ended is
complete and comes out the same each time.
"""

import csv
import io
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec

from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.billing.report import Selection, reading
from qlaud_actors.db.pool import Pool, Record
from qlaud_actors.errors import InvalidRequest

Format: TypeAlias = Literal["csv", "jsonl"]

PAGE_ROWS = 500
"""Encoded at once: a few ms, in which the process does nothing else."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

RISKY = ("=", "+", "-", "@", "\t", "\r", "'")
"""A text that begins so gets an apostrophe in front: spreadsheets run the first six as formulas, and the
apostrophe itself is there so that taking one away always gives the text back."""


async def begin(pool: Pool, chosen: Selection, after: uuid.UUID | None) -> list[str]:
    """The columns. Raises InvalidRequest when `after` names no row of the account."""
    if after and not await pool.fetchval(QUERIES.usage_row_exists, after, chosen.account_id):
        raise InvalidRequest("`after` must be the `id` of a row of this export.")
    return [row["attname"] for row in await pool.fetch(QUERIES.usage_columns)]


async def pages(
    pool: Pool, chosen: Selection, columns: Sequence[str], form: Format, after: uuid.UUID | None = None
) -> AsyncIterator[bytes]:
    """The export in pieces, each of whole lines; a CSV begins with its header, also behind `after`."""
    encode = ENCODERS[form]
    if form == "csv":
        yield _csv_lines([columns])
    while True:
        async with reading(pool) as connection:
            rows = await connection.fetch(QUERIES.usage_page, *chosen.arguments(), after, PAGE_ROWS)
        if rows:
            yield encode(columns, rows)
            after = rows[-1]["id"]
        if len(rows) < PAGE_ROWS:
            return


def plain(value: Any) -> Any:
    """A column's value as JSON has it; times are ms since the epoch."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1)
    return value


def cell(value: Any) -> Any:
    """A column's value for a spreadsheet: nothing in it is run as a formula."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, int | float):
        return value
    known = plain(value)
    text = known if isinstance(known, str) else msgspec.json.encode(known).decode()
    return f"'{text}" if text.startswith(RISKY) else text


def _as_csv(columns: Sequence[str], rows: Sequence[Record]) -> bytes:
    return _csv_lines([[cell(row[name]) for name in columns] for row in rows])


def _as_json_lines(columns: Sequence[str], rows: Sequence[Record]) -> bytes:
    return b"".join(msgspec.json.encode({name: plain(row[name]) for name in columns}) + b"\n" for row in rows)


def _csv_lines(rows: Sequence[Sequence[Any]]) -> bytes:
    """RFC 4180: CRLF, and quotes where they are needed."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


ENCODERS: dict[Format, Callable[[Sequence[str], Sequence[Record]], bytes]] = {
    "csv": _as_csv,
    "jsonl": _as_json_lines,
}
