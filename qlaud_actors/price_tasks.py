"""What `qlaud prices …` does; `price_commands.py` is what it is called with."""

import asyncio
import contextlib
import datetime as dt
import json
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from qlaud_actors import log
from qlaud_actors.db.pool import Pool, open_pool
from qlaud_actors.keys import lifecycle
from qlaud_actors.localstack import with_local_stack
from qlaud_actors.masterkey import with_stored_secrets
from qlaud_actors.money import format_usd
from qlaud_actors.prices import apply, compare, genai
from qlaud_actors.prices.compare import Difference, Reference
from qlaud_actors.prices.follow import PriceFollower
from qlaud_actors.prices.model import shown
from qlaud_actors.prices.rerate import Wanted, rerate
from qlaud_actors.prices.spelling import Theirs
from qlaud_actors.program import ProgramError
from qlaud_actors.providers.catalog import Catalog, CatalogError
from qlaud_actors.providers.catalog_files import read
from qlaud_actors.providers.model import Model
from qlaud_actors.settings import Settings, SettingsError

INSTALLED = "genai-prices"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which prices a command is about; None is all."""

    provider: str | None
    model: str | None
    against: str = INSTALLED


@dataclass(frozen=True, slots=True)
class TakeOver:
    """How another table is taken over."""

    to: Literal["files", "api"]
    reason: str
    yes: bool
    force: bool


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run a task to the process's exit status; what the operator can put right ends in words."""
    try:
        sys.exit(asyncio.run(work))
    except CatalogError as error:
        raise SettingsError(str(error)) from error
    except genai.UnreadableTable as error:
        raise ProgramError(str(error)) from error


async def show(settings: Settings, choice: Choice, *, as_json: bool) -> int:
    """Print the prices in force."""
    async with _opened(settings) as (catalog, _):
        models = _models(catalog, choice)
    if as_json:
        click.echo(json.dumps([_model_object(model) for model in models], indent=2))
        return 0
    click.echo(f"{'pico-USD per token':<48} {'input':>13}  {'output':>13}  {'cached':>13}")
    for model in models:
        rates = model.price.rates
        figures = [f"{n:,}" if model.priced else "–" for n in (rates.input, rates.output, rates.cache_read)]
        name = f"{model.provider.slug}/{model.slug}"
        click.echo(f"{name:<48} {'  '.join(f'{f:>13}' for f in figures)}  {model.checked}  {model.source}")
    return 0


async def diff(settings: Settings, choice: Choice, *, as_json: bool) -> int:
    """Print what differs; 1 when something does."""
    async with _opened(settings) as (catalog, _):
        found = _differences(catalog, choice)
    if as_json:
        click.echo(json.dumps([compare.difference_object(one) for one in found], indent=2))
    else:
        click.echo(compare.table(found) or "no price differs")
    return 1 if found else 0


async def take_over(settings: Settings, choice: Choice, how: TakeOver) -> int:
    """Show what differs, ask, and take it over; 1 when prices were left out as hard to believe."""
    async with _opened(settings) as (catalog, pool):
        found = _differences(catalog, choice)
        click.echo(compare.table(found) or "no price differs")
        wanted = [one for one in found if how.force or not one.doubts]
        left_out = len(found) - len(wanted)
        if left_out:
            click.echo(f"left out as hard to believe: {left_out} (--force takes them)", err=True)
        if wanted and (how.yes or click.confirm(f"Take {len(wanted)} prices over?", err=True)):
            if how.to == "files":
                _write_files(settings, wanted)
            else:
                await _set_overrides(settings, wanted, catalog, pool, how.reason)
    return 1 if left_out else 0


async def rate_anew(settings: Settings, wanted: Wanted, *, dry_run: bool) -> int:
    """Rate usage anew and print what came of it."""
    async with _opened(settings) as (catalog, pool):
        if pool is None:
            raise ProgramError("DATABASE_URL is not set, and no `qlaud up` runs here")
        totals = await rerate(pool, catalog.prices, wanted, dry_run=dry_run)
    for outcome, count in sorted(totals.rows.items()):
        click.echo(f"{outcome.replace('_', ' '):<16} {count:>12,}")
    click.echo(f"{'difference':<16} {format_usd(totals.difference_nanos):>12}")
    if not dry_run:
        click.echo(f"{'charged':<16} {format_usd(totals.charged_nanos):>12}")
    return 0


def _write_files(settings: Settings, wanted: list[Difference]) -> None:
    if settings.catalog_dir is None:
        raise ProgramError("QLAUD_CATALOG_DIR is not set: name the folder of your own catalogue files")
    for path in apply.write_files(wanted, settings.catalog_dir):
        click.echo(f"wrote {path}; running processes read it at their next start")


async def _set_overrides(
    settings: Settings, wanted: list[Difference], catalog: Catalog, pool: "Pool | None", reason: str
) -> None:
    if pool is None or settings.master_key is None:
        raise ProgramError("overrides need DATABASE_URL and QLAUD_MASTER_KEY, or a running `qlaud up`")
    key = await lifecycle.verify(pool, settings.master_key.reveal())
    if not key.is_master:
        raise ProgramError("QLAUD_MASTER_KEY is not the master key of this database")
    count = await apply.set_overrides(wanted, pool, catalog.prices, key.id, reason)
    click.echo(f"overrides that were set: {count}; they begin in a minute, announced ones on their day")


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Catalog, "Pool | None"]]:
    """The catalogue with everything that is known of its prices, and the database if there is one."""
    log.to_stderr()
    settings = with_stored_secrets(with_local_stack(settings))
    catalog = Catalog.load(settings.environ, directory=settings.catalog_dir)
    if settings.database_url is None:
        click.echo("no database is known: prices set through the API are not among these", err=True)
        yield catalog, None
        return
    async with await open_pool(settings.database_url, max_size=2) as pool:
        await PriceFollower(pool, catalog.prices, settings.price_poll_seconds).read()
        yield catalog, pool


def _models(catalog: Catalog, choice: Choice) -> list[Model]:
    asked = [catalog.resolve(choice.model)] if choice.model else catalog.models()
    found = [host for model in asked for host in catalog.hosts(model.slug)]
    return [host for host in found if choice.provider in (None, host.provider.slug)]


def _differences(catalog: Catalog, choice: Choice) -> list[Difference]:
    models = _models(catalog, choice)
    return compare.differences(models, _reference(models, choice.against))


def _reference(models: list[Model], against: str) -> Reference:
    today = dt.datetime.now(dt.UTC).date()
    path = Path(against)
    if against == INSTALLED:
        return compare.from_genai(models, genai.installed(), today)
    if path.is_file():
        return compare.from_genai(models, genai.from_json(path), today)
    if (path / genai.PACKAGE).is_dir():
        return compare.from_genai(models, genai.unpacked(path), today)
    if path.is_dir():
        files = read({entry.name: entry.read_text("utf-8") for entry in sorted(path.glob("*.toml"))}, None)
        return {
            (file.slug, row.slug): Theirs(row, row.source, row.checked, row.scheduled)
            for file in files.values()
            for row in file.models
        }
    raise ProgramError(f"{against} is neither a file nor a folder")


def _model_object(model: Model) -> dict[str, Any]:
    return {
        "provider": model.provider.slug,
        "model": model.slug,
        **shown(model.price),
        "version": model.price.version,
        "source": model.source,
        "checked": model.checked,
    }
