"""`qlaud prices …`: what models cost, compared, taken over, and usage rated anew."""

import datetime as dt
import os
from typing import Literal

import click

from qlaud_actors.settings import Settings

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
AGAINST = click.option(
    "--against",
    default="genai-prices",
    show_default=True,
    help="Another table: `genai-prices` as it is installed, a folder with its unpacked wheel, its data.json, "
    "or a folder of catalogue files (*.toml).",
)
PROVIDER = click.option("--provider", help="Only this provider's.")
MODEL = click.option("--model", help="Only this model's.")
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group()
def prices() -> None:
    """What models cost: list it, compare it with another table, take that over, rate usage anew."""


@prices.command("list")
@PROVIDER
@MODEL
@JSON
def list_prices(provider: str | None, model: str | None, as_json: bool) -> None:
    """Show the prices in force, with those set through the API when a database is known."""
    from qlaud_actors import price_tasks as tasks

    tasks.run(tasks.show(_settings(), tasks.Choice(provider, model), as_json=as_json))


@prices.command()
@AGAINST
@PROVIDER
@MODEL
@JSON
def diff(against: str, provider: str | None, model: str | None, as_json: bool) -> None:
    """Compare with another table; the exit status is 1 when something differs."""
    from qlaud_actors import price_tasks as tasks

    tasks.run(tasks.diff(_settings(), tasks.Choice(provider, model, against), as_json=as_json))


@prices.command()
@AGAINST
@PROVIDER
@MODEL
@click.option("--to", type=click.Choice(["files", "api"]), default="files", show_default=True)
@click.option("--reason", default="qlaud prices apply", show_default=True, help="For the audit (--to api).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also prices that are hard to believe.")
def apply(
    against: str,
    provider: str | None,
    model: str | None,
    to: Literal["files", "api"],
    reason: str,
    yes: bool,
    force: bool,
) -> None:
    """Take another table's prices over, after showing what changes.

    `--to files` writes prices-<provider>.toml into QLAUD_CATALOG_DIR, which is read at the next start.
    `--to api` sets overrides that every running process learns of and that begin in a minute.
    """
    from qlaud_actors import price_tasks as tasks

    choice, how = tasks.Choice(provider, model, against), tasks.TakeOver(to, reason, yes, force)
    tasks.run(tasks.take_over(_settings(), choice, how))


@prices.command()
@click.option("--from", "begin", type=MOMENT, required=True, help="Usage from this moment on (UTC) …")
@click.option("--to", "end", type=MOMENT, required=True, help="… and before this one.")
@PROVIDER
@MODEL
@click.option("--as-of", type=MOMENT, help="By the prices of this moment, not by those of each call's own.")
@click.option("--dry-run", is_flag=True, help="Only say what would be posted.")
def rerate(
    begin: dt.datetime,
    end: dt.datetime,
    provider: str | None,
    model: str | None,
    as_of: dt.datetime | None,
    dry_run: bool,
) -> None:
    """Rate metered calls anew and post the differences, once per call and price.

    Safe to interrupt and to run again.
    """
    from qlaud_actors import price_tasks as tasks
    from qlaud_actors.billing.report import Span
    from qlaud_actors.prices.rerate import Wanted

    wanted = Wanted(Span(_ms(begin), _ms(end)), model, provider, _ms(as_of) if as_of else None)
    tasks.run(tasks.rate_anew(_settings(), wanted, dry_run=dry_run))


def _settings() -> Settings:
    return Settings.from_env(dict(os.environ))  # noqa: TID251 - the process's own entry


def _ms(moment: dt.datetime) -> int:
    return int(moment.replace(tzinfo=dt.UTC).timestamp() * 1000)
