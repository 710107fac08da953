"""Anthropic: answers of the usage and cost API, and the CSV files of its console.

https://platform.claude.com/docs/en/api/admin/usage_report and …/cost_report: amounts of the API are cents.
The console's usage has exact model names, its costs have display names and whole cents.
"""

from collections.abc import Mapping
from typing import Any

from qlaud_actors.reconcile.exports import (
    COST,
    PICOS_PER_CENT,
    Export,
    ExportError,
    buckets,
    day_after,
    day_of,
    is_last,
    picos,
    whole_number,
)

CONSOLE = {
    "input": "usage_input_tokens_no_cache",
    "output": "usage_output_tokens",
    "cache_read": "usage_input_tokens_cache_read",
    "cache_write_5m": "usage_input_tokens_cache_write_5m",
    "cache_write_1h": "usage_input_tokens_cache_write_1h",
}
"""Our buckets as the console's usage file names them."""


def read(content: Any) -> Export:
    """Pages of either API, or either CSV."""
    export = Export()
    if isinstance(content, list) and not any("data" in row for row in content):
        for row in content:
            _add_row(export, row)
        return export
    export.whole = is_last(content)
    for bucket in buckets(content):
        day = day_of(bucket["starting_at"])
        export.cover(day, day_after(bucket["ending_at"]))
        for result in bucket["results"]:
            export.add(day, result.get("model") or result.get("cost_type"), _figures(result))
    return export


def _figures(result: Mapping[str, Any]) -> dict[str, int]:
    if "amount" in result:
        if result.get("currency", "USD") != "USD":
            raise ExportError(f"an amount is in {result['currency']}, not in USD")
        return {COST: picos(result["amount"], PICOS_PER_CENT)}
    written = result.get("cache_creation") or {}
    return {
        "input": whole_number(result["uncached_input_tokens"]),
        "output": whole_number(result["output_tokens"]),
        "cache_read": whole_number(result.get("cache_read_input_tokens") or 0),
        "cache_write_5m": whole_number(written.get("ephemeral_5m_input_tokens") or 0),
        "cache_write_1h": whole_number(written.get("ephemeral_1h_input_tokens") or 0),
    }


def _add_row(export: Export, row: Mapping[str, str]) -> None:
    day = day_of(row["usage_date_utc"])
    if "cost_usd" in row:
        export.add(day, row["model"] or row.get("cost_type") or None, {COST: picos(row["cost_usd"])})
    else:
        figures = {bucket: whole_number(row[name]) for bucket, name in CONSOLE.items()}
        export.add(day, row["model_version"], figures)
