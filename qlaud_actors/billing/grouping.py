"""Usage by what the caller names (`GET /v1/usage?group_by=`), page by page, with the totals of all groups."""

import base64
import binascii
import contextlib
from typing import Any

import msgspec

from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.billing.report import Selection, key_fields, reading, sums, totals
from qlaud_actors.db.pool import Pool, Record
from qlaud_actors.errors import InvalidRequest

Place = tuple[str | None, str | None, str | None, str | None, str | None, str | None]
"""Where a group stands in the order of all: day, hour, key, model, provider, end user."""

DIMENSIONS = ("day", "hour", "key", "model", "provider", "end_user")
MAX_CURSOR = 4_096
MAX_GROUPS = 10_000


def parse_dimensions(text: str) -> tuple[str, ...]:
    """`key,day` as its parts. Raises InvalidRequest."""
    named = tuple(text.split(","))
    if len(set(named)) != len(named) or not set(named) <= set(DIMENSIONS):
        raise InvalidRequest(f"`group_by` must be one or several of {', '.join(DIMENSIONS)}.")
    return named


def parse_cursor(text: str) -> Place:
    """The place that a page's `next_after` names. Raises InvalidRequest."""
    place: Place | None = None
    with contextlib.suppress(binascii.Error, ValueError):
        place = msgspec.json.decode(_unpacked(text), type=Place)
    if place is not None and not any("\0" in (part or "") for part in place):
        return place
    raise InvalidRequest("`after` must be the `next_after` of a page.")


async def grouped_usage(
    pool: Pool, chosen: Selection, dimensions: tuple[str, ...], after: Place | None, limit: int
) -> dict[str, Any]:
    """One page of groups in the order of their names, oldest first; totals are of all groups."""
    async with reading(pool) as connection:
        rows = await connection.fetch(
            QUERIES.usage_groups, *chosen.arguments(), list(dimensions), after, limit + 1
        )
    found = [row for row in rows if row["place"] is not None]
    shown = found[:limit]
    first = rows[0]
    whole = {name.removeprefix("total_"): value for name, value in first.items() if name.startswith("total_")}
    return {
        "from_ms": chosen.span.from_ms,
        "to_ms": chosen.span.to_ms,
        "group_by": list(dimensions),
        **totals(whole),
        "group_count": first["total_groups"],
        "groups": [_group(row, dimensions) for row in shown],
        "has_more": len(found) > limit,
        "next_after": _cursor(shown[-1]["place"]) if len(found) > limit else None,
    }


def _group(row: Record, dimensions: tuple[str, ...]) -> dict[str, Any]:
    at = dict(zip(DIMENSIONS, row["place"], strict=True))
    fields: dict[str, Any] = {}
    for name in dimensions:
        match name:
            case "key":
                fields |= key_fields(row)
            case "model":
                fields |= {"model": at["model"], "model_slug": at["model"]}
            case "provider":
                fields["provider_slug"] = at["provider"]
            case "end_user":
                fields["end_user_id"] = at["end_user"]
            case _:
                fields[name] = at[name]
    return {**fields, **sums(row)}


def _cursor(place: list[str | None]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _unpacked(text: str) -> str:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
