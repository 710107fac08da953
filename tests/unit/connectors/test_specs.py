"""Every action against its vendor's own specification, of which `tests/data` has what is needed."""

import json
import sys
from pathlib import Path
from typing import Any

import graphql
import pytest

from qlaud_actors.connectors.catalog import ConnectorCatalog

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import extract_specs  # noqa: E402
from specs.table import table  # noqa: E402

EXTRACT: dict[str, Any] = json.loads(extract_specs.EXTRACT.read_text("utf-8"))
CONNECTORS = ConnectorCatalog.load({}).connectors


@pytest.mark.parametrize("slug", sorted(CONNECTORS))
def test_actions_fit_the_specification(slug: str) -> None:
    """Path, query, body fields with types, required ones and choices; documents and their variables."""
    connector = CONNECTORS[slug]
    schemas = {name: graphql.build_schema(text) for name, text in EXTRACT["schemas"].items()}
    wrong = [
        f"{action.name}: {problem}"
        for action in connector.actions
        for problem in extract_specs.misfit(connector, action, EXTRACT, schemas)
    ]
    assert wrong == []


@pytest.mark.parametrize("slug", sorted(s for s, c in CONNECTORS.items() if c.graphql and c.spec.file))
def test_graphql_verifications_fit_the_schema(slug: str) -> None:
    """The call that proves a credential is a document of the schema, too."""
    connector = CONNECTORS[slug]
    schema = graphql.build_schema(EXTRACT["schemas"][connector.spec.file])
    assert graphql.validate(schema, graphql.parse(connector.verify.document or "")) == []


def test_the_table_in_the_docs_is_of_these_connectors() -> None:
    """What the docs say is checked is what the files say."""
    shown = table(list(CONNECTORS.values()), EXTRACT["sources"])
    assert extract_specs.TABLE.read_text("utf-8") == shown, "run scripts/extract_specs.py"


def test_the_extract_is_what_the_specifications_say() -> None:
    """Where the specifications are at hand, extracting again gives the same; a clone has the extract."""
    if extract_specs.SPECS.is_dir():
        found = extract_specs.extract(extract_specs.Specs(extract_specs.SPECS), list(CONNECTORS.values()))
        assert extract_specs.spelled(found) == extract_specs.EXTRACT.read_text("utf-8")
    assert set(EXTRACT) == {"sources", "operations", "schemas"}
