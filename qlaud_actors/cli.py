"""The command `qlaud`. Errors of the operator's end in one clear line, not in a traceback."""

import asyncio
import contextlib
import os
import sys
from importlib.metadata import version

import click

from qlaud_actors import audit
from qlaud_actors.catalog_commands import catalog
from qlaud_actors.import_commands import import_
from qlaud_actors.price_commands import prices
from qlaud_actors.retention_commands import retention
from qlaud_actors.search_commands import search
from qlaud_actors.settings import Settings, SettingsError
from qlaud_actors.vault_commands import vault

ENVIRONMENT_HELP = """
The environment decides everything; what is not set has a default that works.

\b
  QLAUD_HOST, QLAUD_PORT       the front door (127.0.0.1, 8787)
  QLAUD_DATA_DIR               embedded data, logs, master.key (.qlaud)
  DATABASE_URL, REDIS_URL, CHROMA_URL
                               your own servers instead of the embedded ones
  QLAUD_MASTER_KEY             the first admin key (minted at first start)
  QLAUD_WORKERS                worker processes (1)
  ANTHROPIC_API_KEY, OPENAI_API_KEY, …
                               model providers
"""


class Commands(click.Group):
    """A group whose commands end in one line on what the operator can put right."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; 2 for bad settings, 1 for what could not be done."""
        from qlaud_actors.db.migrate import MigrationError
        from qlaud_actors.program import ProgramError

        try:
            super().invoke(ctx)
        except SettingsError as error:
            _fail(error, 2)
        except (ProgramError, MigrationError) as error:
            _fail(error, 1)


@click.group(cls=Commands, epilog=ENVIRONMENT_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("qlaud-actors"), prog_name="qlaud")
@click.pass_context
def main(ctx: click.Context) -> None:
    """The self-hosted backend of an AI app: capped keys, threads that remember, a tool loop.

    `qlaud up` starts everything on this machine; `qlaud demo` shows what it does.
    """
    ctx.obj = _settings


@main.command()
@click.option("-v", "--verbose", is_flag=True, help="Show the output of api and workers as well.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless it fails.")
def up(verbose: bool, quiet: bool) -> None:
    """Start everything on this machine and keep it running until Ctrl-C.

    Postgres, Valkey and Chroma are started unless DATABASE_URL, REDIS_URL or CHROMA_URL name
    servers of your own. Data, logs and the master key are in QLAUD_DATA_DIR.
    """
    from qlaud_actors.up import up as run_up

    say = _ignore if quiet else _say
    asyncio.run(run_up(_settings(), _environ(), say, verbose=verbose))


@main.command()
def demo() -> None:
    """Run the main job once, on a stack of its own, and show what it cost."""
    from qlaud_actors import demo as the_demo

    sys.exit(the_demo.main(_settings()))


@main.command()
def api() -> None:
    """Run the front door alone. Needs DATABASE_URL and REDIS_URL, or a running `qlaud up`."""
    _become("api")


@main.command()
def worker() -> None:
    """Run one worker alone. Needs DATABASE_URL and REDIS_URL, or a running `qlaud up`."""
    _become("workers")


@main.command()
def migrate() -> None:
    """Bring the database up to date; safe to run again, and from several machines at once."""
    from qlaud_actors.up import migrate_alone

    applied = asyncio.run(migrate_alone(_settings(), _say))
    _say("\n".join(f"applied {name}" for name in applied) or "the database is up to date")


@main.command()
def doctor() -> None:
    """Check every dependency and say in words what is wrong."""
    from qlaud_actors.doctor import examine, healthy, table

    findings = asyncio.run(examine(_settings()))
    _say(table(findings))
    sys.exit(0 if healthy(findings) else 1)


main.add_command(audit.reconcile)
main.add_command(audit.usage)
main.add_command(prices)
main.add_command(catalog)
main.add_command(vault)
main.add_command(search)
main.add_command(import_)
main.add_command(retention)


def _become(module: str) -> None:
    """Replace this process by `python -m module`, with addresses and keys from the data directory."""
    from qlaud_actors.localstack import child_environment, with_local_stack
    from qlaud_actors.masterkey import with_stored_secrets

    settings = with_stored_secrets(with_local_stack(_settings()))
    missing = [
        f"{name} is not set, and no `qlaud up` runs on {settings.data_dir}"
        for name, url in (("DATABASE_URL", settings.database_url), ("REDIS_URL", settings.redis_url))
        if url is None
    ]
    if missing:
        raise SettingsError("\n".join(missing))
    # -P: a folder of that name in the user's directory must not stand in for ours.
    arguments = [sys.executable, "-P", "-m", module]
    os.execve(sys.executable, arguments, child_environment(settings, _environ()))  # noqa: S606 - no shell is wanted


def _settings() -> Settings:
    return Settings.from_env(_environ())


def _environ() -> dict[str, str]:
    return dict(os.environ)  # noqa: TID251 - the process's own entry


def _say(words: str) -> None:
    """Print at once. A terminal that has gone away is no reason to stop."""
    with contextlib.suppress(OSError):
        click.echo(words)
        sys.stdout.flush()


def _ignore(_: str) -> None:
    pass


def _fail(error: Exception, code: int) -> None:
    for line in str(error).splitlines():
        click.echo(f"qlaud: {line}" if not line.startswith(" ") else line, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
