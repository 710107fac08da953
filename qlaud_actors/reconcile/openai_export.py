"""OpenAI: answers of the usage API and of the costs API, and the CSV files of its dashboard.

https://platform.openai.com/docs/api-reference/usage: `input_tokens` includes what was read from the cache
and written to it. Costs name their model only where they are grouped by line item (`<model>, cached input`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from qlaud_actors.reconcile.exports import (
    COST,
    Export,
    ExportError,
    buckets,
    day_after,
    day_of,
    is_last,
    picos,
    whole_number,
)


def read(content: Any) -> Export:
    """Pages of either API, or either CSV."""
    export = Export()
    csv = isinstance(content, list) and not any("data" in row for row in content)
    if not csv:
        export.whole = is_last(content)
    for start, end, results in _rows(content) if csv else _buckets(content):
        export.cover(day_of(start), day_after(end))
        for result in results:
            _add(export, start, result)
    return export


def _buckets(pages: Any) -> Iterable[tuple[Any, Any, list[Mapping[str, Any]]]]:
    for bucket in buckets(pages):
        yield bucket["start_time"], bucket["end_time"], bucket["results"]


def _rows(rows: list[Mapping[str, Any]]) -> Iterable[tuple[Any, Any, list[Mapping[str, Any]]]]:
    """A row with a time and nothing else says that nothing was used."""
    for row in rows:
        if not {"start_time", "end_time"} <= row.keys() or not {"input_tokens", "amount_value"} & row.keys():
            raise ExportError("has no column start_time, end_time, or neither input_tokens nor amount_value")
        used = any(row.get(name) for name in ("input_tokens", "amount_value", "num_model_requests"))
        yield row["start_time"], row["end_time"], [row] if used else []


def _add(export: Export, start: Any, result: Mapping[str, Any]) -> None:
    if "amount" in result or "amount_value" in result:
        amount = result.get("amount") or {name: result[f"amount_{name}"] for name in ("value", "currency")}
        if amount["currency"] != "usd":
            raise ExportError(f"an amount is in {amount['currency']}, not in usd")
        model = _model_of(result.get("line_item") or "")
        export.add(day_of(start), model, {COST: picos(amount["value"])})
        return
    total = whole_number(result["input_tokens"])
    read, written = (
        whole_number(result.get(name) or 0) for name in ("input_cached_tokens", "input_cache_write_tokens")
    )
    figures = {
        "requests": whole_number(result.get("num_model_requests") or 0),
        "input": total - read - written,
        "cache_read": read,
        "cache_write_5m": written,
        "output": whole_number(result.get("output_tokens") or 0),  # embeddings have none
    }
    export.add(day_of(start), result.get("model") or None, figures)


def _model_of(line_item: str) -> str | None:
    """`priority | gpt-5.4 text, cached input` is of gpt-5.4; what names no model keeps its own words."""
    item = line_item.rpartition("|")[2].strip()
    name, comma, _ = item.partition(",")
    return (name.split()[0] if comma and name.split() else item) or None
