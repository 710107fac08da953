"""What `qlaud search …` does; `search_commands.py` is what it is called with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import click

from qlaud_actors.bootstrap import Services, open_services
from qlaud_actors.db.pool import ConnectionLost, DatabaseError
from qlaud_actors.localstack import with_local_stack
from qlaud_actors.masterkey import with_stored_secrets
from qlaud_actors.program import ProgramError
from qlaud_actors.search import store
from qlaud_actors.search.index import SearchUnavailable
from qlaud_actors.search.store import Index
from qlaud_actors.settings import Settings, SettingsError

PAUSE_SECONDS = 0.5


async def show_status(settings: Settings) -> int:
    """Print how far the indexes are; 1 when something needs the operator."""
    async with _opened(settings) as services:
        figures = await store.figures(services.pool)
        for one in figures:
            name = one.model if one.kind == "vectors" else f"words ({one.model})"
            click.echo(f"{name}: {one.state}, {one.entries:,} entries, {one.queued:,} messages queued")
            if one.queued:
                click.echo(f"  the oldest has waited for {one.oldest_seconds:,.0f} s")
            if one.failing:
                click.echo(f"  {one.failing:,} of them failed and are tried again; see the workers' log")
            if one.lost:
                click.echo(f"  {one.lost:,} collections were lost in Chroma and are being filled again")
        click.echo(f"to be forgotten by Chroma: {await store.untold(services.pool):,}")
        wrong = await _chroma_is_wrong(services) or any(one.lost for one in figures)
        return 1 if _other_model(services, await store.living(services.pool)) or wrong else 0


async def reindex(settings: Settings, *, force: bool) -> int:
    """Build an index with the configured model and let it take over; shows its progress."""
    async with _opened(settings) as services:
        if services.searcher.chroma is None:
            raise SettingsError("CHROMA_URL is not set, and no `qlaud up` runs here")
        wanted = services.searcher.models.wanted()
        building = await _building(services)
        if building and (building.model, building.dimensions) != (wanted.name, wanted.dimensions):
            await store.give_up(services.pool, building.id)
            building = None
        if building is None:
            if not force and not _other_model(services, await store.living(services.pool), say=False):
                click.echo(f"the index is made with {wanted.name} already; --force makes it anew")
                return 0
            await store.begin_index(services.pool, wanted.name, wanted.dimensions)
            building = await _building(services)
        if building is None:
            click.echo("the workers make the first index; `qlaud search status` says how far it is")
            return 0
        click.echo(f"{building.model}: building beside the index that serves")
        await _build(services, building)
        click.echo("done: it serves from now on")
        return 0


async def _build(services: Services, building: Index) -> None:
    """Work beside the workers until nothing is left and the index has taken over."""
    indexer = services.indexer()
    total = left = await store.queue_length(services.pool, building.id)
    with click.progressbar(length=total, label="messages", show_pos=True) as bar:
        while any(index.id == building.id and index.state == "building" for index in await _living(services)):
            worked = await indexer.step()
            now = await store.queue_length(services.pool, building.id)
            bar.update(max(0, left - now))
            left = now
            if not worked:
                await asyncio.sleep(PAUSE_SECONDS)  # the rest is with workers, or waits for Chroma
    await indexer.sweep()


async def _living(services: Services) -> list[Index]:
    return await store.living(services.pool)


async def _building(services: Services) -> Index | None:
    return next((index for index in await _living(services) if index.state == "building"), None)


def _other_model(services: Services, living: list[Index], *, say: bool = True) -> bool:
    """Whether the index that serves was made with another model than the settings name."""
    wanted = services.searcher.models.wanted()
    serving = next((one for one in living if one.kind == "vectors" and one.state == "serving"), None)
    if serving is None or (serving.model, serving.dimensions) == (wanted.name, wanted.dimensions):
        return False
    if say:
        click.echo(f"the settings name {wanted.name}: run `qlaud search reindex`", err=True)
    return True


async def _chroma_is_wrong(services: Services) -> bool:
    chroma = services.searcher.chroma
    if chroma is None:
        click.echo("Chroma: none; only words are searched", err=True)
        return True
    try:
        collections = await chroma.collections()
        vectors = sum([await chroma.count(one) for one in collections])
    except SearchUnavailable as error:
        click.echo(f"Chroma: {error.message}", err=True)
        return True
    click.echo(f"Chroma: {len(collections):,} collections, {vectors:,} vectors")
    return False


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Services]:
    """The services of this process, by the settings or those of a running `qlaud up`."""
    settings = with_stored_secrets(with_local_stack(settings))
    try:
        async with open_services(replace(settings, database_pool_size=4)) as services:
            yield services
    except (*ConnectionLost, DatabaseError) as error:
        raise ProgramError(f"the database refuses: {str(error) or type(error).__name__}") from error
