"""What `qlaud vault …` does; `vault_commands.py` is what it is called with."""

import contextlib
from collections.abc import AsyncIterator

import click

from qlaud_actors.connectors import rotation
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.pool import ConnectionLost, DatabaseError, Pool, open_pool
from qlaud_actors.localstack import with_local_stack
from qlaud_actors.masterkey import with_stored_secrets
from qlaud_actors.program import ProgramError
from qlaud_actors.settings import Settings, SettingsError


async def show_status(settings: Settings) -> int:
    """Print which keys are in use; 1 when one of them is not in the ring."""
    async with _opened(settings) as (pool, vault):
        found = await rotation.status(pool, vault.keyring)
    _tell(found)
    return 1 if found.missing else 0


async def rotate(settings: Settings) -> int:
    """Renew what is not under the newest key; 1 when old keys are still in use afterwards."""
    async with _opened(settings) as (pool, vault):
        outcome = await rotation.rotate(pool, vault, click.echo)
        found = await rotation.status(pool, vault.keyring)
    for place, reason in outcome.lost.items():
        click.echo(f"not renewed: {place}: {reason}", err=True)
    _tell(found)
    if outcome.lost or found.old:
        click.echo("NOT done: put right what is said above and run it again", err=True)
        return 1
    click.echo("done")
    return 0


def _tell(found: rotation.Status) -> None:
    click.echo(f"newest key: {found.newest}")
    for use in found.uses:
        click.echo(f"{use.key_id}: {use.words()}")
    for use in found.missing:
        click.echo(f"{use.key_id} IS NOT IN THE RING: put it back, else these are lost", err=True)
    for use in found.old:
        if use.key_id != found.newest and use.key_id in found.held:
            click.echo(f"{use.key_id} is still in use: do not remove it yet")
    for key_id in found.removable:
        click.echo(f"{key_id} is used by nothing: remove it once no process has it as its first key")


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Pool, Vault]]:
    """The database and a vault of our own, by the settings or those of a running `qlaud up`."""
    settings = with_stored_secrets(with_local_stack(settings))
    if settings.database_url is None or settings.keyring is None:
        raise SettingsError("DATABASE_URL and QLAUD_KEYRING are needed, or a running `qlaud up`")
    keyring = Keyring.parse(settings.keyring.reveal())
    try:
        async with contextlib.AsyncExitStack() as stack:
            pool = await open_pool(settings.database_url, max_size=2)
            stack.push_async_callback(pool.close)
            vault = Vault(keyring, pool)
            stack.push_async_callback(vault.close)
            yield pool, vault
    except (*ConnectionLost, DatabaseError) as error:
        raise ProgramError(f"the database refuses: {str(error) or type(error).__name__}") from error
