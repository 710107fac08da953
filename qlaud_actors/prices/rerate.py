"""Rating usage anew: what calls should have cost, and adjustments for what they were charged wrongly.

No usage row is changed. An adjustment is a usage row of its own with a ledger entry of the same id, written
in one statement with the balance and the key's total (`rerate_usage_v1`), once per row and price version.
Whoever is interrupted starts again and finds the rest.
"""

import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from qlaud_actors.billing.report import Span
from qlaud_actors.db.pool import Record, Rows
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import charge_nanos
from qlaud_actors.prices.store import QUERIES
from qlaud_actors.providers.book import PriceBook
from qlaud_actors.providers.pricing import UNPRICED, in_force
from qlaud_actors.usage import Price, Usage

PAGE = 500
MARGIN_MS = 24 * 3_600_000
"""An id is made when the call begins, on another machine than the row's time when it has ended."""

SLACK_MS = 60_000
"""Clocks differ: a call that began about when a price changed may have either one."""

Outcome: TypeAlias = Literal["right", "adjusted", "adjusted_before", "no_price"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which usage to rate anew. `as_of_ms`: by the prices of that moment instead of each call's own."""

    span: Span
    model: str | None = None
    provider: str | None = None
    as_of_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Rating:
    """What a row is charged at another price."""

    event_id: uuid.UUID
    version: str
    picos: int
    rated_nanos: int
    difference_nanos: int
    """To what is rated now, before any limit."""


@dataclass(slots=True)
class Totals:
    """What came of rating anew. `charged` is what was posted (less than zero: given back)."""

    rows: Counter[Outcome] = field(default_factory=Counter)
    difference_nanos: int = 0
    charged_nanos: int = 0


async def rerate(rows: Rows, book: PriceBook, wanted: Wanted, *, dry_run: bool) -> Totals:
    """Rate all wanted usage by the book. A dry run writes nothing and tells the difference alone."""
    totals = Totals()
    async for row in _usage(rows, wanted):
        rating = rate(row, book, wanted.as_of_ms)
        if not isinstance(rating, Rating):
            totals.rows[rating] += 1
            continue
        charged = None if dry_run else await _post(rows, rating)
        if charged is None and not dry_run:
            totals.rows["adjusted_before"] += 1
            continue
        totals.rows["adjusted"] += 1
        totals.difference_nanos += rating.difference_nanos
        totals.charged_nanos += charged or 0
    return totals


def rate(row: Record, book: PriceBook, as_of_ms: int | None) -> Rating | Outcome:
    """What a usage row should cost, or why there is nothing to do. Pure."""
    price = _price_for(row, book, as_of_ms)
    if price is None or price.version == UNPRICED.version:
        return "no_price"
    picos = price.cost_picos(usage_of(row))
    if row["price_version"] == price.version or picos == row["picos"]:
        return "right"
    rated = charge_nanos(picos, row["markup_bps"])
    now = row["cost_nanos"] + row["overrun_nanos"]
    return Rating(row["id"], price.version, picos, rated, rated - now)


def usage_of(row: Record) -> Usage:
    """What a usage row says was used."""
    return Usage(
        input=row["input_tokens"],
        output=row["output_tokens"],
        cache_read=row["cache_read_tokens"],
        cache_write_5m=row["cache_write_5m_tokens"],
        cache_write_1h=row["cache_write_1h_tokens"],
        units=row["units"] or {},
    )


def _price_for(row: Record, book: PriceBook, as_of_ms: int | None) -> Price | None:
    """The price of the call's moment: when its hold was placed, or its turn was taken up. Whatever was in
    force between that moment and the call's end is right.
    """
    timeline = book.timeline(row["provider_slug"], row["model_slug"])
    if timeline is None:
        return None
    if as_of_ms is not None:
        return in_force(timeline, as_of_ms).price
    began = row["created_at_ms"] - row["latency_ms"]
    earliest = min(began, row["turn_started_ms"] or began) - SLACK_MS
    ended = row["created_at_ms"] + SLACK_MS
    later = [dated for dated in timeline if earliest < dated.begins_ms <= ended]
    fitting = [dated.price for dated in (in_force(timeline, earliest), *later)]
    own = next((price for price in fitting if price.version == row["price_version"]), None)
    return own or in_force(timeline, began).price


async def _usage(rows: Rows, wanted: Wanted) -> AsyncIterator[Record]:
    """Page by page, so that no statement reads a year."""
    last = _id_at(wanted.span.from_ms - MARGIN_MS)
    end = _id_at(wanted.span.to_ms + MARGIN_MS)
    while True:
        span = wanted.span
        page = await rows.fetch(
            QUERIES.usage_to_rate, span.from_ms, span.to_ms, wanted.model, wanted.provider, last, end, PAGE
        )
        for row in page:
            yield row
        if len(page) < PAGE:
            return
        last = page[-1]["id"]


def _id_at(ms: int) -> uuid.UUID:
    """The lowest time-ordered id of a moment."""
    return uuid.UUID(int=max(0, ms) << 80)


async def _post(rows: Rows, rating: Rating) -> int | None:
    """Post an adjustment; what was charged, or None when the row was adjusted to this version before."""
    charged: int | None = await rows.fetchval(
        QUERIES.rerate, rating.event_id, new_uuid(), rating.version, rating.picos, rating.rated_nanos
    )
    return charged
