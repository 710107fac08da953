"""Taking another table's prices over: into the operator's files, or as overrides that begin in a minute."""

import tomllib
import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from qlaud_actors.db.pool import Pool
from qlaud_actors.prices import store
from qlaud_actors.prices.compare import Difference
from qlaud_actors.prices.model import DEFAULT_LEAD_SECONDS, Change
from qlaud_actors.prices.spelling import Theirs, operator_file
from qlaud_actors.providers.book import PriceBook
from qlaud_actors.providers.catalog import Catalog, CatalogError
from qlaud_actors.providers.price_rows import PriceRow
from qlaud_actors.providers.pricing import in_force


def write_files(found: Iterable[Difference], folder: Path) -> list[Path]:
    """Write `prices-<provider>.toml` for each provider; all of them, or none when one would not be valid.

    Running processes read them at their next start. Raises CatalogError.
    """
    by_provider: dict[str, dict[str, Theirs]] = defaultdict(dict)
    for one in found:
        by_provider[one.model.provider.slug][one.model.slug] = one.theirs
    before: dict[Path, str | None] = {}
    try:
        for provider, rows in by_provider.items():
            path = folder / f"prices-{provider}.toml"
            before[path] = present = path.read_text("utf-8") if path.exists() else None
            _replace(path, operator_file(provider, present or "", rows))
        Catalog.load({}, directory=folder)
    except (CatalogError, tomllib.TOMLDecodeError, OSError) as error:
        for path, text in before.items():
            _replace(path, text)
        raise CatalogError(f"nothing was changed: {error}") from error
    return list(before)


async def set_overrides(
    found: Iterable[Difference], pool: Pool, book: PriceBook, made_by: uuid.UUID, reason: str
) -> int:
    """Set what differs from in a minute on, and what the other table announces from its day on, all in one
    transaction; how many overrides that made.
    """
    begins_ms = book.clock() + int(DEFAULT_LEAD_SECONDS * 1000)
    steps = [(one, *step) for one in found for step in one.steps(begins_ms)]
    async with pool.acquire() as connection, connection.transaction():
        for one, at_ms, figures in steps:
            timeline = book.timeline(one.model.provider.slug, one.model.slug)
            assert timeline is not None
            before, row = in_force(timeline, at_ms).price, msgspec.convert(figures, PriceRow)
            change = Change(one.model, at_ms, row, before, one.theirs.source, reason, made_by)
            await store.add(connection, change)
    return len(steps)


def _replace(path: Path, text: str | None) -> None:
    """The whole text or the one before, whatever happens in between; None removes the file."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    draft = path.with_suffix(".new")
    draft.write_text(text, "utf-8")
    draft.replace(path)
