"""An MCP server made with the official library, on loopback: its tools can be changed while it runs."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

TOKEN = "mcp-canary-token-4711"
ANSWERS: dict[str, types.CallToolResult] = {
    "huge": types.CallToolResult(content=[types.TextContent(type="text", text="x" * 2_000_000)]),
    "broken": types.CallToolResult(content=[types.TextContent(type="text", text="No luck.")], isError=True),
    "picture": types.CallToolResult(
        content=[
            types.TextContent(type="text", text="Here:"),
            types.ImageContent(type="image", data="AAAA", mimeType="image/png"),
        ]
    ),
    "sum": types.CallToolResult(
        content=[types.TextContent(type="text", text="three")], structuredContent={"sum": 3}
    ),
}
"""What tools of these names answer; `hang` never does, `mirror` says with which header it was called, all
others say with what arguments."""


def listed(name: str, **more: Any) -> types.Tool:
    """A tool as the server lists it."""
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    return types.Tool(**{"name": name, "description": f"Does {name}.", "inputSchema": schema, **more})


@dataclass
class McpDouble:
    """The server: what it offers, and what was asked of it."""

    url: str = ""
    tools: list[types.Tool] = field(default_factory=list)
    page_size: int = 100
    endless: bool = False
    """Every page says that there is another one."""
    status: int | None = None
    """Refuse every request with it."""
    people: dict[str, str] | None = None
    """Whom the bearer tokens that are let in belong to; None: anybody is let in."""
    redirect: str | None = None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    metas: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Method and headers of each."""
    call_headers: list[dict[str, str]] = field(default_factory=list)

    def who(self) -> list[str]:
        """On whose behalf each call came, by its token."""
        return [(self.people or {})[_bearer(headers)] for headers in self.call_headers]

    def library_server(self) -> Server[Any, Any]:
        """The library's server over this state."""
        server: Server[Any, Any] = Server("double")

        @server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]
        async def list_tools(request: types.ListToolsRequest) -> types.ListToolsResult:
            params = request.params if request else None  # the library itself asks with nothing
            start = int(params.cursor) if params and params.cursor else 0
            end = start + self.page_size
            more = self.endless or end < len(self.tools)
            cursor = str(end % max(len(self.tools), 1)) if more else None
            return types.ListToolsResult(tools=self.tools[start:end], nextCursor=cursor)

        @server.call_tool(validate_input=False)  # type: ignore[untyped-decorator]
        async def call_tool(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
            context = server.request_context
            self.calls.append((name, arguments))
            self.metas.append(context.meta.model_dump() if context.meta else {})
            self.call_headers.append(dict(context.request.headers) if context.request else {})
            self.called.set()
            if name == "hang":
                await asyncio.Event().wait()
            if name == "mirror":
                arguments = {"told": self.call_headers[-1].get("authorization")}
            text = types.TextContent(type="text", text=f"{name} {arguments}")
            return ANSWERS.get(name) or types.CallToolResult(content=[text])

        return server


@contextlib.asynccontextmanager
async def mcp_double(*tools: types.Tool, json_response: bool = False) -> AsyncIterator[McpDouble]:
    """Serve it; sessions and SSE streams as the library makes them, or plain JSON."""
    double = McpDouble(tools=list(tools))
    manager = StreamableHTTPSessionManager(double.library_server(), json_response=json_response)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        double.requests.append((scope["method"], headers))
        if double.redirect is not None:
            await RedirectResponse(double.redirect, 307)(scope, receive, send)
        elif double.status is not None:
            await Response("refused", double.status)(scope, receive, send)
        elif double.people is not None and _bearer(headers) not in double.people:
            await Response(f"Who is {_bearer(headers)}?", 401)(scope, receive, send)
        else:
            await manager.handle_request(scope, receive, send)

    app = Starlette(routes=[Mount("/mcp", app=handle)], lifespan=lambda _: manager.run())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=0)
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110 - the library has no event for it
            await asyncio.sleep(0.005)
        double.url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp/"
        try:
            yield double
        finally:
            server.should_exit = True
            await serving


def _bearer(headers: dict[str, str]) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")
