"""Talks to MCP servers over Streamable HTTP with the official library: one fresh session for each errand.

The library is imported when it is needed first, in a thread: that takes half a second, which neither
the start of every process nor the event loop should pay.
"""

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from qlaud_actors.outbound.attempt import Session
from qlaud_actors.outbound.mcp_transport import GuardedTransport

MAX_PAGES = 50
MAX_LISTED = 500
"""Tools of one server; what is beyond is not read."""

MAX_LIST_BYTES = 4 * 1024 * 1024
MAX_CALL_BYTES = 1024 * 1024
"""For a whole session: images come as base64, and are described instead of passed on."""

MAX_WORDS = 2000
"""Of a server's own error message."""

T = TypeVar("T")


class McpFailed(Exception):
    """The server gave no result; the message says why and holds no header.

    `sent`: whether the tool call may have reached the server. `status`: the HTTP status that it refused
    with. `by_server`: it answered, with an error of the protocol, whose words the message has.
    """

    def __init__(
        self, message: str, *, sent: bool = False, status: int | None = None, by_server: bool = False
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.status = status
        self.by_server = by_server

    @property
    def words(self) -> str:
        """As much of the message as is told on. Secrets have to be hidden in the whole, before."""
        return str(self)[:MAX_WORDS]


@dataclass(frozen=True, slots=True)
class Listing:
    """The tools of a server as it describes them (`Tool` of the protocol); `cut`: it has more."""

    tools: list[dict[str, Any]]
    cut: bool


@dataclass(frozen=True, slots=True, repr=False)
class Peer:
    """Where a server is, and the headers that it wants to see."""

    url: str
    headers: Mapping[str, str]


class McpClient:
    """Runs errands through a guarded session; one for each process."""

    def __init__(self, session: Session, *, allow_private: bool) -> None:
        self._session = session
        self._allow_private = allow_private

    async def list_tools(self, peer: Peer, seconds: float) -> Listing:
        """All tools, page by page. Raises McpFailed."""

        async def work(mcp: Any) -> Listing:
            from mcp.types import PaginatedRequestParams

            found: list[dict[str, Any]] = []
            cursor = None
            for _ in range(MAX_PAGES):
                page = await mcp.list_tools(params=PaginatedRequestParams(cursor=cursor))
                found += [_plain(tool) for tool in page.tools]
                cursor = page.nextCursor
                if cursor is None or len(found) > MAX_LISTED:
                    break
            return Listing(found[:MAX_LISTED], cut=cursor is not None or len(found) > MAX_LISTED)

        return await self._errand(peer, seconds, self._transport(MAX_LIST_BYTES), work)

    async def call_tool(
        self, peer: Peer, name: str, arguments: dict[str, Any], *, call_id: str, seconds: float
    ) -> dict[str, Any]:
        """A `CallToolResult` of the protocol. Raises McpFailed.

        The library's own `call_tool` would list all tools again and run the server's schema over the
        result; this sends just the call.
        """

        async def work(mcp: Any) -> dict[str, Any]:
            from mcp import types

            meta = types.RequestParams.Meta(idempotencyKey=call_id)  # type: ignore[call-arg]
            params = types.CallToolRequestParams(name=name, arguments=arguments, _meta=meta)
            request = types.ClientRequest(types.CallToolRequest(params=params))
            return _plain(await mcp.send_request(request, types.CallToolResult))

        return await self._errand(peer, seconds, self._transport(MAX_CALL_BYTES, call_id), work)

    def _transport(self, max_bytes: int, call_id: str | None = None) -> GuardedTransport:
        allow_private = self._allow_private
        return GuardedTransport(
            self._session, allow_private=allow_private, max_bytes=max_bytes, call_id=call_id
        )

    async def _errand(
        self, peer: Peer, seconds: float, transport: GuardedTransport, work: Callable[[Any], Awaitable[T]]
    ) -> T:
        await asyncio.to_thread(_load_library)
        try:
            async with asyncio.timeout(seconds) as deadline:
                loop = asyncio.get_running_loop()
                transport.on_failure = lambda: deadline.reschedule(loop.time())
                outcome = await _in_session(peer, transport, work)
        except TimeoutError:
            outcome = McpFailed(f"it did not answer within {seconds:g} s")
        except Exception:  # noqa: BLE001 - groups of whatever the library's tasks met; the transport knows
            outcome = McpFailed("it does not speak MCP over Streamable HTTP")
        if isinstance(outcome, McpFailed):
            raise _explained(outcome, transport) from None
        return outcome


async def _in_session(
    peer: Peer, transport: GuardedTransport, work: Callable[[Any], Awaitable[T]]
) -> T | McpFailed:
    """Open a session, do the work, close. The library wraps what is raised in here, so it is returned."""
    from mcp import ClientSession, McpError
    from mcp.client.streamable_http import streamable_http_client
    from mcp.types import Implementation

    async def note(message: object) -> None:
        if isinstance(message, Exception):  # an answer that could not be read: nobody else is told
            transport.fail("its answer is not a message of MCP")

    client = httpx.AsyncClient(transport=transport, headers=dict(peer.headers), timeout=None, trust_env=False)  # noqa: S113 - the caller has a deadline
    info = Implementation(name="qlaud-actors", version="1")
    async with (
        client,
        streamable_http_client(peer.url, http_client=client) as (read, write, _),
        ClientSession(read, write, message_handler=note, client_info=info) as mcp,
    ):
        try:
            await mcp.initialize()
            return await work(mcp)
        except McpError as error:
            return McpFailed(error.error.message, by_server=True)
        except BaseException:
            transport.over = True
            raise


def _explained(failed: McpFailed, transport: GuardedTransport) -> McpFailed:
    """The failure with what the transport saw, which is nearer to the cause."""
    status = transport.status if (transport.status or 0) >= 300 else None
    if transport.failure is not None:
        words = transport.failure
    elif status is not None:
        words = f"it answered with status {status}"
    else:
        return McpFailed(str(failed), sent=transport.call.sent, by_server=failed.by_server)
    return McpFailed(words, sent=transport.call.sent, status=status)


def _plain(model: Any) -> dict[str, Any]:
    """A message of the library as the JSON object that it is on the wire."""
    plain: dict[str, Any] = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    return plain


def _load_library() -> None:
    importlib.import_module("mcp.client.streamable_http")
    # It logs what is sent and received, tool inputs among them, and httpx logs URLs.
    logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)
    logging.getLogger("httpx").setLevel(logging.WARNING)
