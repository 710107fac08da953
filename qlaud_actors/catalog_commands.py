"""`qlaud catalog …`: check, show and begin connector files."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from qlaud_actors.connectors.model import Connector
from qlaud_actors.settings import Settings

SKELETON = """\
# Every field is described in docs/reference/connector-files.md.
slug = "{slug}"
name = "{name}"
category = "projects"
description = "What can be found and done there, in one sentence."
synonyms = []
docs_url = "https://developers.example.com"
base_url = "https://api.example.com"

[[auth]]
scheme = "bearer"
label = "API token"
headers = {{ Authorization = "Bearer {{token}}" }}

[[auth.fields]]
name = "token"
label = "API token"
secret = true
help = "Where a person finds it."

[verify]
request = "GET /me"
connected_as = "{{name}}"
account_id = "{{id}}"

[spec]
unchecked = "Which specification was looked for, and why there is none."

[[actions]]
name = "get_thing"
title = "Get a thing"
description = "What it does, and when to use it rather than its neighbours."
effect = "read"
request = "GET /things/{{thing_id}}"
required = ["thing_id"]

[actions.input.thing_id]
type = "string"
description = "Id of the thing."
maxLength = 64
"""


@click.group()
def catalog() -> None:
    """Connectors: check their files, show what a model sees, begin a new one."""


@catalog.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def lint(paths: tuple[Path, ...]) -> None:
    """Check the files given, or all packaged ones and those of QLAUD_CONNECTOR_DIR; 1 when one is wrong.

    Files of hosted MCP servers are known by their `server_url`.
    """
    from qlaud_actors.catalog_lint import lint as lint_connector
    from qlaud_actors.catalog_lint import lint_hosted
    from qlaud_actors.connectors import hosted
    from qlaud_actors.connectors.catalog_files import ConnectorFileError, packaged, parse, read_text

    sources: dict[str, str | Path] = {str(path): path for path in paths or _own_files()}
    theirs = {f"hosted/{name}": text for name, text in hosted.packaged().items()}
    ours = {} if paths else {**packaged(), **theirs}
    problems: list[str] = []
    actions = servers = 0
    for name, source in {**ours, **sources}.items():
        try:
            text = source if isinstance(source, str) else read_text(source)
            if hosted.is_hosted(text):
                servers += 1
                found = lint_hosted(hosted.parse(name, text))
            else:
                connector = parse(name, text)
                actions += len(connector.actions)
                found = lint_connector(connector)
        except ConnectorFileError as error:
            problems += str(error).splitlines()
            continue
        problems += [f"{name}: {problem}" for problem in found]
    if not paths and not problems:
        problems += _problems_together()
    for problem in problems:
        click.echo(problem, err=True)
    counted = f"{actions} actions, " + (f"{servers} hosted servers, " if servers else "")
    click.echo(f"{counted}{len(problems)} problems")
    sys.exit(1 if problems else 0)


@catalog.command()
@click.argument("slug", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(slug: str | None, as_json: bool) -> None:
    """Show all connectors and their actions, or those of one."""
    from qlaud_actors.connectors.catalog import ConnectorCatalog
    from qlaud_actors.connectors.catalog_files import ConnectorFileError

    settings = _settings()
    try:
        connectors = ConnectorCatalog.load(settings.environ, directory=settings.connector_dir).connectors
    except ConnectorFileError as error:
        raise click.ClickException(str(error)) from None
    if slug is not None and slug not in connectors:
        raise click.ClickException(f"there is no connector {slug!r}; `qlaud catalog show` lists them")
    shown = [connector for name, connector in connectors.items() if slug in (None, name)]
    if as_json:
        click.echo(json.dumps([_as_data(connector) for connector in shown], indent=2, ensure_ascii=False))
        return
    for connector in shown:
        ways = ", ".join(auth.label for auth in connector.auth)
        click.echo(f"{connector.slug}  {connector.name} ({connector.category}); {ways}")
        for action in connector.actions:
            click.echo(f"  {action.name:<32} {action.effect:<10} {action.title}")


@catalog.command()
@click.argument("slug")
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where to write it.")
def new(slug: str, folder: Path | None) -> None:
    """Write the skeleton of a connector file."""
    from qlaud_actors.connectors.catalog_files import ConnectorFileError, parse

    text = SKELETON.format(slug=slug, name=slug.replace("-", " ").title())
    try:
        parse(f"{slug}.toml", text)
    except ConnectorFileError as error:
        raise click.ClickException(str(error)) from None
    path = (folder or _settings().connector_dir or Path()) / f"{slug}.toml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    click.echo(f"{path} is written; fill it in, then run `qlaud catalog lint {path}`")


def _as_data(connector: Connector) -> dict[str, Any]:
    from qlaud_actors.connectors.inputs import input_schema

    actions = [
        {
            "name": action.name,
            "title": action.title,
            "description": action.description,
            "effect": action.effect,
            "input_schema": input_schema(connector, action),
        }
        for action in connector.actions
    ]
    about = {"slug": connector.slug, "name": connector.name, "category": connector.category}
    return {**about, "description": connector.description, "actions": actions}


def _problems_together() -> list[str]:
    """What keeps a process from starting with the files of QLAUD_CONNECTOR_DIR, right as each is."""
    from qlaud_actors.connectors.catalog import ConnectorCatalog
    from qlaud_actors.connectors.catalog_files import ConnectorFileError

    try:
        ConnectorCatalog.load({}, directory=_settings().connector_dir)
    except ConnectorFileError as error:
        return str(error).splitlines()
    return []


def _own_files() -> list[Path]:
    folder = _settings().connector_dir
    return sorted(folder.glob("*.toml")) if folder else []


def _settings() -> Settings:
    return Settings.from_env(dict(os.environ))  # noqa: TID251 - the process's own entry
