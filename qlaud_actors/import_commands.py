"""`qlaud import`: conversations of other systems become threads."""

import asyncio
import sys
from pathlib import Path

import click

from qlaud_actors.settings import Secret

FORMATS = ("auto", "qlaud", "chatgpt", "openai", "langgraph")


@click.command("import")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "named", type=click.Choice(FORMATS), default="auto", show_default=True)
@click.option("--url", default="http://127.0.0.1:8787", show_default=True, help="The server.")
@click.option("--key", envvar="QLAUD_KEY", help="An API key of it; better given as QLAUD_KEY.")
@click.option("--end-user", help="Whose conversations they are, where the file does not say.")
@click.option("--dry-run", is_flag=True, help="Read the file and say what it holds; send nothing.")
def import_(path: Path, named: str, url: str, key: str | None, end_user: str | None, dry_run: bool) -> None:
    """Take in the conversations of a file.

    Formats: our own export; ChatGPT's conversations.json; threads of OpenAI's Assistants API and
    conversations of its Conversations API; LangGraph threads. Importing a file again makes nothing twice.
    """
    from qlaud_actors import import_tasks

    if not dry_run and not key:
        raise click.UsageError("a key is needed: set QLAUD_KEY, or give --key; --dry-run needs none")
    target = None if dry_run else import_tasks.Target(url, Secret(key or ""), end_user)
    sys.exit(asyncio.run(import_tasks.run(path, named, target)))
