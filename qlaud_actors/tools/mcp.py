"""Uses MCP servers: registers and refreshes them, and calls their tools.

A call is made once. The library does not say how far a broken one came, so nothing is repeated here;
the journal's call id goes along, in `_meta` and as `Idempotency-Key`, for when a turn is carried on.
"""

import time
import uuid

import msgspec

from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.errors import Conflict, InvalidRequest, QlaudError
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.mcp import Listing, McpClient, McpFailed, Peer
from qlaud_actors.tools import mcp_store
from qlaud_actors.tools.mcp_listing import Unusable, tools_of
from qlaud_actors.tools.mcp_result import outcome_of
from qlaud_actors.tools.model import CallContext, McpServer, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.secrets import NOT_ON_RECORD, opened
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED

LIST_SECONDS = 30.0
"""For all pages of a server's tools; its own time-out when that is shorter."""

logger = get_logger(__name__)


class McpServerFailed(QlaudError):
    """The MCP server could not be reached, or did not answer as one."""

    code = "mcp_server_failed"
    status = 502


class McpCaller:
    """Calls the tools of MCP servers; one for each process."""

    def __init__(self, client: McpClient) -> None:
        self._client = client

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """The outcome; whatever goes wrong is an outcome in words for the model."""
        assert tool.server is not None
        try:
            peer = await _peer(tool.server, f"tool_call:{call.id}")
        except ConnectionLost:
            return _failed(NOT_ON_RECORD)
        if peer is None:
            return _failed("The headers of this tool's MCP server cannot be read: register it again.")
        start, result = time.monotonic(), "ok"
        name = tool.name.removeprefix(f"{tool.server.name}/")
        seconds = tool.timeout_ms / 1000
        try:
            told = await self._client.call_tool(peer, name, call.input, call_id=call.id, seconds=seconds)
            return outcome_of(told)
        except McpFailed as error:
            result = "refused" if error.by_server else "failed"
            return _outcome(error, tool)
        finally:
            logger.info(
                "mcp_call",
                tool_id=tool.id,
                mcp_server_id=str(tool.server.id),
                call_id=call.id,
                result=result,
                ms=round((time.monotonic() - start) * 1000),
            )

    async def listing(self, server: McpServer) -> Listing:
        """What a server offers now.

        Raises InvalidRequest when it refuses us, Conflict when its headers are lost, McpServerFailed.
        """
        peer = await _peer(server, "list_tools")
        if peer is None:
            raise Conflict("The headers of this MCP server cannot be read any more: register it again.")
        try:
            return await self._client.list_tools(peer, min(server.timeout_ms / 1000, LIST_SECONDS))
        except McpFailed as error:
            if error.status in {401, 403}:
                given = "auth_headers" if server.catalog_slug is None else "config"
                raise InvalidRequest(
                    f"The MCP server refused us with status {error.status}: check `{given}`."
                ) from None
            raise McpServerFailed(f"The MCP server's tools could not be listed: {error}.") from None


async def register_server(
    pool: Pool, vault: Vault, caller: McpCaller, account_id: uuid.UUID, server: McpServer
) -> tuple[McpServer, list[Tool], list[Unusable]]:
    """Connect, list, store: the server, its tools, and what it has that cannot be used.

    Nothing is stored before the server has answered. Raises Conflict, InvalidRequest, McpServerFailed.
    """
    await mcp_store.check_room(pool, account_id, server.name)
    listing = await caller.listing(server)
    tools, unusable = tools_of(server, listing.tools)
    unusable += await mcp_store.insert_server(pool, vault, account_id, server, tools)
    return await _as_stored(pool, vault, account_id, server.id, [*unusable, *_beyond(server, listing)])


async def refresh_server(
    pool: Pool, vault: Vault, caller: McpCaller, account_id: uuid.UUID, server_id: uuid.UUID
) -> tuple[McpServer, list[Tool], list[Unusable]]:
    """List again and store what has changed. Raises NotFound, and as `register_server`."""
    server = await mcp_store.get_server(pool, vault, account_id, server_id)
    listing = await caller.listing(server)
    tools, unusable = tools_of(server, listing.tools)
    unusable += await mcp_store.replace_tools(pool, account_id, server, tools)
    return await _as_stored(pool, vault, account_id, server.id, [*unusable, *_beyond(server, listing)])


async def _as_stored(
    pool: Pool, vault: Vault, account_id: uuid.UUID, server_id: uuid.UUID, unusable: list[Unusable]
) -> tuple[McpServer, list[Tool], list[Unusable]]:
    server = await mcp_store.get_server(pool, vault, account_id, server_id)
    return server, await mcp_store.list_server_tools(pool, server), unusable


def _beyond(server: McpServer, listing: Listing) -> list[Unusable]:
    return [Unusable(f"{server.name}/…", "The server lists more tools than are read.")] if listing.cut else []


async def _peer(server: McpServer, purpose: str) -> Peer | None:
    """Where it is and what it is sent; None when its headers do not open any more."""
    headers = await opened(server.headers, purpose, mcp_server_id=str(server.id))
    if headers is None:
        return None
    return Peer(server.url, msgspec.json.decode(headers.reveal(), type=dict[str, str]))


def _outcome(error: McpFailed, tool: Tool) -> ToolOutcome:
    if error.by_server:
        return _failed(f"The tool's MCP server refused the call: {error}")
    if not error.sent:
        return _failed(f"The tool's MCP server was not usable, so the call was not made: {error}.")
    words = f"The tool's MCP server gave no result: {error}."
    if tool.effect == "read":
        return _failed(words)
    return ToolOutcome(f"{words} {MAY_HAVE_HAPPENED}", is_error=True, status="unknown")


def _failed(words: str) -> ToolOutcome:
    return ToolOutcome(words, is_error=True)
