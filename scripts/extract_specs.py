"""Extracts from vendors' specifications what the connectors' actions need, for tests without them.

    scripts/extract_specs.py [--specs ../shared/specs] [--check]

Writes tests/data/connector_specs.json, tests/data/vendor_operations.json (for the vendors' stand-ins) and
docs/reference/connectors.md; with --check nothing is written, and the exit status is 1 when they would
change. What it prints are the actions that do not fit.
"""

import argparse
import functools
import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import graphql

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from specs import graphql_schema, openapi  # noqa: E402
from specs.sent import requests  # noqa: E402
from specs.table import table  # noqa: E402
from specs.whole import OPERATIONS, whole_operations  # noqa: E402

from qlaud_actors.connectors.catalog import ConnectorCatalog  # noqa: E402
from qlaud_actors.connectors.model import Action, Connector  # noqa: E402

EXTRACT = ROOT / "tests/data/connector_specs.json"
DOUBLES = ROOT / "tests/data/vendor_operations.json"
TABLE = ROOT / "docs/reference/connectors.md"
ROW = re.compile(r"^\| (?P<file>[\w-]+)\.(?:json|graphql)\.gz \|(?P<cells>.*)\|$", re.MULTILINE)
SLACK = "slack-methods"
BESIDE = (ROOT / "../shared/specs", ROOT / "../../shared/specs")
"""Where the specifications lie beside a clone, or beside a folder of worktrees."""
SPECS = next((folder for folder in BESIDE if folder.is_dir()), BESIDE[0])


class Specs:
    """A folder of specifications as `../shared/specs/README.md` describes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        rows = ROW.finditer((folder / "README.md").read_text("utf-8"))
        self._rows = {row["file"]: row["cells"].split("|") for row in rows}

    @functools.lru_cache(maxsize=3)  # noqa: B019 - one instance per run
    def document(self, name: str) -> Any:
        """The parsed document; of GraphQL the text."""
        path = next(self._folder.glob(f"{name}.*.gz"))
        text = gzip.decompress(path.read_bytes()).decode()
        return json.loads(text) if ".json." in path.name else text

    def about(self, name: str) -> dict[str, str]:
        """Whose it is, from where, of when, under which licence."""
        vendor, source, date, licence = (re.sub(r"[`*]", "", cell).strip() for cell in self._rows[name][:4])
        return {"vendor": vendor, "source": source, "date": date, "licence": licence}


def extract(specs: Specs, connectors: list[Connector]) -> dict[str, Any]:
    """What is needed: about each file, of each action its operation, and one schema per GraphQL file."""
    result: dict[str, Any] = {"sources": {}, "operations": {}, "schemas": {}}
    for connector in connectors:
        checked = [a for a in connector.actions if connector.source(a).file]
        for action in checked:
            name = str(connector.source(action).file)
            result["sources"][name] = specs.about(name)
            if action.document is None:
                result["operations"][f"{connector.slug}/{action.name}"] = operation(specs, connector, action)
        if documents := [(connector, a) for a in checked if a.document]:
            name = str(connector.spec.file)
            extra = [connector.verify.document] if connector.verify.document else []
            schema = graphql.build_schema(specs.document(name))
            result["schemas"][name] = graphql_schema.cut_down(schema, documents, extra)
    result["sources"] = dict(sorted(result["sources"].items()))
    return result


def for_doubles(specs: Specs) -> dict[str, Any]:
    """Whole operations for the servers that stand in for vendors in tests, and where they are from."""
    sources = {name: specs.about(name) for name in OPERATIONS}
    found = {name: whole_operations(specs.document(name), name) for name in OPERATIONS}
    return {"sources": sources, **found}


def operation(specs: Specs, connector: Connector, action: Action) -> dict[str, Any]:
    """The operation of an action, cut down; empty when there is none."""
    name = str(connector.source(action).file)
    method, path = wanted(connector, action)
    document = specs.document(name)
    sent = requests(connector, action)
    if name == SLACK:
        found = document.get(path)
        return {"operation": f"{method} {path}", **openapi.slack_node(found, sent)} if found else {}
    if (found := openapi.find(document["paths"], method, path)) is None:
        return {}
    theirs, item = found
    return {"operation": f"{method} {theirs}", **openapi.operation_node(document, item, method, sent)}


def wanted(connector: Connector, action: Action) -> tuple[str, str]:
    """Method and path in the specification's words; of Slack the method's name for the path."""
    source = connector.source(action)
    method, path = connector.request_line(action)
    if source.file == SLACK:
        return method, source.operation or path.removeprefix("/")
    method, _, path = (source.operation or f"{method} {source.prefix}{path}").partition(" ")
    return method, path


def main() -> int:
    """Write or compare, and say what does not fit."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--specs", type=Path, default=SPECS)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    connectors = list(ConnectorCatalog.load({}).connectors.values())
    specs = Specs(options.specs)
    found = extract(specs, connectors)
    texts = {
        EXTRACT: spelled(found),
        DOUBLES: spelled(for_doubles(specs)),
        TABLE: table(connectors, found["sources"]),
    }
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        what = "is not what the specifications say" if options.check else "written"
        print(f"{path.relative_to(ROOT)} {what}")
        if not options.check:
            path.write_text(texts[path], "utf-8")
    wrong = list(misfits(connectors, found))
    print("\n".join(wrong) or "every checked action fits its specification")
    return 1 if wrong or (options.check and stale) else 0


def spelled(found: dict[str, Any]) -> str:
    """The extract as JSON with a line per operation, so that a change shows as a line."""
    parts = [
        f'"{part}": {{\n' + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n}"
        for part, rows in found.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def misfits(connectors: list[Connector], found: dict[str, Any]) -> list[str]:
    """Every action that does not fit the extract, with the reason."""
    wrong = []
    schemas = {name: graphql.build_schema(text) for name, text in found["schemas"].items()}
    for connector in connectors:
        for action in connector.actions:
            problems = misfit(connector, action, found, schemas)
            wrong += [f"{connector.slug}/{action.name}: {problem}" for problem in problems]
    return wrong


def misfit(
    connector: Connector, action: Action, found: dict[str, Any], schemas: dict[str, graphql.GraphQLSchema]
) -> list[str]:
    """Where an action does not fit the extract; nothing when it has no specification."""
    source = connector.source(action)
    if source.file is None:
        return []
    if action.document is not None:
        schema = schemas.get(source.file)
        return graphql_schema.problems(schema, connector, action) if schema else ["not extracted"]
    said = found["operations"].get(f"{connector.slug}/{action.name}")
    method, path = wanted(connector, action)
    theirs, _, where = said["operation"].partition(" ") if said else ("", "", "")
    if openapi.find({where: {theirs.lower(): {}}}, method, path) is None:
        return [f"{action.request} is no operation of {source.file}; or run scripts/extract_specs.py"]
    return openapi.problems(said, requests(connector, action))


if __name__ == "__main__":
    sys.exit(main())
