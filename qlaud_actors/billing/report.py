"""Usage reports: plain sums over the usage rows, so that they always agree with them."""

import uuid
from dataclasses import dataclass
from typing import Any

from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.db.pool import Record, Rows
from qlaud_actors.money import nanos_to_micros

EVENTS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Span:
    """From (inclusive) and to (exclusive), in ms since the epoch."""

    from_ms: int
    to_ms: int


async def account_usage(rows: Rows, account_id: uuid.UUID, span: Span) -> dict[str, Any]:
    """What an account used, by key and by model (`GET /v1/usage`)."""
    keys = await rows.fetch(QUERIES.usage_by_key, account_id, span.from_ms, span.to_ms)
    models = await rows.fetch(QUERIES.usage_by_model, account_id, None, span.from_ms, span.to_ms)
    return {
        "from_ms": span.from_ms,
        "to_ms": span.to_ms,
        "total_cost_micros": nanos_to_micros(sum(row["cost_nanos"] for row in keys)),
        "total_input_tokens": sum(row["input_tokens"] for row in keys),
        "total_output_tokens": sum(row["output_tokens"] for row in keys),
        "request_count": sum(row["request_count"] for row in keys),
        "by_key": [_key_row(row) for row in keys],
        "by_model": [_model_row(row) for row in models],
    }


async def key_usage(rows: Rows, account_id: uuid.UUID, key_id: uuid.UUID, span: Span) -> dict[str, Any]:
    """What one key used, by model, with its newest rows (`GET /v1/keys/:id/usage`)."""
    models = await rows.fetch(QUERIES.usage_by_model, account_id, key_id, span.from_ms, span.to_ms)
    events = await rows.fetch(QUERIES.usage_events_of_key, key_id, span.from_ms, span.to_ms, EVENTS_SHOWN)
    return {
        "from_ms": span.from_ms,
        "to_ms": span.to_ms,
        "cost_micros": nanos_to_micros(sum(row["cost_nanos"] for row in models)),
        "input_tokens": sum(row["input_tokens"] for row in models),
        "output_tokens": sum(row["output_tokens"] for row in models),
        "request_count": sum(row["request_count"] for row in models),
        "by_model": [_model_row(row) for row in models],
        "events": [event_row(row) for row in events],
    }


def _sums(row: Record) -> dict[str, Any]:
    return {
        "cost_micros": nanos_to_micros(row["cost_nanos"]),
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "request_count": row["request_count"],
    }


def _key_row(row: Record) -> dict[str, Any]:
    return {
        "key_id": str(row["key_id"]),
        "key_name": row["key_name"],
        "key_prefix": row["key_prefix"],
        **_sums(row),
    }


def _model_row(row: Record) -> dict[str, Any]:
    slug = row["model_slug"]
    return {"model": slug, "model_slug": slug, "provider_slug": row["provider_slug"], **_sums(row)}


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
        "price_version": row["price_version"],
        "estimated": row["estimated"],
        "latency_ms": row["latency_ms"],
        "status": row["status"],
        "created_at": row["created_at_ms"],
    }
