"""Whose credential a call to a hosted MCP server carries: a connection is found, opened, given up."""

import asyncio
import uuid
from dataclasses import dataclass
from weakref import WeakValueDictionary

from qlaud_actors.connectors.connection import Connection, Owner, RefreshFailed
from qlaud_actors.connectors.connections import Connections
from qlaud_actors.connectors.credentials import CredentialDead, Credentials, Held
from qlaud_actors.connectors.execute import NOT_CONNECTED, PARALLEL, Result, ended, expired
from qlaud_actors.connectors.model import Connector
from qlaud_actors.connectors.request import RequestProblem
from qlaud_actors.outbound.mcp import Listing, McpFailed, Peer
from qlaud_actors.tools.connector import outcome_of
from qlaud_actors.tools.hosted import LIST_SECONDS, HostedDesk
from qlaud_actors.tools.model import McpServer, ToolOutcome


class NotUsable(Exception):
    """There is no credential for a call; the outcome says why and what to do."""

    def __init__(self, connector: str, result: Result) -> None:
        super().__init__(result.output)
        self.outcome: ToolOutcome = outcome_of(connector, result)


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """A server as one of its users. It holds the credential, so it has no repr."""

    connector: Connector
    connection: Connection
    held: Held
    peer: Peer

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody is told, in every spelling that was sent."""
        return self.held.access.spelled()


class ServerUsers:
    """Opens hosted MCP servers for those whom a call is made for; one for each process."""

    def __init__(self, hosted: HostedDesk, connections: Connections, credentials: Credentials) -> None:
        self._hosted = hosted
        self._connections = connections
        self._credentials = credentials
        self._slots: WeakValueDictionary[uuid.UUID, asyncio.Semaphore] = WeakValueDictionary()

    def vendor(self, server: McpServer) -> Connector | None:
        """Whose server it is, while the catalogue has it."""
        return self._hosted.known(server.connector)

    async def find(self, server: McpServer, owner: Owner) -> tuple[Connector, Connection]:
        """The connection that this owner's calls use: its own, else the account's. Raises NotUsable."""
        slug = server.connector or ""
        connector = self.vendor(server)
        if connector is None:
            raise NotUsable(slug, Result(f"{server.name} is no longer in the catalogue.", "refused"))
        connection = await self._connections.find(owner, slug)
        if connection is None:
            raise NotUsable(slug, Result(f"{connector.name} is not connected.", NOT_CONNECTED))
        if connection.status == "expired":
            raise NotUsable(slug, expired(connector))
        return connector, connection

    def slot(self, connection: Connection) -> asyncio.Semaphore:
        """To be held for a call: vendors count per account."""
        return self._slots.setdefault(connection.id, asyncio.Semaphore(PARALLEL))

    async def open(self, connector: Connector, connection: Connection, purpose: str) -> Entry:
        """The server for a connection, each opening on record before. Raises NotUsable, ConnectionLost."""
        try:
            held = await self._credentials.open(connection, connector, purpose)
            peer = self._hosted.peer(connector.slug, held.access)
        except CredentialDead:
            raise NotUsable(connector.slug, expired(connector)) from None
        except (RequestProblem, RefreshFailed) as problem:
            raise NotUsable(connector.slug, Result(f"The call was not made: {problem}", "refused")) from None
        if not await self._connections.is_living(connection):
            raise NotUsable(connector.slug, ended(connector))
        return Entry(connector, connection, held, peer)

    async def used(self, entry: Entry) -> None:
        """Note that it went well."""
        await self._connections.touch(entry.connection)

    async def refused(self, entry: Entry) -> ToolOutcome:
        """Note that the server no longer takes this credential, and what is said about that."""
        await self._credentials.give_up(entry.connection, entry.held)
        return outcome_of(entry.connector.slug, expired(entry.connector))

    async def listing(self, account_id: uuid.UUID, server: McpServer) -> Listing | None:
        """What the server lists now: for the account itself, else for whoever has connected last.

        A credential that is refused is given up, and the next one tried; None: there is no more.
        Raises McpFailed, ConnectionLost.
        """
        seconds = min(server.timeout_ms / 1000, LIST_SECONDS)
        for owner in await self._connections.newest(account_id, server.connector or ""):
            try:
                entry = await self.open(*await self.find(server, owner), "list_tools")
                return await self._hosted.list_tools(entry.connector.slug, entry.held.access, seconds)
            except NotUsable:
                continue
            except McpFailed as error:
                if error.status not in (401, 403):
                    raise
                if error.status == 401:
                    await self.refused(entry)
        return None
