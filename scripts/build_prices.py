"""Compares the packaged prices with a release of `genai-prices` (MIT), or takes them over.

    scripts/build_prices.py --check                        # against the installed package; exit status 1
    pip download genai-prices --no-deps -d /tmp/gp && unzip -d /tmp/gp /tmp/gp/genai_prices-*.whl
    scripts/build_prices.py --package /tmp/gp --write      # the same, and the files are changed
    scripts/build_prices.py --package /tmp/gp --extract tests/data/genai_prices.json

Only rows whose `source` reads `genai-prices <version>: <provider>/<model>` take part. Announced changes
become `scheduled` prices, the batch API's prices `batch` (no route uses them). A price that is hard to
believe is refused (exit status 2) unless `--force`. Works offline; the package's data needs pydantic.
"""

import argparse
import datetime as dt
import json
import re
import sys
import tomllib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from qlaud_actors.prices import genai
from qlaud_actors.prices.compare import SOURCE
from qlaud_actors.prices.genai import GenaiTable
from qlaud_actors.prices.sanity import doubts
from qlaud_actors.prices.spelling import Theirs, price_lines
from qlaud_actors.providers.price_rows import PriceRow

CATALOG = Path(__file__).parent.parent / "qlaud_actors" / "providers" / "catalog"
PRICE_LINES = re.compile(
    r"^(?:price|tiers|batch|source|checked) = .*\n|^scheduled = \[\n(?: .*\n)*\]\n", re.MULTILINE
)
FROM_GENAI = {"price", "tiers", "batch", "scheduled"}


def main() -> int:
    """0 when nothing differs or it was written, 1 when rows differ, 2 when a price is hard to believe."""
    options = arguments()
    table = genai.unpacked(options.package) if options.package else genai.installed()
    if options.extract:
        options.extract.write_text(extract(table), "utf-8")
        return 0
    differing, doubtful = 0, 0
    for path in sorted(CATALOG.glob("*.toml")):
        text = path.read_text("utf-8")
        head, *rows = text.split("[[models]]\n")
        updated = []
        for row in rows:
            changed, doubted = update(path.name, row, table, options.date)
            differing += changed != row
            doubtful += bool(doubted)
            updated.append(row if doubted and not options.force else changed)
        if options.write:
            path.write_text("[[models]]\n".join([head, *updated]), "utf-8")
    if doubtful and not options.force:
        return 2
    return 1 if differing and options.check else 0


def arguments() -> argparse.Namespace:
    """What the command was called with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--package", type=Path, help="folder with an unpacked wheel (default: installed)")
    parser.add_argument("--date", type=dt.date.fromisoformat, default=dt.datetime.now(dt.UTC).date())
    parser.add_argument("--force", action="store_true", help="also prices that are hard to believe")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="only report")
    mode.add_argument("--write", action="store_true", help="change the files")
    mode.add_argument("--extract", type=Path, help="write what our rows are built from, for the tests")
    return parser.parse_args()


def update(name: str, row: str, table: GenaiTable, day: dt.date) -> tuple[str, list[str]]:
    """The row's text with the table's price, and what is doubtful about that; differences are printed."""
    entry = tomllib.loads(row)
    found = SOURCE.fullmatch(entry["source"])
    if not found:
        return row, []
    listed = table.models.get((found[2], found[3]))
    if listed is None:
        print(f"{name}: {entry['slug']}: {found[2]}/{found[3]} is not in genai-prices {table.version}")
        return row, []
    source = f"genai-prices {table.version}: {found[2]}/{found[3]}{found[4]}"
    theirs = Theirs(listed.row(day), source, day, listed.scheduled(day, source))
    now = figures(tomllib.loads("\n".join(price_lines(theirs))))
    if now == figures(entry):
        return row, []
    if {**now, "batch": None} == {**figures(entry), "batch": None}:  # what is charged stays, and so its name
        theirs = replace(theirs, source=entry["source"], checked=entry["checked"])
    old = msgspec.convert({"price": entry["price"], "tiers": entry.get("tiers", ())}, PriceRow)
    doubted = doubts(theirs.row.priced("", "", ""), old.priced("", "", ""))
    print(f"{name}: {entry['slug']}: {figures(entry)} became {price_lines(theirs)}")
    for words in doubted:
        print(f"{name}: {entry['slug']}: doubtful: {words}")
    return rewrite(row, price_lines(theirs)), doubted


def figures(entry: dict[str, Any]) -> dict[str, Any]:
    """What of a row comes from genai-prices, without where and when announced prices were read."""
    kept = {name: value for name, value in entry.items() if name in FROM_GENAI}
    announced = kept.get("scheduled", ())
    kept["scheduled"] = [
        {k: v for k, v in one.items() if k not in ("source", "checked")} for one in announced
    ]
    return kept


def rewrite(row: str, lines: list[str]) -> str:
    """A row's text with another price in the place of the one that it has."""
    first = PRICE_LINES.search(row)
    assert first is not None
    rest = PRICE_LINES.sub("", row[first.end() :])
    return row[: first.start()] + "\n".join([*lines, ""]) + rest


def extract(table: GenaiTable) -> str:
    """The part of the table that our rows are built from, in the form of the repository's data.json."""
    wanted = set()
    for path in CATALOG.glob("*.toml"):
        for row in tomllib.loads(path.read_text("utf-8")).get("models", ()):
            if found := SOURCE.fullmatch(row["source"]):
                wanted.add((found[2], found[3]))
    providers: dict[str, list[Any]] = {}
    for provider, model in sorted(wanted & table.models.keys()):
        listed = table.models[provider, model]
        variants = [{"when": {"processing": "batch"}, **entry.plain()} for entry in listed.batch]
        plain = {
            "id": model,
            "prices": [entry.plain() for entry in listed.entries],
            "price_variants": variants,
        }
        providers.setdefault(provider, []).append(plain)
    found = [{"id": provider, "models": models} for provider, models in providers.items()]
    lines = [json.dumps(provider, default=_spelled, separators=(",", ":")) for provider in found]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _spelled(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)


if __name__ == "__main__":
    sys.exit(main())
