"""The account's tools as an MCP server: Streamable HTTP without sessions and streams, for any key.

One JSON-RPC message for each POST, one JSON answer. There is nothing to subscribe to, so GET and DELETE
are not served, which clients take for just that. Names are spelled as model providers accept them,
because clients pass them on to models; the tool's own name is its title.
"""

from typing import Any, Literal

import msgspec
from aiohttp import web

from api.bodies import read_json
from api.context import call_context, caller, services
from api.responses import json_response
from qlaud_actors.ids import new_call_id
from qlaud_actors.log import get_logger
from qlaud_actors.providers.names import ToolNames
from qlaud_actors.tools.connector import owner_of
from qlaud_actors.tools.dispatch import NoJournal
from qlaud_actors.tools.model import Tool, ToolCall, ToolOutcome, Toolset
from qlaud_actors.tools.registry import reachable_tools

routes = web.RouteTableDef()

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Of the protocol, newest first; the older ones differ in nothing that is used here."""

INVALID_PARAMS, UNKNOWN_METHOD = -32602, -32601  # JSON-RPC 2.0, 5.1

logger = get_logger(__name__)


class Message(msgspec.Struct):
    """A JSON-RPC request; without an id a notification, or a response to what was never asked."""

    jsonrpc: Literal["2.0"]
    method: str | None = None
    id: int | str | None = None
    params: dict[str, Any] = {}


class CallParams(msgspec.Struct):
    """Of `tools/call`."""

    name: str
    arguments: dict[str, Any] = {}


class _Refused(Exception):
    """A JSON-RPC error: code and words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@routes.post("/mcp")
async def serve_mcp(request: web.Request) -> web.Response:
    """Answer one message. A tool that fails is a result that says so, as the protocol wants it."""
    message = await read_json(request, Message)
    if message.id is None or message.method is None:
        return web.Response(status=202)
    try:
        answer = {"result": await _result(request, message.method, message.params)}
    except _Refused as refused:
        answer = {"error": {"code": refused.code, "message": str(refused)}}
    return json_response({"jsonrpc": "2.0", "id": message.id, **answer})


async def _result(request: web.Request, method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "initialize":
            asked = params.get("protocolVersion")
            return {
                "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "qlaud-actors", "version": "1"},
            }
        case "ping":
            return {}
        case "tools/list":
            toolset = await _toolset(request)
            names = ToolNames.of(tool.name for tool in toolset.offered)
            return {"tools": [tool_listed(tool, names) for tool in toolset.offered]}
        case "tools/call":
            return result_of(await _call(request, params))
    raise _Refused(UNKNOWN_METHOD, "There is no such method here: only tools are served.")


async def _toolset(request: web.Request) -> Toolset:
    """The meta-tools, what is attached in tenant mode, and what is connected. The first reach the rest."""
    hub = services(request)
    toolset = await reachable_tools(hub.pool, hub.vault, caller(request).account_id, hub.connector_tools)
    found = await hub.connections.list_(owner_of(call_context(request)))
    connected = {one.connector for one in found if one.status == "connected"}
    listed = tuple(tool for tool in toolset.reachable if tool.shared or tool.connector in connected)
    return Toolset((*toolset.offered, *listed), toolset.reachable)


async def _call(request: web.Request, params: dict[str, Any]) -> ToolOutcome:
    try:
        asked = msgspec.convert(params, CallParams)
    except msgspec.ValidationError:
        words = "`params` must have a `name`, and `arguments` that are an object."
        raise _Refused(INVALID_PARAMS, words) from None
    toolset, call_id = await _toolset(request), new_call_id()
    name = ToolNames.of(tool.name for tool in toolset.offered).from_wire(asked.name)
    call = ToolCall(call_id, call_id, name, asked.arguments)
    dispatcher = services(request).dispatcher
    outcome = await dispatcher.run(call, toolset, call_context(request), NoJournal())
    tool = toolset.find(name)
    tool_id = tool.id if tool else None
    logger.info("mcp_served", call_id=call_id, tool_id=tool_id, is_error=outcome.is_error)
    return outcome


def tool_listed(tool: Tool, names: ToolNames) -> dict[str, Any]:
    """A tool as the protocol lists it."""
    return {
        "name": names.to_wire(tool.name),
        "title": tool.name,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "annotations": {
            "readOnlyHint": tool.effect == "read",
            "idempotentHint": tool.effect != "write",
        },
    }


def result_of(outcome: ToolOutcome) -> dict[str, Any]:
    """A `CallToolResult`: always text, and structured where it is an object."""
    output = outcome.output
    text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": outcome.is_error}
    return {**result, "structuredContent": output} if isinstance(output, dict) else result
