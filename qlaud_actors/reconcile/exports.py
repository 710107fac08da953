"""A provider's own account of what was used, read from the file that it exports.

A line is one day (UTC) and model; what the file does not say is absent, never zero. Tokens are in our
disjoint buckets, money in pico-USD.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

BUCKETS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
COST = "cost_picos"
PICOS_PER_USD = 10**12
PICOS_PER_CENT = 10**10

MAX_BYTES = 256 * 1024 * 1024
ONE_DAY = timedelta(days=1)


class ExportError(Exception):
    """The file is not what it is taken for; the message says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a provider says of one model on one day; no model when it adds up all of them."""

    day: date
    model: str | None
    figures: Mapping[str, int]
    """Tokens by bucket, `requests`, `cost_picos`: those that the file has."""


@dataclass(slots=True)
class Export:
    """Everything that files say, with the days that they speak of (`until` is the first one behind)."""

    lines: list[Line] = field(default_factory=list)
    since: date | None = None
    until: date | None = None
    whole: bool = True
    """False for a page whose provider says that another follows."""

    def add(self, day: date, model: str | None, figures: Mapping[str, int]) -> None:
        """One more line."""
        self.lines.append(Line(day, model, figures))
        self.cover(day, day + ONE_DAY)

    def cover(self, since: date, until: date) -> None:
        """These days are spoken of, if only to say that nothing was used."""
        self.since = min(since, self.since or since)
        self.until = max(until, self.until or until)


Table = Sequence[Mapping[str, str]]
"""A CSV: its rows by the names of the columns."""


def load(path: Path) -> Any:
    """A file as JSON values (numbers with a point are Decimal), or as a `Table`. Raises ExportError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ExportError(f"{path} is larger than {MAX_BYTES // 1024 // 1024} MB")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read ({error})") from error
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return json.loads(text, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise ExportError(f"{path} is not valid JSON ({error})") from error
    rows = csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in text.partition("\n")[0] else ",")
    try:
        return [{name: value or "" for name, value in row.items() if name} for row in rows]
    except csv.Error as error:
        raise ExportError(f"{path} is not valid CSV ({error})") from error


def buckets(pages: Any) -> list[Mapping[str, Any]]:
    """The time buckets of one page, or of a list of pages, as both vendors' APIs answer."""
    found: list[Mapping[str, Any]] = []
    for page in pages if isinstance(pages, list) else [pages]:
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise ExportError("a page of the API has a list `data`")
        found.extend(page["data"])
    return found


def is_last(pages: Any) -> bool:
    """Whether the pages reach the end of what was asked for."""
    return not (pages if isinstance(pages, list) else [pages])[-1].get("has_more")


def read_with(
    reader: Callable[[Any], Export], paths: Sequence[Path], problem: str = "is not an export of this provider"
) -> Export:
    """All files, each through `reader`, as one. Raises ExportError with the name of the file."""
    whole = Export(whole=False)
    for path in paths:
        try:
            part = reader(load(path))
        except ExportError as error:
            raise ExportError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation, IndexError) as error:
            raise ExportError(f"{path} {problem} ({type(error).__name__}: {error})") from error
        whole.lines += part.lines
        if part.since and part.until:
            whole.cover(part.since, part.until)
        whole.whole = whole.whole or part.whole
    if not whole.whole:
        raise ExportError("the last page says `has_more`: fetch the rest of the report as well")
    return whole


def picos(amount: Any, unit: int = PICOS_PER_USD) -> int:
    """Money as a vendor writes it, exact; digits below a pico-USD are rounded."""
    value = Decimal(str(amount).strip())
    if not value.is_finite():
        raise InvalidOperation(f"not an amount: {amount!r}")
    return int((value * unit).to_integral_value())


def whole_number(text: Any) -> int:
    """A count; an empty cell is none."""
    value = Decimal(str(text).strip() or "0")
    if value != int(value) or value < 0:
        raise ValueError(f"not a count: {text!r}")
    return int(value)


def day_of(text: Any) -> date:
    """The UTC day of a date, of an ISO 8601 time, or of seconds since the epoch."""
    if isinstance(text, int) or str(text).strip().isdigit():
        return datetime.fromtimestamp(int(text), UTC).date()
    moment = datetime.fromisoformat(str(text).strip())
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date()


def day_after(text: Any) -> date:
    """The first UTC day that a bucket with this end (exclusive) does not touch."""
    if isinstance(text, int) or str(text).strip().isdigit():
        end = datetime.fromtimestamp(int(text), UTC)
    else:
        end = datetime.fromisoformat(str(text).strip()).astimezone(UTC)
    return (end + ONE_DAY - timedelta(microseconds=1)).date()
