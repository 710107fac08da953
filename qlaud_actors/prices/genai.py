"""Reads `genai-prices` (MIT, github.com/pydantic/genai-prices): the installed package, an unpacked wheel,
or the repository's `data.json`. Nothing but its data is imported, so nothing is fetched.

Prices that change with the hour are taken at their dearest, because a cap must hold at any hour.
"""

import datetime as dt
import json
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from qlaud_actors.providers.price_rows import PriceRow, ScheduledRow

PACKAGE = "genai_prices"
BUCKETS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
PICOS_PER_USD_PER_MTOK = 1_000_000

Figures: TypeAlias = dict[str, Any]
"""`input_mtok` and so on: a number of USD, or `{base, tiers: [{start, price}]}`."""


class UnreadableTable(Exception):
    """There is no price table, or not in a known form; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One price of a model: from a day on, between two hours (UTC), or always."""

    figures: Figures
    begins: dt.date | None = None
    hours: tuple[dt.time, dt.time] | None = None

    def active(self, at: dt.datetime) -> bool:
        """Whether its condition holds."""
        if self.begins is not None:
            return at.date() >= self.begins
        if self.hours is None:
            return True
        start, end = self.hours
        if end < start:
            return at.time() >= start or at.time() < end
        return start <= at.time() < end

    def plain(self) -> dict[str, Any]:
        """As the repository's JSON has it."""
        constraint: dict[str, Any] | None = {"start_date": self.begins} if self.begins else None
        if self.hours is not None:
            constraint = {"start_time": self.hours[0], "end_time": self.hours[1]}
        return {"prices": self.figures} | ({"constraint": constraint} if constraint else {})


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the table. Of several entries whose conditions hold, the last one counts."""

    entries: tuple[Entry, ...]
    batch: tuple[Entry, ...]

    def row(self, day: dt.date) -> PriceRow:
        """Its price on a day. Raises UnreadableTable when a figure is no whole number of pico-USD."""
        price, tiers = _dearest(self.entries, day)
        free = {"input": 0, "output": 0}  # of what is billed in other units alone
        fields: dict[str, Any] = {"price": {**free, **price}, "tiers": tiers}
        if batch := [entry for entry in self.batch if entry.begins is None or entry.begins <= day]:
            rates, steps = _dearest(batch, day)
            fields["batch"] = {**rates, "tiers": steps} if {"input", "output"} <= rates.keys() else None
        try:
            return msgspec.convert(fields, PriceRow)
        except msgspec.ValidationError as error:
            raise UnreadableTable(str(error)) from None

    def scheduled(self, day: dt.date, source: str) -> tuple[ScheduledRow, ...]:
        """Its prices that begin after a day."""
        days = sorted({entry.begins for entry in self.entries if entry.begins and entry.begins > day})
        rows = [(begins, self.row(begins)) for begins in days]
        return tuple(
            ScheduledRow(begins=begins, price=row.price, tiers=row.tiers, source=source, checked=day)
            for begins, row in rows
        )


@dataclass(frozen=True, slots=True)
class GenaiTable:
    """A release of genai-prices."""

    version: str
    models: Mapping[tuple[str, str], Listed]
    """By provider and id, in its own words."""


def installed() -> GenaiTable:
    """The installed package. Raises UnreadableTable when there is none."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UnreadableTable("genai-prices is not installed: `pip install genai-prices`, or name its data")
    return _imported(Path(spec.origin).parent, metadata.version("genai-prices"))


def unpacked(folder: Path) -> GenaiTable:
    """A wheel that was unpacked into a folder. Raises UnreadableTable."""
    info = next(folder.glob(f"{PACKAGE}-*.dist-info"), None)
    if info is None or not (folder / PACKAGE / "data.py").is_file():
        raise UnreadableTable(f"{folder} holds no unpacked wheel of genai-prices")
    return _imported(folder / PACKAGE, info.name.removesuffix(".dist-info").rpartition("-")[2])


def from_json(path: Path) -> GenaiTable:
    """The repository's `data.json`, or an extract of it. Raises UnreadableTable."""
    try:
        providers = json.loads(path.read_text("utf-8"), parse_float=Decimal, parse_int=Decimal)
        return GenaiTable(path.name, _models(providers))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableTable(f"{path} is not in the form of genai-prices: {error!r}") from None


def _imported(package: Path, version: str) -> GenaiTable:
    # A bare stand-in for the package's __init__, which would import an HTTP client.
    stand_in = types.ModuleType(PACKAGE)
    stand_in.__path__ = [str(package)]
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == PACKAGE}
    for name in before:
        del sys.modules[name]
    sys.modules[PACKAGE] = stand_in
    try:
        providers = import_module(f"{PACKAGE}.data").providers
    except ImportError as error:
        raise UnreadableTable(f"genai-prices cannot be imported: {error}") from None
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(before)
    return GenaiTable(version, _models(_plain(providers)))


def _plain(value: Any) -> Any:
    """The package's objects as its JSON would have them."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if hasattr(value, "__dict__"):
        return {name: _plain(item) for name, item in vars(value).items() if item is not None}
    return value


def _models(providers: Iterable[dict[str, Any]]) -> dict[tuple[str, str], Listed]:
    return {
        (provider["id"], model["id"]): Listed(
            tuple(_entries(model["prices"])),
            tuple(
                _entry(variant)
                for variant in model.get("price_variants") or ()
                if variant["when"] == {"processing": "batch"}
            ),
        )
        for provider in providers
        for model in provider["models"]
    }


def _entries(prices: Any) -> list[Entry]:
    return [_entry(one) for one in prices] if isinstance(prices, list) else [Entry(prices)]


def _entry(conditional: dict[str, Any]) -> Entry:
    constraint = conditional.get("constraint") or {}
    begins, hours = constraint.get("start_date"), None
    if "start_time" in constraint:
        hours = (_utc(constraint["start_time"]), _utc(constraint["end_time"]))
    if isinstance(begins, str):
        begins = dt.date.fromisoformat(begins)
    return Entry(conditional["prices"], begins, hours)


def _utc(time: dt.time | str) -> dt.time:
    parsed = dt.time.fromisoformat(time) if isinstance(time, str) else time
    if parsed.tzinfo is None:
        return parsed
    return dt.datetime.combine(dt.date(2026, 1, 1), parsed).astimezone(dt.UTC).time()


def _dearest(entries: Iterable[Entry], day: dt.date) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Pico-USD per token, the dearest of the day, and the same for each tier of input length."""
    known = list(entries)
    rates: dict[str, int] = {}
    tiers: dict[int, dict[str, int]] = {}
    for hour in range(24):
        at = dt.datetime.combine(day, dt.time(hour, 30))
        figures = next((entry for entry in reversed(known) if entry.active(at)), known[0]).figures
        for bucket, name in BUCKETS.items():
            value = figures.get(name)
            if value is None:
                continue
            tiered = value if isinstance(value, dict) else {"base": value, "tiers": ()}
            _raise_to(rates, bucket, tiered["base"])
            for tier in tiered["tiers"]:
                _raise_to(tiers.setdefault(int(tier["start"]), {}), bucket, tier["price"])
    steps, reached = [], rates
    for start in sorted(tiers):
        reached = {**reached, **tiers[start]}  # what a tier does not name costs what it cost below
        steps.append({"above_input_tokens": start, **reached})
    return rates, steps


def _raise_to(rates: dict[str, int], bucket: str, usd_per_mtok: Decimal) -> None:
    picos = usd_per_mtok * PICOS_PER_USD_PER_MTOK
    if picos != int(picos):
        raise UnreadableTable(f"{usd_per_mtok} USD per million tokens is no whole number of pico-USD")
    rates[bucket] = max(rates.get(bucket, 0), int(picos))
