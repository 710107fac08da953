"""Files of hosted MCP servers: each is usable, and what is wrong with one is said."""

import base64
from pathlib import Path

import pytest
from click.testing import CliRunner

from qlaud_actors.catalog_commands import catalog
from qlaud_actors.catalog_lint import lint_hosted
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.catalog_files import ConnectorFileError
from qlaud_actors.connectors.catalog_files import packaged as connector_files
from qlaud_actors.connectors.connection import ConnectRefused
from qlaud_actors.connectors.hosted import HostedServer, HostedServers, is_hosted, packaged, parse
from qlaud_actors.outbound.guard import check_url

HOSTED = HostedServers.load({})
RENAMED = connector_files()["linear.toml"].replace('slug = "linear"', 'slug = "mcp-linear"')
FILE = """
slug = "acme"
name = "Acme"
category = "developer"
description = "Acme's own server."
server_url = "https://mcp.acme.example/mcp"
docs_url = "https://acme.example/docs"
source = "https://acme.example/docs"

[auth]
scheme = "bearer"
label = "Token"
headers = { Authorization = "Bearer {token}" }

[[auth.fields]]
name = "token"
label = "Token"
secret = true
help = "In the settings."
"""


@pytest.mark.parametrize("entry", HOSTED.entries.values(), ids=HOSTED.entries.keys())
def test_every_packaged_server_is_public_and_has_a_secret(entry: HostedServer) -> None:
    """Its address passes the guard, and something of what is given is a secret that is needed."""
    check_url(entry.server_url, allow_private=False)
    assert any(field.secret and not field.optional for field in entry.auth.fields)


def test_a_configuration_becomes_headers() -> None:
    """By the template of the entry: bearer, basic, and a second header."""
    atlassian = HOSTED.entries["atlassian"].headers({"email": "a@b.example", "api_token": "t0ken"})
    assert atlassian == {"authorization": "Basic " + base64.b64encode(b"a@b.example:t0ken").decode()}
    axiom = HOSTED.entries["axiom"].headers({"token": "t", "organization": "acme-1"})
    assert axiom == {"authorization": "Bearer t", "x-axiom-org-id": "acme-1"}
    with pytest.raises(ConnectRefused):
        HOSTED.entries["axiom"].headers({"token": "t"})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('slug = "acme"', 'slug = "other"'),
        ("https://mcp.acme", "http://mcp.acme"),
        ("Bearer {token}", "Bearer {key}"),
        ("Bearer {token}", "Bearer x"),
        ("secret = true", "secrets = true"),
        ('help = "In the settings."', 'help = "In the settings."\nexample = "t"\npattern = "[0-9]+"'),
        ('slug = "acme"', 'slug = "a234567890123456789012345678901"'),
        ('headers = { Authorization = "Bearer {token}" }', 'query = { key = "{token}" }'),
    ],
)
def test_what_is_wrong_with_a_file_names_the_file(old: str, new: str) -> None:
    """A wrong slug, http, a placeholder without field, an unused or unknown field, an example that its
    pattern refuses, a slug too long for a connection's name, a key in the URL.
    """
    assert parse("acme.toml", FILE).slug == "acme"
    with pytest.raises(ConnectorFileError, match=r"^acme\.toml"):
        parse("acme.toml", FILE.replace(old, new))


def test_another_address_is_for_a_server_that_exists() -> None:
    """`QLAUD_MCP_BASE_URL_<SLUG>` names an entry, and an http or https URL."""
    loaded = HostedServers.load({"QLAUD_MCP_BASE_URL_ACME": "http://127.0.0.1:9/mcp"}, {"acme.toml": FILE})
    assert loaded.url(loaded.entries["acme"]) == "http://127.0.0.1:9/mcp"
    with pytest.raises(ConnectorFileError, match="no hosted MCP server"):
        HostedServers.load({"QLAUD_MCP_BASE_URL_NOBODY": "http://127.0.0.1:9"})
    with pytest.raises(ConnectorFileError, match="must be an http"):
        HostedServers.load({"QLAUD_MCP_BASE_URL_LINEAR": "127.0.0.1:9"})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("secret = true", "secret = true\noptional = true", "asks for no secret"),
        ("secret = true", 'secret = true\ndefault = "t"', "a secret has no default"),
        ("example/mcp", "example/mcp?key=1", "without query"),
        ("Acme's own", "Its own", "whose server it is"),
    ],
)
def test_the_lint_reads_hosted_files_too(tmp_path: Path, old: str, new: str, words: str) -> None:
    """A file is known by its `server_url`; the packaged ones are among what is checked."""
    path = tmp_path / "acme.toml"
    path.write_text(FILE)
    done = CliRunner().invoke(catalog, ["lint", str(path)])
    assert (done.exit_code, done.output) == (0, "0 actions, 1 hosted servers, 0 problems\n")
    path.write_text(FILE.replace(old, new))
    failed = CliRunner().invoke(catalog, ["lint", str(path)])
    assert failed.exit_code == 1
    assert failed.output.startswith(f"{path}: ")
    assert words in failed.output
    assert all(is_hosted(text) and not lint_hosted(parse(name, text)) for name, text in packaged().items())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("acme.toml", FILE),
        ("mcp-linear.toml", RENAMED),
    ],
)
def test_the_lint_says_what_no_process_starts_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """The operator's folder holds connectors only, none with the name of a hosted server's connections."""
    (tmp_path / name).write_text(text)
    monkeypatch.setenv("QLAUD_CONNECTOR_DIR", str(tmp_path))
    done = CliRunner().invoke(catalog, ["lint"])
    assert (done.exit_code, name in done.output) == (1, True)


def test_a_hosted_server_is_connected_like_a_connector() -> None:
    """By `mcp-` and its slug, with its own fields; no connector file may be called so."""
    catalog_ = ConnectorCatalog.load({})
    found = catalog_.find("mcp-axiom")
    assert found is not None
    assert (found.slug, found.actions) == ("mcp-axiom", ())
    assert [field.name for field in found.auth[0].fields] == ["token", "organization"]
    assert list(catalog_.ways(found)) == [0]
    assert (catalog_.find("mcp-nobody"), catalog_.find("axiom")) == (None, None)
    renamed = {"mcp-linear.toml": RENAMED}
    with pytest.raises(ConnectorFileError, match="are of hosted MCP servers"):
        ConnectorCatalog.load({}, renamed)
