"""`qlaud retention`: what is kept no longer, shown or removed now."""

import asyncio
import uuid
from collections.abc import Callable
from typing import TypeAlias

import click

from qlaud_actors.settings import Settings

SettingsOf: TypeAlias = Callable[[], Settings]
"""Reads the settings once the command is known to run."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would go; change nothing.")
@click.option("--account", type=click.UUID, help="Only this account (all of them by default).")
@click.option("--json", "as_json", is_flag=True, help="For programs; with every thread that goes.")
@click.option("--show", default=10, type=click.IntRange(0), help="Threads to name of each account (10).")
@click.pass_obj
def retention(
    settings_of: SettingsOf, /, *, dry_run: bool, account: uuid.UUID | None, as_json: bool, show: int
) -> None:
    """Remove now what the rules of accounts and threads do not keep.

    Workers do the same every five minutes. There is a line for each account's rule, and one for each thread
    that goes, in whole or in part, by a rule of its own. Safe to interrupt and to run again.
    """
    from qlaud_actors import retention_tasks as tasks

    asyncio.run(tasks.run(settings_of(), account, tasks.Manner(dry_run, as_json, show)))
