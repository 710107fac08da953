"""Every action against its vendor's own specification, of which `tests/data` has what is needed."""
# ruff: noqa: E501 - the table is read by rows

import json
import sys
from pathlib import Path
from typing import Any

import graphql
import pytest

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.catalog_files import packaged, parse

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import extract_specs  # noqa: E402
from specs.table import table  # noqa: E402

EXTRACT: dict[str, Any] = json.loads(extract_specs.EXTRACT.read_text("utf-8"))
SCHEMAS = {name: graphql.build_schema(text) for name, text in EXTRACT["schemas"].items()}
CONNECTORS = ConnectorCatalog.load({}).connectors


@pytest.mark.parametrize("slug", sorted(CONNECTORS))
def test_actions_fit_the_specification(slug: str) -> None:
    """Path, query, body fields with types, required ones and choices; documents and their variables."""
    connector = CONNECTORS[slug]
    wrong = [
        f"{action.name}: {problem}"
        for action in connector.actions
        for problem in extract_specs.misfit(connector, action, EXTRACT, SCHEMAS)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("slug", "action", "old", "new", "complaint"),
    [
        ("github", "create_issue", "POST /repos/{owner}/{repo}/issues", "POST /repos/{owner}/issues", "no operation"),
        ("github", "create_issue", "POST /repos", "PUT /repos", "no operation"),
        ("github", "create_issue", "input.milestone", "input.milstone", "body.milstone is not in"),
        ("github", "create_issue", '"repo", "title"]', '"repo"]', "body.title is required and not sent"),
        ("github", "merge_pull_request", '"squash"', '"squish"', "body.merge_method is 'squish'"),
        ("github", "list_issues", '"all"]', '"al"]', "query.state is 'al'"),
        ("github", "create_issue", 'type = "array"\ndescription = "Names of labels."', 'type = "string"\ndescription = "Names of labels."', "body.labels is str"),
        ("slack", "post_message", "/chat.postMessage", "/chat.post", "no operation"),
        ("slack", "post_message", "input.thread_ts", "input.thread", "thread is not in the specification"),
        ("stripe", "create_refund", '"duplicate"', '"double"', "body.reason is 'double'"),
        ("stripe", "create_price", 'interval = "{interval}"', 'every = "{interval}"', "body.recurring.every is not in"),
        ("linear", "create_issue", "teamId = ", "team = ", "unknown field 'team'"),
        ("linear", "list_teams", "nodes { id key", "nodes { id handle", "Cannot query field 'handle'"),
        ("linear", "create_project_update", '"onTrack"', '"fine"', "does not exist in"),
    ],
)  # fmt: skip
def test_the_check_finds_what_is_wrong(slug: str, action: str, old: str, new: str, complaint: str) -> None:
    """A wrong path, method, name, choice or type, a missing field: each is seen without the specifications."""
    text = packaged()[f"{slug}.toml"]
    start = text.index(f'name = "{action}"')
    at = text.index(old, start)
    changed = parse(f"{slug}.toml", text[:at] + new + text[at + len(old) :])
    found = changed.action(action)
    assert found is not None
    told = " ".join(extract_specs.misfit(changed, found, EXTRACT, SCHEMAS))
    assert complaint in told.replace('"', "'")


@pytest.mark.parametrize("slug", sorted(s for s, c in CONNECTORS.items() if c.graphql and c.spec.file))
def test_graphql_verifications_fit_the_schema(slug: str) -> None:
    """The call that proves a credential is a document of the schema, too."""
    connector = CONNECTORS[slug]
    schema = SCHEMAS[str(connector.spec.file)]
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
