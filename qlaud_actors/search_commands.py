"""`qlaud search …`: how far the index of messages is, and making it anew."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import TypeAlias

import click

from qlaud_actors.settings import Settings

SettingsOf: TypeAlias = Callable[[], Settings]
"""Reads the settings once the command is known to run."""


@click.group()
def search() -> None:
    """The index of messages: how far it is, and making it anew."""


@search.command()
@click.pass_obj
def status(settings_of: SettingsOf, /) -> None:
    """Say how far each index is, and what Chroma has.

    Ends with 1 when Chroma does not answer, has lost something, or the settings name another model.
    """
    from qlaud_actors import search_tasks as tasks

    sys.exit(asyncio.run(tasks.show_status(settings_of())))


@search.command()
@click.option("--force", is_flag=True, help="Also when the model is the same: compute every vector anew.")
@click.pass_obj
def reindex(settings_of: SettingsOf, /, *, force: bool) -> None:
    """Make the index anew with the model of QLAUD_EMBEDDING_MODEL, while the service runs.

    It is built beside the one that serves and takes over when it is complete. Safe to interrupt: workers go
    on with it, and so does running this again.
    """
    from qlaud_actors import search_tasks as tasks

    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(tasks.reindex(settings_of(), force=force)))
    click.echo("interrupted; the workers go on with it", err=True)
    sys.exit(1)
