"""Compares the catalogue's prices with a release of `genai-prices` (MIT), or takes them over.

    pip download genai-prices --no-deps -d /tmp/gp && unzip -d /tmp/gp /tmp/gp/genai_prices-*.whl
    scripts/build_prices.py --package /tmp/gp --check          # differences on stdout, exit status 1
    scripts/build_prices.py --package /tmp/gp --write          # the same, and the files are changed

Only rows whose `source` reads `genai-prices <version>: <provider>/<model>` take part. Prices that
change with the hour are taken at their dearest, because a cap must hold at any hour; `--date` asks for
the prices of another day (announced changes show up there). Nothing but the data module of the package
is imported; it needs pydantic, which the development environment has.
"""

import argparse
import datetime as dt
import re
import sys
import tomllib
import types
from collections.abc import Iterable
from decimal import Decimal
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

CATALOG = Path(__file__).parent.parent / "qlaud_actors" / "providers" / "catalog"
SOURCE = re.compile(r"genai-prices (\S+): ([^/]+)/([^,]+)(.*)")
BUCKETS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
PICOS_PER_USD_PER_MTOK = 1_000_000
UNITS = {
    "image_input": ("input_image_mtok",),
    "image_output": ("output_image_mtok", "output_mtok"),
    "audio_input": ("input_audio_mtok",),
    "audio_output": ("output_audio_mtok", "output_mtok"),
    "characters": ("input_mchars",),
    "audio_ms": ("input_audio_hours",),
}
"""Where the price of a unit is: the first field that a model has. A row says which units it is billed in."""

MS_PER_HOUR = 3_600_000

Rates = dict[str, int]
Tiers = dict[int, Rates]


def main() -> int:
    """Compare every row; the exit status is 1 when a row differs and was not changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--package", type=Path, help="directory that holds genai_prices (default: installed)")
    parser.add_argument("--date", type=dt.date.fromisoformat, default=dt.datetime.now(dt.UTC).date())
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="only report")
    mode.add_argument("--write", action="store_true", help="change the files")
    options = parser.parse_args()
    data, version = load(options.package)
    differing = 0
    for path in sorted(CATALOG.glob("*.toml")):
        text = path.read_text("utf-8")
        updated = update(path.name, text, data, version, options.date)
        differing += updated != text
        if options.write:
            path.write_text(updated, "utf-8")
    return 1 if differing and options.check else 0


def load(package: Path | None) -> tuple[dict[tuple[str, str], Any], str]:
    """The package's models by provider and id, and its version."""
    if package is not None:
        # A bare stand-in for the package's __init__, which would import an HTTP client.
        stand_in = types.ModuleType("genai_prices")
        stand_in.__path__ = [str(package / "genai_prices")]
        sys.modules["genai_prices"] = stand_in
        sys.path.insert(0, str(package))
    providers = import_module("genai_prices.data").providers
    models = {(provider.id, model.id): model for provider in providers for model in provider.models}
    return models, metadata.version("genai-prices")


def update(name: str, text: str, data: dict[tuple[str, str], Any], version: str, date: dt.date) -> str:
    """The file's text with the package's prices in it; each difference is printed."""
    head, *rows = text.split("[[models]]\n")
    updated = []
    for row in rows:
        entry = tomllib.loads(row)
        found = SOURCE.fullmatch(entry["source"])
        model = data.get((found[2], found[3])) if found else None
        if found and model is None:
            print(f"{name}: {entry['slug']}: {found[2]}/{found[3]} is not in genai-prices {version}")
        if found and model:
            source = f"genai-prices {version}: {found[2]}/{found[3]}{found[4]}"
            rates, tiers = prices(model, date)
            if (rates, tiers) != stored(entry):
                print(f"{name}: {entry['slug']}: {stored(entry)} became {(rates, tiers)}")
                row = rewrite(row, rates, tiers, source, date)  # noqa: PLW2901 - the row's new text
            units = unit_prices(model, date, entry.get("units", {}))
            if units != entry.get("units", {}):
                print(f"{name}: {entry['slug']}: {entry['units']} became {units}")
                row = rewrite_units(row, units, source, date)  # noqa: PLW2901 - the row's new text
        updated.append(row)
    return "[[models]]\n".join([head, *updated])


def stored(entry: dict[str, Any]) -> tuple[Rates, Tiers]:
    """The prices of a row in the form of `prices`."""
    tiers = [dict(tier) for tier in entry.get("tiers", ())]
    return entry["price"], {tier.pop("above_input_tokens"): tier for tier in tiers}


def prices(model: Any, date: dt.date) -> tuple[Rates, Tiers]:
    """Pico-USD per token, the dearest of the day, and the same for each tier of input length."""
    rates: Rates = {}
    tiers: Tiers = {}
    for hour in range(24):
        price = model.get_prices(dt.datetime.combine(date, dt.time(hour, 30), dt.UTC))
        for bucket, field in BUCKETS.items():
            value = vars(price).get(field)
            if value is None:
                continue
            _raise_to(rates, bucket, getattr(value, "base", value))
            for tier in getattr(value, "tiers", ()):
                _raise_to(tiers.setdefault(tier.start, {}), bucket, tier.price)
    return {"input": 0, "output": 0, **rates}, dict(sorted(tiers.items()))


def unit_prices(model: Any, date: dt.date, names: Iterable[str]) -> Rates:
    """Pico-USD of each of these units at noon."""
    price = vars(model.get_prices(dt.datetime.combine(date, dt.time(12), dt.UTC)))
    found: Rates = {}
    for name in names:
        usd = next((price[field] for field in UNITS[name] if price.get(field) is not None), None)
        if usd is not None:  # for a million units, or for an hour
            _raise_to(found, name, usd * 1_000_000 / MS_PER_HOUR if name == "audio_ms" else usd)
    return found


def _raise_to(rates: Rates, bucket: str, usd_per_mtok: Decimal) -> None:
    picos = usd_per_mtok * PICOS_PER_USD_PER_MTOK
    if picos != int(picos):
        raise ValueError(f"{usd_per_mtok} USD per million tokens is no whole number of pico-USD")
    rates[bucket] = max(rates.get(bucket, 0), int(picos))


def rewrite(row: str, rates: Rates, tiers: Tiers, source: str, date: dt.date) -> str:
    """A row's text with another price, which stands on one line, as its tiers do."""
    lines = [f"price = {{ {spell(rates)} }}"]
    if tiers:
        steps = [
            f"{{ above_input_tokens = {start:_}, {spell(tier_rates)} }}"
            for start, tier_rates in tiers.items()
        ]
        lines.append(f"tiers = [{', '.join(steps)}]")
    row = re.sub(r"^tiers = .*\n", "", row, flags=re.MULTILINE)
    row = re.sub(r"^price = .*$", "\n".join(lines), row, flags=re.MULTILINE)
    return dated(row, source, date)


def rewrite_units(row: str, units: Rates, source: str, date: dt.date) -> str:
    """A row's text with other prices of its units, which stand on one line."""
    spelled = ", ".join(f"{name} = {picos:_}" for name, picos in units.items())
    row = re.sub(r"^units = .*$", f"units = {{ {spelled} }}", row, flags=re.MULTILINE)
    return dated(row, source, date)


def dated(row: str, source: str, date: dt.date) -> str:
    """A row's text with where and when its price was read."""
    row = re.sub(r"^source = .*$", f'source = "{source}"', row, flags=re.MULTILINE)
    return re.sub(r"^checked = .*$", f"checked = {date.isoformat()}", row, flags=re.MULTILINE)


def spell(rates: Rates) -> str:
    """Rates as TOML."""
    return ", ".join(f"{bucket} = {rates[bucket]:_}" for bucket in BUCKETS if bucket in rates)


if __name__ == "__main__":
    sys.exit(main())
