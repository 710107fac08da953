"""The table of connectors in the docs: what each is checked against."""

from qlaud_actors.connectors.model import Connector

HEAD = """\
# Connectors

Written by `scripts/extract_specs.py`; do not edit. Each is a file of `qlaud_actors/connectors/catalog`
([format](connector-files.md)); `qlaud catalog show` lists their actions.

Checked means: a test builds requests with all inputs, with the required ones alone and with each choice
of each input, and holds them against the vendor's published operation: path, query, body fields and
their types, required ones, values allowed; for GraphQL the document and its variables against the schema.
An old specification says nothing about what a vendor has changed since.
"""


def table(connectors: list[Connector], sources: dict[str, dict[str, str]]) -> str:
    """The whole page."""
    count = sum(len(connector.actions) for connector in connectors)
    rows = [_row(connector) for connector in connectors]
    origins = [f"| {name} | {s['source']} | {s['date']} | {s['licence']} |" for name, s in sources.items()]
    columns = "| connector | slug | sign-in | actions | checked | against | not checked, because |"
    lines = [HEAD, f"{len(connectors)} connectors, {count} actions.\n", columns, "|---" * 7 + "|"]
    lines += [*rows, "\n## Specifications\n", "| file | source | of | licence |", "|---|---|---|---|"]
    return "\n".join([*lines, *origins, ""])


def _row(connector: Connector) -> str:
    found = [connector.source(action) for action in connector.actions]
    files = sorted({source.file for source in found if source.file})
    reasons = list(dict.fromkeys(source.unchecked for source in found if source.unchecked))
    ways = ", ".join(dict.fromkeys(auth.scheme for auth in connector.auth))
    checked = sum(1 for source in found if source.file)
    counts = [str(len(found)), str(checked)]
    cells = [connector.name, f"`{connector.slug}`", ways, *counts, ", ".join(files) or "–"]
    return f"| {' | '.join(cells)} | {' '.join(reasons) or '–'} |"
