"""All connectors of this installation: the packaged files, and the operator's own over them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from qlaud_actors.connectors.catalog_files import ConnectorFileError, packaged, parse, read_text
from qlaud_actors.connectors.connection import OF_SERVER
from qlaud_actors.connectors.hosted import HostedServers
from qlaud_actors.connectors.model import Auth, Connector
from qlaud_actors.connectors.oauth_apps import OAuthApp, OAuthAppError, read_apps
from qlaud_actors.log import get_logger

OVERRIDE = "QLAUD_CONNECTOR_BASE_URL_"
"""With a vendor's slug in capitals, `-` as `_`: another address for it."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectorCatalog:
    """Connectors by slug, in order of slug, and what the operator has set up for them."""

    connectors: Mapping[str, Connector]
    overrides: Mapping[str, str]
    """Addresses that stand in for vendors'."""
    apps: Mapping[str, OAuthApp] = field(default_factory=dict)
    """Applications to sign in with."""
    hosted: HostedServers = field(default_factory=lambda: HostedServers({}, {}))
    """Vendors' own MCP servers."""

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str],
        sources: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> "ConnectorCatalog":
        """Read all files; one of `directory` replaces the packaged one of its slug.

        `sources` maps a file's name to its text; the package's when left out. Raises ConnectorFileError.
        """
        connectors: dict[str, Connector] = {}
        for name, text in (packaged() if sources is None else sources).items():
            _add(connectors, name, parse(name, text))
        own: dict[str, Connector] = {}
        for path in sorted(directory.glob("*.toml")) if directory else ():
            _add(own, str(path), parse(str(path), read_text(path)))
            logger.info("connector_file", file=str(path))
        everything = {**connectors, **own}
        ordered = {slug: everything[slug] for slug in sorted(everything)}
        hosted = HostedServers.load(environ)
        return cls(ordered, _overrides(environ, ordered), _apps(environ, ordered), hosted)

    def find(self, slug: str) -> Connector | None:
        """The connector of this slug; a hosted MCP server's (`mcp-<slug>`) has a sign-in and no actions."""
        server = self.hosted.of_connection(slug)
        return server.connector if server else self.connectors.get(slug)

    def ways(self, connector: Connector) -> dict[int, Auth]:
        """The ways of signing in that work here, by their number: OAuth only with an application."""
        usable = connector.slug in self.apps
        return {n: auth for n, auth in enumerate(connector.auth) if auth.oauth2 is None or usable}


def _add(connectors: dict[str, Connector], name: str, connector: Connector) -> None:
    if Path(name).stem != connector.slug:
        raise ConnectorFileError(f"{name}: its slug is {connector.slug}, so it must be {connector.slug}.toml")
    if connector.slug.startswith(OF_SERVER):
        raise ConnectorFileError(f"{name}: slugs that begin with {OF_SERVER} are of hosted MCP servers")
    connectors[connector.slug] = connector


def _overrides(environ: Mapping[str, str], connectors: Mapping[str, Connector]) -> dict[str, str]:
    names = {OVERRIDE + slug.upper().replace("-", "_"): slug for slug in connectors}
    overrides = {}
    for name, value in environ.items():
        if not name.startswith(OVERRIDE) or not value.strip():
            continue
        if name not in names:
            raise ConnectorFileError(f"{name}: there is no connector of that name")
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConnectorFileError(f"{name} must be an http or https URL without query")
        overrides[names[name]] = value.strip().rstrip("/")
    return overrides


def _apps(environ: Mapping[str, str], connectors: Mapping[str, Connector]) -> dict[str, OAuthApp]:
    slugs = [slug for slug, one in connectors.items() if any(auth.oauth2 for auth in one.auth)]
    try:
        return read_apps(environ, slugs)
    except OAuthAppError as error:
        raise ConnectorFileError(str(error)) from None
