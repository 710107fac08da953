"""Prices as TOML: lines of a catalogue row, and the operator's file that `qlaud prices apply` writes."""

import datetime as dt
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.providers.price_rows import PriceRow, ScheduledRow

HEAD = "# Written by `qlaud prices apply`; laid over the packaged prices (docs/howto/prices.md).\n"
NEW_LINE = "\n"
FIRST = "above_input_tokens"
"""What a tier begins with."""


@dataclass(frozen=True, slots=True)
class Theirs:
    """A price of another table, with where and when it was read."""

    row: PriceRow
    source: str
    checked: dt.date
    scheduled: tuple[ScheduledRow, ...] = ()
    covers: frozenset[str] = frozenset()
    """What of a price the other table knows; all when empty."""


def price_lines(theirs: Theirs) -> list[str]:
    """The lines of a row that make up its price."""
    data = _data(theirs.row)
    lines = [f"{name} = {_spell(data[name])}" for name in PriceRow.__struct_fields__ if name in data]
    if theirs.scheduled:
        steps = [f"    {_spell(_data(row))},\n" for row in theirs.scheduled]
        lines.append(f"scheduled = [\n{''.join(steps)}]")
    return [*lines, f"source = {_spell(theirs.source)}", f"checked = {theirs.checked.isoformat()}"]


def operator_file(provider: str, present: str, rows: Mapping[str, Theirs]) -> str:
    """The text of an operator's file with these prices in it, by model; others of its rows stay."""
    merged = {
        entry["slug"]: [f"{name} = {_spell(value)}" for name, value in entry.items() if name != "slug"]
        for entry in tomllib.loads(present).get("models", ())
    }
    for slug, theirs in rows.items():
        none = [] if theirs.row.tiers else ["tiers = []"]  # those of the file below do not stay
        merged[slug] = [*price_lines(theirs), *none]
    blocks = (["\n[[models]]", f"slug = {_spell(slug)}", *lines, ""] for slug, lines in merged.items())
    return f"{HEAD}slug = {_spell(provider)}\n{''.join(map(NEW_LINE.join, blocks))}"


def _data(row: msgspec.Struct) -> dict[str, Any]:
    """What a row says, without what it leaves out."""
    data: dict[str, Any] = msgspec.to_builtins(row, builtin_types=(dt.date,))
    return _said(data)


def _said(data: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _said(value) if isinstance(value, dict) else value for name, value in data.items()}
    return {
        name: [_said(item) if isinstance(item, dict) else item for item in value]
        if isinstance(value, list | tuple)
        else value
        for name, value in kept.items()
        if value is not None and value not in ([], (), {}) and not (name == "per_call" and value == 0)
    }


def _spell(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"{value:_}"
        case dt.date():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(map(_spell, value))}]"
        case dict():
            value = {name: value[name] for name in sorted(value, key=FIRST.__ne__)}
            return f"{{ {', '.join(f'{name} = {_spell(item)}' for name, item in value.items())} }}"
    return msgspec.json.encode(str(value)).decode()
