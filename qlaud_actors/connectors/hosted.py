"""Vendors' own hosted MCP servers, as data: where each one is, and what a person gives to use it.

One TOML file each, in `hosted/`; unknown fields are refused. Only servers that take a key or token in a
header are here: `source` says where that is written.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from qlaud_actors.connectors.catalog_files import ConnectorFileError, auth_problems
from qlaud_actors.connectors.connection import OF_SERVER, check_given
from qlaud_actors.connectors.model import Auth, Category, Connector, Https, Line, Part, Prose, Slug, Verify
from qlaud_actors.connectors.request import Access, credential_headers
from qlaud_actors.connectors.template import names

OVERRIDE = "QLAUD_MCP_BASE_URL_"
"""With an entry's slug in capitals, `-` as `_`: another address for its server."""


MAX_SLUG = 32


class HostedServer(Part, frozen=True, kw_only=True):
    """One file."""

    slug: Slug
    name: Line
    category: Category
    description: Prose
    server_url: Https
    docs_url: Https
    source: Https
    """The page that says that the server takes this credential."""
    auth: Auth

    def headers(self, config: Mapping[str, str]) -> dict[str, str]:
        """What a configuration comes to, names in lower case. Raises ConnectRefused, RequestProblem."""
        given = check_given(self.connector, 0, config)
        carried = credential_headers(Access(given.auth, given.settings, given.secrets))
        return {name.lower(): value for name, value in carried.items()}

    @property
    def connector(self) -> Connector:
        """As a connector without actions: what is given to sign in is asked for and checked alike."""
        return Connector(
            slug=OF_SERVER + self.slug,
            name=f"{self.name} (MCP server)",
            aliases=(self.name, self.slug.replace("-", " ")),
            category=self.category,
            description=self.description,
            docs_url=self.docs_url,
            base_url=self.server_url.rstrip("/"),
            auth=(self.auth,),
            verify=Verify(connected_as=self.name, account_id=self.slug),
            actions=(),
        )


@dataclass(frozen=True, slots=True)
class HostedServers:
    """All entries by slug, in order of slug, and the addresses that stand in for vendors'."""

    entries: Mapping[str, HostedServer]
    overrides: Mapping[str, str]

    @classmethod
    def load(cls, environ: Mapping[str, str], sources: Mapping[str, str] | None = None) -> "HostedServers":
        """Read all files. `sources` maps a file's name to its text; the package's when left out.

        Raises ConnectorFileError.
        """
        found = packaged() if sources is None else sources
        entries = [parse(name, text) for name, text in sorted(found.items())]
        by_slug = {entry.slug: entry for entry in entries}
        return cls(by_slug, _overrides(environ, by_slug))

    def find(self, slug: str) -> HostedServer | None:
        """The entry of this slug."""
        return self.entries.get(slug)

    def of_connection(self, slug: str) -> HostedServer | None:
        """The entry that connections of this name are for."""
        return self.entries.get(slug.removeprefix(OF_SERVER)) if slug.startswith(OF_SERVER) else None

    def url(self, entry: HostedServer) -> str:
        """Where its server is for this installation."""
        return self.overrides.get(entry.slug, entry.server_url)


def is_hosted(text: str) -> bool:
    """Whether a TOML text is meant to be a file of this kind."""
    try:
        return "server_url" in tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False


@lru_cache(256)
def parse(name: str, text: str) -> HostedServer:
    """The entry of one file. Raises ConnectorFileError."""
    try:
        entry = msgspec.convert(tomllib.loads(text), type=HostedServer)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConnectorFileError(f"{name}: {error}") from None
    if Path(name).name != f"{entry.slug}.toml":
        raise ConnectorFileError(f"{name}: its slug is {entry.slug}, so it must be {entry.slug}.toml")
    if len(entry.connector.slug) > MAX_SLUG:
        raise ConnectorFileError(f"{name}: its slug is longer than {MAX_SLUG - len(OF_SERVER)} characters")
    if found := list(auth_problems(entry.connector, entry.auth)):
        raise ConnectorFileError("\n".join(f"{name}: {problem}" for problem in found))
    auth, known = entry.auth, {field.name for field in entry.auth.fields}
    if auth.oauth2 or auth.query or not (auth.headers or auth.username):
        raise ConnectorFileError(f"{name}: the credential must go into headers")
    used = {placed for placed, _ in names([auth.headers, auth.username or "", auth.password or ""])}
    if used != known:
        raise ConnectorFileError(f"{name}: fields and placeholders differ: {', '.join(sorted(used ^ known))}")
    return entry


def packaged() -> dict[str, str]:
    """The TOML texts that come with this package, by file name."""
    directory = files("qlaud_actors.connectors").joinpath("hosted")
    return {e.name: e.read_text("utf-8") for e in directory.iterdir() if e.name.endswith(".toml")}


def _overrides(environ: Mapping[str, str], entries: Mapping[str, HostedServer]) -> dict[str, str]:
    named = {OVERRIDE + slug.upper().replace("-", "_"): slug for slug in entries}
    overrides = {}
    for name, value in environ.items():
        if not name.startswith(OVERRIDE) or not value.strip():
            continue
        parts = urlsplit(value.strip())
        if name not in named:
            raise ConnectorFileError(f"{name}: there is no hosted MCP server of that name")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConnectorFileError(f"{name} must be an http or https URL")
        overrides[named[name]] = value.strip()
    return overrides
