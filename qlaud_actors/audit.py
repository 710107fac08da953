"""`qlaud reconcile` and `qlaud usage export`: commands that read the books, straight from the database."""

import asyncio
import contextlib
import gzip
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import click

from qlaud_actors.settings import Settings

SettingsOf: TypeAlias = Callable[[], Settings]
"""Reads the settings once the command is known to run."""


class Amount(click.ParamType[Decimal]):
    """An exact decimal that is not negative."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """The number that the text spells."""
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0:
            self.fail(f"{value!r} is not a number from 0 up", param, ctx)
        return number


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `qlaud reconcile`."""

    account: uuid.UUID | None
    as_json: bool
    show: int
    orphan_seconds: float
    provider: str | None
    exports: tuple[Path, ...]
    mapping: str | None
    tolerance: Decimal
    tolerance_usd: Decimal


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--account", type=click.UUID, help="Only this account (all of them by default).")
@click.option("--json", "as_json", is_flag=True, help="Say it in JSON.")
@click.option("--show", default=10, type=click.IntRange(0, 10_000), help="How many offenders to name (10).")
@click.option("--orphan-seconds", default=300.0, type=click.FloatRange(0), help="Age of a lost hold (300).")
@click.option("--provider", help="Compare with this provider's usage export instead.")
@click.option("--export", "exports", type=FILE, multiple=True, help="Its file; repeat for several.")
@click.option("--map", "mapping", help="Columns of a CSV of another form: day=…,model=…,cost_usd=…")
@click.option("--tolerance", default="1", type=Amount(), help="Percent that figures may differ (1).")
@click.option("--tolerance-usd", default="0.01", type=Amount(), help="Dollars that costs may differ (0.01).")
@click.pass_obj
def reconcile(settings_of: SettingsOf, /, **given: Any) -> None:
    """Prove that the books agree; with --provider, that they agree with what it says.

    Ends with 0 only when everything holds, with 1 when something does not.
    """
    asked = Asked(**given)
    if bool(asked.provider) != bool(asked.exports) or (asked.mapping and not asked.provider):
        raise click.UsageError("--provider and --export belong together, and --map to both")
    run = _compare_with_provider if asked.provider else _check_books
    sys.exit(0 if asyncio.run(run(settings_of(), asked)) else 1)


@click.group()
def usage() -> None:
    """What was used, of all accounts."""


@usage.command("export")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", help="csv or jsonl.")
@click.option("--from", "since", type=click.DateTime(), help="From this UTC time on.")
@click.option("--to", "until", type=click.DateTime(), help="Until before this UTC time.")
@click.option("--account", type=click.UUID, help="Only this account.")
@click.option("--key", type=click.UUID, help="Only this key.")
@click.option("--model", help="Only this model.")
@click.option("--end-user", help="Only this end user.")
@click.option("--after", type=click.UUID, help="Continue behind the row with this id.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File; gzip for .gz.")
@click.pass_obj
def export_usage(
    settings_of: SettingsOf, /, *, output: Path | None, form: Any, after: uuid.UUID | None, **given: Any
) -> None:
    """Write every usage row with every column, oldest first."""
    from qlaud_actors.billing.report import END_OF_TIME_MS, Selection, Span
    from qlaud_actors.program import ProgramError

    span = Span(_ms(given["since"], 0), _ms(given["until"], END_OF_TIME_MS))
    chosen = Selection(given["account"], span, given["key"], given["model"], given["end_user"])
    settings = settings_of()
    try:
        with contextlib.ExitStack() as stack:
            target: Any = sys.stdout.buffer
            if output is not None:
                target = stack.enter_context(output.open("wb"))
                if output.suffix == ".gz":
                    target = stack.enter_context(gzip.open(target, "wb"))
            asyncio.run(_export(settings, target, chosen, form, after))
    except OSError as error:
        raise ProgramError(f"the export cannot be written ({error.strerror or error})") from error


async def _check_books(settings: Settings, asked: Asked) -> bool:
    from qlaud_actors.program import ProgramError
    from qlaud_actors.reconcile import books
    from qlaud_actors.reconcile.show import checks_json, checks_table

    async with _connected(settings) as connection:
        if asked.account and not await books.account_exists(connection, asked.account):
            raise ProgramError(f"there is no account {asked.account}")
        found = books.check_books(
            connection, asked.account, orphan_seconds=asked.orphan_seconds, shown=asked.show
        )
        checks = [check async for check in found]
    click.echo(checks_json(checks) if asked.as_json else checks_table(checks))
    return not any(check.wrong for check in checks)


async def _compare_with_provider(settings: Settings, asked: Asked) -> bool:
    from qlaud_actors.providers.catalog import Catalog
    from qlaud_actors.reconcile.compare import Names, Tolerance, compare
    from qlaud_actors.reconcile.ours import our_usage
    from qlaud_actors.reconcile.show import differences_json, differences_table

    assert asked.provider is not None
    catalog = Catalog.load(settings.environ, directory=settings.catalog_dir)
    hosts = [host for model in catalog.models() for host in catalog.hosts(model.slug)]
    theirs = _read_exports(asked)
    async with _connected(settings) as connection:
        ours, estimated = await our_usage(
            connection, asked.provider, theirs.since, theirs.until, asked.account
        )
    names = Names(host for host in hosts if host.provider.slug == asked.provider)
    differences = compare(ours, theirs, names)
    allowed = Tolerance(asked.tolerance, asked.tolerance_usd)
    tell = differences_json if asked.as_json else differences_table
    click.echo(tell(differences, allowed, estimated))
    return not any(one.beyond(allowed) for one in differences)


def _read_exports(asked: Asked) -> Any:
    """What the files say. A provider without a form of its own has the generic CSV."""
    from qlaud_actors.program import ProgramError
    from qlaud_actors.reconcile import anthropic_export, exports, generic_export, openai_export

    own = {"openai": openai_export.read, "anthropic": anthropic_export.read}
    try:
        generic = generic_export.reader(generic_export.parse_mapping(asked.mapping or ""))
        read = generic if asked.mapping else own.get(asked.provider or "", generic)
        said = exports.read_with(read, asked.exports)
    except exports.ExportError as error:
        raise ProgramError(str(error)) from error
    if said.since is None:
        raise ProgramError("the export says nothing of any day")
    return said


async def _export(
    settings: Settings, target: BinaryIO, chosen: Any, form: Any, after: uuid.UUID | None
) -> None:
    from qlaud_actors.billing import export
    from qlaud_actors.db.pool import open_pool
    from qlaud_actors.errors import InvalidRequest
    from qlaud_actors.program import ProgramError

    with _explained():
        pool = await open_pool(_url(settings), max_size=1)
    try:
        with _explained():
            columns = await export.begin(pool, chosen, after)
        pages = export.pages(pool, chosen, columns, form, after)
        while True:
            with _explained():
                piece = await anext(pages, None)
            if piece is None:
                return
            target.write(piece)
    except InvalidRequest as error:
        raise ProgramError(error.message) from error
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Any]:
    from qlaud_actors.db.pool import connect

    with _explained():
        connection = await connect(_url(settings))
        try:
            yield connection
        finally:
            await connection.close()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """A database that is away or not migrated is told in one line."""
    from qlaud_actors.db.pool import ConnectionLost, DatabaseError
    from qlaud_actors.program import ProgramError

    try:
        yield
    except (*ConnectionLost, DatabaseError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ProgramError(f"the database refuses ({reason})") from error


def _url(settings: Settings) -> str:
    from qlaud_actors.localstack import with_local_stack
    from qlaud_actors.settings import SettingsError

    url = with_local_stack(settings).database_url
    if url is None:
        raise SettingsError(f"DATABASE_URL is not set, and no `qlaud up` runs on {settings.data_dir}")
    return url


def _ms(at: datetime | None, default: int) -> int:
    return default if at is None else round(at.replace(tzinfo=UTC).timestamp() * 1000)
