"""Uses MCP servers: registers and refreshes them, and calls their tools.

A call is made once. The library does not say how far a broken one came, so nothing is repeated here;
the journal's call id goes along, in `_meta` and as `Idempotency-Key`, for when a turn is carried on.
"""

import time
import uuid
from dataclasses import replace
from typing import Any

import msgspec

from qlaud_actors.connectors.answer import hide
from qlaud_actors.connectors.connection import Owner
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.errors import Conflict, InvalidRequest, QlaudError
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.mcp import Listing, McpClient, McpFailed, Peer
from qlaud_actors.tools import mcp_store
from qlaud_actors.tools.connector import PREFIX, owner_of
from qlaud_actors.tools.hosted import LIST_SECONDS, without
from qlaud_actors.tools.mcp_listing import Unusable, entrance, tools_of
from qlaud_actors.tools.mcp_result import outcome_of
from qlaud_actors.tools.model import CallContext, McpServer, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.secrets import NOT_ON_RECORD, opened
from qlaud_actors.tools.server_users import NotUsable, ServerUsers
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED

logger = get_logger(__name__)


class McpServerFailed(QlaudError):
    """The MCP server could not be reached, or did not answer as one."""

    code = "mcp_server_failed"
    status = 502


class McpCaller:
    """Calls the tools of MCP servers; one for each process."""

    def __init__(self, client: McpClient, users: ServerUsers | None = None) -> None:
        self._client = client
        self._users = users

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """The outcome; whatever goes wrong is an outcome in words for the model."""
        assert tool.server is not None
        try:
            if tool.server.auth_mode == "per_user":
                return await self._as_user(tool, tool.server, call, owner_of(context))
            peer = await _peer(tool.server, f"tool_call:{call.id}")
        except ConnectionLost:
            return _failed(NOT_ON_RECORD)
        if peer is None:
            return _failed("The headers of this tool's MCP server cannot be read: register it again.")
        return _told(await self._errand(peer, tool, tool.server, call), tool)

    async def _as_user(self, tool: Tool, server: McpServer, call: ToolCall, owner: Owner) -> ToolOutcome:
        """With the credential of whom the call is made for, and nobody else's. Raises ConnectionLost."""
        assert self._users is not None
        try:
            connector, connection = await self._users.find(server, owner)
            if server.tools_cache_at_ms is None:
                return ToolOutcome(f"{connector.name} is connected now. Search again to find its tools.")
            async with self._users.slot(connection):
                entry = await self._users.open(connector, connection, f"tool_call:{call.id}")
                told = await self._errand(entry.peer, tool, server, call)
        except NotUsable as problem:
            return problem.outcome
        if not isinstance(told, McpFailed):
            await self._users.used(entry)
            return _told(hide(told, entry.secrets), tool)
        if told.status == 401:
            return await self._users.refused(entry)
        return _told(without(told, entry.secrets), tool)

    async def _errand(
        self, peer: Peer, tool: Tool, server: McpServer, call: ToolCall
    ) -> dict[str, Any] | McpFailed:
        """The call itself: what the server answered, or why there is no answer."""
        start, result = time.monotonic(), "ok"
        name = tool.name.removeprefix(f"{server.name}/")
        seconds = tool.timeout_ms / 1000
        try:
            return await self._client.call_tool(peer, name, call.input, call_id=call.id, seconds=seconds)
        except McpFailed as error:
            result = "refused" if error.by_server else "failed"
            return error
        finally:
            logger.info(
                "mcp_call",
                tool_id=tool.id,
                mcp_server_id=str(server.id),
                call_id=call.id,
                result=result,
                ms=round((time.monotonic() - start) * 1000),
            )

    async def listing(self, account_id: uuid.UUID, server: McpServer) -> Listing | None:
        """What a server offers now; None: nobody is connected to it with whose credential it could be asked.

        Raises InvalidRequest when it refuses us, Conflict when its headers are lost, McpServerFailed.
        """
        if server.auth_mode == "per_user":
            assert self._users is not None
            try:
                return await self._users.listing(account_id, server)
            except McpFailed as error:
                raise _not_listed(error) from None
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
            raise _not_listed(error) from None

    def entrance(self, server: McpServer) -> list[Tool]:
        """What stands for a server's tools until somebody connects."""
        vendor = self._users.vendor(server) if self._users else None
        return [entrance(server, vendor.name, vendor.description)] if vendor else []


async def register_server(
    pool: Pool, vault: Vault, caller: McpCaller, account_id: uuid.UUID, server: McpServer
) -> tuple[McpServer, list[Tool], list[Unusable]]:
    """Connect, list, store: the server, its tools, and what it has that cannot be used.

    Nothing is stored before the server has answered. Raises Conflict, InvalidRequest, McpServerFailed.
    """
    await mcp_store.check_room(pool, account_id, server.name)
    listing = await caller.listing(account_id, server)
    if listing is None:
        unlisted = replace(server, tools_cache_at_ms=None)
        unusable = await mcp_store.insert_server(pool, vault, account_id, unlisted, caller.entrance(unlisted))
        return await _as_stored(pool, vault, account_id, server.id, unusable)
    tools, unusable = tools_of(server, listing.tools)
    unusable += await mcp_store.insert_server(pool, vault, account_id, server, tools)
    return await _as_stored(pool, vault, account_id, server.id, [*unusable, *_beyond(server, listing)])


async def refresh_server(
    pool: Pool, vault: Vault, caller: McpCaller, account_id: uuid.UUID, server_id: uuid.UUID
) -> tuple[McpServer, list[Tool], list[Unusable]]:
    """List again and store what has changed. Raises NotFound, and as `register_server`."""
    server = await mcp_store.get_server(pool, vault, account_id, server_id)
    listing = await caller.listing(account_id, server)
    if listing is None:
        tool = f"{PREFIX}{server.connector}"
        raise Conflict(f"No connected account can list the tools of this MCP server: connect `{tool}`.")
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


def _not_listed(error: McpFailed) -> McpServerFailed:
    return McpServerFailed(f"The MCP server's tools could not be listed: {error}.")


def _told(told: dict[str, Any] | McpFailed, tool: Tool) -> ToolOutcome:
    return _outcome(told, tool) if isinstance(told, McpFailed) else outcome_of(told)


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
