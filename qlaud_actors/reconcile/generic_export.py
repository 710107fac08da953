"""Any provider: a CSV with a row per day and model, whose columns may have names of its own."""

from collections.abc import Callable, Mapping
from typing import Any

from qlaud_actors.reconcile.exports import BUCKETS, COST, Export, ExportError, day_of, picos, whole_number

COLUMNS = {
    "day": "day",
    "model": "model",
    "requests": "requests",
    "input_total": "input_total_tokens",
    **{bucket: f"{bucket}_tokens" for bucket in BUCKETS},
    "cost_usd": "cost_usd",
}
"""What a column means, and how it is called unless the caller says otherwise. `input_total` includes what
was read from the cache or written to it; it stands in for `input`."""

CACHED = ("cache_read", "cache_write_5m", "cache_write_1h")


def parse_mapping(text: str) -> dict[str, str]:
    """`day=date,cost_usd=spend` over the usual names. Raises ExportError."""
    names = dict(COLUMNS)
    for part in filter(None, text.split(",")):
        meaning, equals, column = part.partition("=")
        if meaning not in COLUMNS or not equals or not column:
            raise ExportError(f"the mapping {part!r} is not one of {', '.join(COLUMNS)}, =, and a column")
        names[meaning] = column
    return names


def reader(names: Mapping[str, str]) -> Callable[[Any], Export]:
    """Reads CSV files whose columns are called so."""

    def read(content: Any) -> Export:
        export = Export()
        for row in content:
            if not isinstance(row, dict) or names["day"] not in row:
                raise ExportError(f"has no column {names['day']!r}")
            export.add(day_of(row[names["day"]]), row.get(names["model"]) or None, _figures(row, names))
        return export

    return read


def _figures(row: Mapping[str, str], names: Mapping[str, str]) -> dict[str, int]:
    given = {meaning: row[column] for meaning, column in names.items() if row.get(column, "") != ""}
    figures = {name: whole_number(given[name]) for name in (*BUCKETS, "requests") if name in given}
    if "input_total" in given and "input" not in given:
        figures["input"] = whole_number(given["input_total"]) - sum(figures.get(name, 0) for name in CACHED)
    if "cost_usd" in given:
        figures[COST] = picos(given["cost_usd"])
    if not figures:
        raise ExportError("has a row without any figure: name its columns with --map")
    return figures
