"""Usage reports: plain sums over the usage rows, each from one statement, so that they always agree."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.db.pool import Connection, Pool, Record
from qlaud_actors.money import nanos_to_micros

EVENTS_SHOWN = 100

KEYS_SHOWN = 1_000
"""The dearest keys of an account; all of them come page by page with `group_by=key`."""

END_OF_TIME_MS = 4_102_444_800_000
"""The year 2100: no span ends later."""

IN_ALL, BY_MODEL, BY_KEY = 3, 2, 1
"""The levels of `usage_summary`."""


@dataclass(frozen=True, slots=True)
class Span:
    """From (inclusive) and to (exclusive), in ms since the epoch."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which usage rows are meant; None leaves nothing out."""

    account_id: uuid.UUID | None
    span: Span
    key_id: uuid.UUID | None = None
    model_slug: str | None = None
    end_user_id: str | None = None

    def arguments(self) -> tuple[object, ...]:
        """The first six arguments of the queries over usage rows."""
        span = self.span
        return (
            self.account_id,
            span.from_ms,
            span.to_ms,
            self.key_id,
            self.model_slug,
            self.end_user_id,
        )


@contextlib.asynccontextmanager
async def reading(pool: Pool) -> AsyncIterator[Connection]:
    """A snapshot for a report, which may well look at every row: planned for what is asked."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(QUERIES.plan_for_arguments)
        yield connection


async def account_usage(pool: Pool, chosen: Selection) -> dict[str, Any]:
    """What an account used, by key and by model (`GET /v1/usage`)."""
    async with reading(pool) as connection:
        whole, models, keys = await _summary(connection, chosen)
    return {
        "from_ms": chosen.span.from_ms,
        "to_ms": chosen.span.to_ms,
        **totals(whole),
        "by_key": [{**key_fields(row), **sums(row)} for row in keys[:KEYS_SHOWN]],
        "by_key_has_more": len(keys) > KEYS_SHOWN,
        "by_model": [_model_row(row) for row in models],
    }


async def key_usage(pool: Pool, chosen: Selection) -> dict[str, Any]:
    """What one key used, by model, with its newest rows (`GET /v1/keys/:id/usage`)."""
    span = chosen.span
    async with reading(pool) as connection:
        whole, models, _ = await _summary(connection, chosen)
        events = await connection.fetch(
            QUERIES.usage_events_of_key, chosen.key_id, span.from_ms, span.to_ms, EVENTS_SHOWN
        )
    return {
        "from_ms": span.from_ms,
        "to_ms": span.to_ms,
        **sums(whole),
        "by_model": [_model_row(row) for row in models],
        "events": [event_row(row) for row in events],
    }


def sums(row: Record | Mapping[str, Any]) -> dict[str, Any]:
    """The sums of a group. Cached tokens are a part of `input_tokens`, units of nothing; nanos are exact."""
    return {
        "cost_micros": nanos_to_micros(row["cost_nanos"] or 0),
        "cost_nanos": row["cost_nanos"] or 0,
        "input_tokens": row["input_tokens"] or 0,
        "output_tokens": row["output_tokens"] or 0,
        "cache_read_input_tokens": row["cache_read_tokens"] or 0,
        "cache_creation_input_tokens": row["cache_write_tokens"] or 0,
        "units": row["units"] or {},
        "request_count": row["request_count"],
    }


def totals(row: Record | Mapping[str, Any]) -> dict[str, Any]:
    """The same of everything that was chosen, as the account's report spells them."""
    of_all = sums(row)
    count = of_all.pop("request_count")
    return {**{f"total_{name}": value for name, value in of_all.items()}, "request_count": count}


def key_fields(row: Record) -> dict[str, Any]:
    """Which key a row is about."""
    return {"key_id": str(row["key_id"]), "key_name": row["key_name"], "key_prefix": row["key_prefix"]}


async def _summary(connection: Connection, chosen: Selection) -> tuple[Record, list[Record], list[Record]]:
    """In all, by model, by key."""
    rows = await connection.fetch(QUERIES.usage_summary, *chosen.arguments(), KEYS_SHOWN + 1)
    (whole,) = [row for row in rows if row["level"] == IN_ALL]
    models, keys = ([row for row in rows if row["level"] == level] for level in (BY_MODEL, BY_KEY))
    return whole, models, keys


def _model_row(row: Record) -> dict[str, Any]:
    slug = row["model_slug"]
    return {"model": slug, "model_slug": slug, "provider_slug": row["provider_slug"], **sums(row)}


def event_row(row: Record) -> dict[str, Any]:
    """One usage event as callers see it."""
    return {
        "id": str(row["id"]),
        "key_id": str(row["key_id"]),
        "user_id": str(row["account_id"]),
        "turn_id": str(row["turn_id"]) if row["turn_id"] else None,
        "step": row["step"],
        "end_user_id": row["end_user_id"],
        "model": row["model_slug"],
        "model_slug": row["model_slug"],
        "provider_slug": row["provider_slug"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cache_read_input_tokens": row["cache_read_tokens"],
        "cache_creation_input_tokens": row["cache_write_tokens"],
        "cost_micros": nanos_to_micros(row["cost_nanos"]),
        "cost_nanos": row["cost_nanos"],
        "price_version": row["price_version"],
        "estimated": row["estimated"],
        "latency_ms": row["latency_ms"],
        "status": row["status"],
        "created_at": row["created_at_ms"],
    }
