"""Vendors' hosted MCP servers, used with somebody's own credential: asked, and listed for the first time.

Where a server is, the catalogue says at every use. What a server says is told on without the credential,
which it may repeat.
"""

import uuid

from qlaud_actors.connectors.answer import hide
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import OF_SERVER, ConnectRefused, Given
from qlaud_actors.connectors.model import Connector
from qlaud_actors.connectors.request import Access, RequestProblem, credential_headers
from qlaud_actors.db.pool import Connection
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.mcp import Listing, McpClient, McpFailed, Peer
from qlaud_actors.tools import mcp_store
from qlaud_actors.tools.mcp_listing import tools_of

LIST_SECONDS = 30.0
"""For all pages of a server's tools; its own time-out when that is shorter."""

logger = get_logger(__name__)


class HostedDesk:
    """Speaks to hosted servers before there is a connection; one for each process."""

    def __init__(self, client: McpClient, catalog: ConnectorCatalog) -> None:
        self._client = client
        self._catalog = catalog

    def known(self, connector: str | None) -> Connector | None:
        """The vendor that connections of this name are for, while the catalogue has it."""
        entry = self._catalog.hosted.of_connection(connector or "")
        return entry.connector if entry else None

    def peer(self, connector: str, access: Access) -> Peer:
        """The server and what it is sent. Raises RequestProblem."""
        entry = self._catalog.hosted.of_connection(connector)
        if entry is None:
            raise RequestProblem("This server is no longer in the catalogue.")
        carried = credential_headers(access)
        return Peer(self._catalog.hosted.url(entry), {name.lower(): carried[name] for name in carried})

    async def list_tools(self, connector: str, access: Access, seconds: float = LIST_SECONDS) -> Listing:
        """What it lists for a credential. Raises McpFailed, RequestProblem."""
        spelled = access.spelled()
        try:
            listing = await self._client.list_tools(self.peer(connector, access), seconds)
        except McpFailed as error:
            raise without(error, spelled) from None
        return Listing(hide(listing.tools, spelled), listing.cut)

    async def ask(self, connector: str, given: Given) -> Listing:
        """The same for a credential that somebody has just given. Raises ConnectRefused."""
        vendor = self.known(connector)
        name = vendor.name if vendor else connector
        try:
            return await self.list_tools(connector, Access(given.auth, given.settings, given.secrets))
        except RequestProblem as problem:
            raise ConnectRefused(None, str(problem)) from None
        except McpFailed as error:
            logger.info("hosted_server_refused", connector=connector, status=error.status)
            raise ConnectRefused(None, _in_words(name, error)) from None

    async def keep(self, rows: Connection, account_id: uuid.UUID, connector: str, listing: Listing) -> None:
        """The tools of the account's servers of this vendor whose tools nobody has listed yet.

        Within the transaction that saves the connection: there is never one without the other.
        """
        for server in await mcp_store.list_first(rows, account_id, connector.removeprefix(OF_SERVER)):
            tools, unusable = tools_of(server, listing.tools)
            unusable += await mcp_store.fill(rows, account_id, server, tools)
            logger.info("mcp_listed", mcp_server_id=str(server.id), tools=len(tools), unusable=len(unusable))


def without(error: McpFailed, secrets: tuple[str, ...]) -> McpFailed:
    """The same failure, in words that hold no secret."""
    words = hide(str(error), secrets)
    return McpFailed(words, sent=error.sent, status=error.status, by_server=error.by_server)


def _in_words(name: str, error: McpFailed) -> str:
    """Why there is no connection, for whoever gave the credential."""
    if error.status == 401:
        return f"{name} does not accept this credential (status 401)."
    if error.status == 403:
        return f"{name} does not let this credential in (status 403): it may lack a permission."
    if error.by_server:
        return f"{name} refused: {error}"
    if error.status is not None and 400 <= error.status < 500 and error.status != 429:
        return f"{name} answered with status {error.status}: it may not accept this credential."
    return f"{name} could not be asked: {error}. Nothing was saved. Try again."
