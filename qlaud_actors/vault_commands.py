"""`qlaud vault …`: which encryption keys are in use, and their rotation."""

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
def vault() -> None:
    """Which encryption keys (QLAUD_KEYRING) are in use, and their rotation."""


@vault.command()
@click.pass_obj
def status(settings_of: SettingsOf, /) -> None:
    """Say what each key is needed for, and which ones may be removed.

    Ends with 1 when a key is needed that is not in the ring.
    """
    from qlaud_actors import vault_tasks as tasks

    sys.exit(asyncio.run(tasks.show_status(settings_of())))


@vault.command()
@click.pass_obj
def rotate(settings_of: SettingsOf, /) -> None:
    """Bring everything under the newest key, while the service runs.

    Safe to interrupt, to run again, and to run several times at once. Every process has to know the
    newest key before. Ends with 1 when an old key is still in use.
    """
    from qlaud_actors import vault_tasks as tasks

    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(tasks.rotate(settings_of())))
    click.echo("interrupted; what was renewed stays so: run it again for the rest", err=True)
    sys.exit(1)
