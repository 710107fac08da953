"""Connector files: what is refused, with the file's name first; the operator's own; the commands."""
# ruff: noqa: E501 - the tables are read by rows

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qlaud_actors.catalog_lint import lint
from qlaud_actors.cli import main
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.catalog_files import ConnectorFileError, packaged, parse
from qlaud_actors.connectors.hosts import is_allowed

GITHUB = packaged()["github.toml"]
SENTRY = packaged()["sentry.toml"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the operator's, and no data directory of another stack."""
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("QLAUD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("QLAUD_CONNECTOR_DIR", str(tmp_path / "own"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["catalog", *arguments])


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_files_pass_the_lint(name: str) -> None:
    """Every file that ships is readable, and every definition is one that models accept."""
    assert lint(parse(name, packaged()[name])) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('slug = "github"', "slug = github", "Invalid value"),
        ('slug = "github"', 'slug = "github"\nlogo = "x"', "unknown field `logo`"),
        ('category = "developer"', 'category = "things"', "Invalid enum value 'things'"),
        ('effect = "write"', 'effect = "maybe"', "Invalid enum value 'maybe'"),
        ('base_url = "https://api.github.com"', 'base_url = "http://api.github.com"', "base_url"),
        ('base_url = "https://api.github.com"', 'base_url = "https://{token}"', "{token} is not a field"),
        ('base_url = "https://api.github.com"', 'base_url = "https://api.github.com/"', "slash at the end"),
        ('{ Authorization = "Bearer {token}" }', '{ Authorization = "Bearer {tokn}" }', "{tokn} stands for nothing"),
        ('/issues/{issue_number}"', '/issues/{token}"', "{token} stands for nothing"),
        ("{path:segments}", "{path:pieces}", "no filter `pieces`"),
        ('"owner", "repo", "title"]', '"owner", "repo", "titel"]', "requires `titel`"),
        ('required = ["owner", "repo", "title"]', 'required = ["title"]', "`owner` is part of the path"),
        ('uses = ["owner", "repo"]', 'uses = ["owner", "rpo"]', "uses `rpo`"),
        ('paging = "pages"', 'paging = "pagse"', "no [paging.pagse]"),
        ('param = "page"\n', "", "kind `link` needs `param`"),
        ('name = "get_issue"', 'name = "search_issues"', "two actions named search_issues"),
        ("input.visibility", "input.cursor", "input `cursor` has the name"),
        ('query = { sort = "updated" }', 'query = { sort = "updated", "..." = "{visibility}" }', "name parameters"),
        ('[spec]\nfile = "github"', "[spec]", "needs a `spec`"),
        ('pattern = "(gh', 'pattern = "((gh', "field token: pattern"),
        ('[verify]\nrequest = "GET /user"', "[verify]", "needs `request` or `document`"),
        ('request = "GET /user/repos"', 'request = "GET /user/repos?x=1"', "request"),
        ("[inputs.owner]", '[inputs.unused]\ntype = "string"\n\n[inputs.owner]', "nothing uses unused"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_by_name(old: str, new: str, complaint: str) -> None:
    """The message begins with the file's name and says what is wrong."""
    assert old in GITHUB
    with pytest.raises(ConnectorFileError) as caught:
        parse("github.toml", GITHUB.replace(old, new))
    assert all(line.startswith("github.toml: ") for line in str(caught.value).splitlines())
    assert complaint in str(caught.value)


def test_the_example_in_the_docs_is_a_valid_file() -> None:
    """Whoever copies it begins with something that works."""
    page = Path(__file__).parents[3] / "docs/reference/connector-files.md"
    example = page.read_text("utf-8").split("```toml\n")[1].split("```")[0]
    assert lint(parse("acme-desk.toml", example)) == []


def test_a_host_that_a_connection_chooses_needs_limits() -> None:
    """Without `hosts` a field could send the credential anywhere."""
    with pytest.raises(ConnectorFileError, match="`hosts` must say"):
        parse("sentry.toml", SENTRY.replace('hosts = ["sentry.io", "*.sentry.io"]', ""))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://sentry.io/api/0", True), ("https://us.sentry.io/api/0", True), ("https://us.sentry.io:443/", True),
        ("http://us.sentry.io", False), ("https://sentry.io.evil.example", False), ("https://evilsentry.io", False),
        ("https://sentry.io:444", False), ("https://a@sentry.io", False), ("https://.sentry.io", False),
        ("https://sentry.io\\.evil.example", False), ("https://[::1]", False), ("https://sentry.io:x", False),
    ],
)  # fmt: skip
def test_hosts_are_exact_or_below_a_domain(url: str, allowed: bool) -> None:
    """The check reads an address as clients do."""
    assert is_allowed(url, "https://{host}/api/0", ("sentry.io", "*.sentry.io")) is allowed


def test_the_lint_wants_words_a_model_can_choose_by() -> None:
    """Inputs without description, lists of what, and writes that call themselves searches."""
    text = GITHUB.replace('description = "Words and qualifiers in GitHub\'s search syntax.", ', "")
    assert any("input `q` has no description" in line for line in lint(parse("github.toml", text)))
    text = GITHUB.replace("Add a comment to an issue or", "Want to comment? Add a comment to an issue or")
    assert any("asks a question" in line for line in lint(parse("github.toml", text)))


def test_an_operators_file_replaces_the_packaged_one(tmp_path: Path) -> None:
    """By slug; a file whose name is not its slug is refused."""
    own = tmp_path / "own" / "github.toml"
    own.write_text(GITHUB.replace('name = "GitHub"', 'name = "GitHub of ours"'), "utf-8")
    catalog = ConnectorCatalog.load({}, directory=tmp_path / "own")
    github = catalog.find("github")
    assert github is not None
    assert github.name == "GitHub of ours"
    assert len(catalog.connectors) == len(packaged())
    own.rename(tmp_path / "own" / "hub.toml")
    with pytest.raises(ConnectorFileError, match=r"hub\.toml: its slug is github"):
        ConnectorCatalog.load({}, directory=tmp_path / "own")


def test_overrides_name_connectors_that_exist() -> None:
    """Another address is an http URL, of a vendor that is there."""
    loaded = ConnectorCatalog.load(
        {"QLAUD_CONNECTOR_BASE_URL_GITHUB": "http://127.0.0.1:9/", "X_BASE_URL": "y"}
    )
    assert loaded.overrides == {"github": "http://127.0.0.1:9"}
    with pytest.raises(ConnectorFileError, match="QLAUD_CONNECTOR_BASE_URL_GITHUB must be"):
        ConnectorCatalog.load({"QLAUD_CONNECTOR_BASE_URL_GITHUB": "127.0.0.1:9"})
    with pytest.raises(ConnectorFileError, match="no connector of that name"):
        ConnectorCatalog.load({"QLAUD_CONNECTOR_BASE_URL_GITHAB": "http://127.0.0.1:9"})


def test_show_lists_what_a_model_sees() -> None:
    """The run contract: `[{slug, actions: [{name, description, input_schema}]}]`."""
    shown = {connector["slug"]: connector for connector in json.loads(run("show", "--json").stdout)}
    assert set(shown) == {name.removesuffix(".toml") for name in packaged()}
    action = next(a for a in shown["linear"]["actions"] if a["name"] == "create_issue")
    assert action["input_schema"]["required"] == ["team_id", "title"]
    assert action["input_schema"]["additionalProperties"] is False
    assert "create_issue" in run("show", "linear").stdout
    assert run("show", "nothing").exit_code == 1


def test_a_new_file_passes_the_lint(tmp_path: Path) -> None:
    """The skeleton is a valid file, is not written over another, and is found in the operator's folder."""
    assert run("new", "acme-desk").exit_code == 0
    path = tmp_path / "own" / "acme-desk.toml"
    assert run("lint", str(path)).stdout == "1 actions, 0 problems\n"
    assert run("new", "acme-desk").exit_code == 1
    assert "acme-desk" in run("show").stdout
    assert run("new", "Acme!").exit_code == 1
    path.write_text("slug = 1", "utf-8")
    failed = run("lint")
    assert failed.exit_code == 1
    assert f"{path}: " in failed.stderr
    path.write_bytes(b"\xff")
    assert f"{path}: UnicodeDecodeError" in run("lint").stderr
