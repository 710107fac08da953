"""Tools, for admins: webhooks are registered here; and the four meta-tools over REST, for any key."""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from api.bodies import read_json, webhook_url
from api.context import call_context, caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.ids import new_call_id, new_tool_id, new_webhook_secret
from qlaud_actors.settings import Secret
from qlaud_actors.tools import meta, store
from qlaud_actors.tools.dispatch import NoJournal
from qlaud_actors.tools.model import Effect, Tool, ToolCall, ToolOutcome, Toolset
from qlaud_actors.tools.registry import reachable_tools
from qlaud_actors.tools.schema import check_definition

routes = web.RouteTableDef()


class ToolBody(msgspec.Struct):
    """`POST /v1/tools`. A built-in's body (`provider`) has other fields; it is refused in words."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = {}
    webhook_url: str | None = None
    provider: str | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=120_000)] = 30_000
    effect: Effect = "write"
    shared: bool = True


class ConnectionsBody(msgspec.Struct):
    """`POST /v1/connections`. What is wrong with it is said without repeating a credential."""

    action: Literal["list", "status", "connect", "disconnect"]
    tool: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    credentials: dict[str, str] | None = None


@routes.post("/v1/tools")
@require_admin
async def register_tool(request: web.Request) -> web.Response:
    """Register a webhook; its signing secret is in this answer and nowhere else."""
    body, hub = await read_json(request, ToolBody), services(request)
    url = _url(body, allow_private=hub.settings.allow_private_webhooks)
    check_definition(body.name, body.description, body.input_schema)
    secret = new_webhook_secret()
    tool = Tool(
        id=new_tool_id(),
        name=body.name,
        description=body.description,
        input_schema=body.input_schema,
        kind="webhook",
        effect=body.effect,
        timeout_ms=body.timeout_ms,
        webhook_url=url,
        secret=Secret(secret),
        shared=body.shared,
    )
    stored = await store.insert_tool(hub.pool, hub.vault, caller(request).account_id, tool)
    return json_response({**tool_object(stored), "secret": secret}, status=201)


@routes.get("/v1/tools")
@require_admin
async def list_tools(request: web.Request) -> web.Response:
    """The account's living tools."""
    hub = services(request)
    tools = await store.list_tools(hub.pool, hub.vault, caller(request).account_id)
    return json_response({"object": "list", "data": [tool_object(tool) for tool in tools]})


@routes.delete("/v1/tools/{tool_id}")
@require_admin
async def revoke_tool(request: web.Request) -> web.Response:
    """End a tool and free its name."""
    tool_id = request.match_info["tool_id"]
    if not await store.revoke_tool(services(request).pool, caller(request).account_id, tool_id):
        raise NotFound("There is no such tool.")
    return json_response({"ok": True})


@routes.post("/v1/tools/search")
async def search_tools(request: web.Request) -> web.Response:
    """`qlaud_search_tools` over REST."""
    return await _run_meta(request, meta.SEARCH)


@routes.post("/v1/tools/schemas")
async def tool_schemas(request: web.Request) -> web.Response:
    """`qlaud_get_tool_schemas` over REST."""
    return await _run_meta(request, meta.SCHEMAS)


@routes.post("/v1/tools/execute")
async def execute_tools(request: web.Request) -> web.Response:
    """`qlaud_multi_execute` over REST."""
    return await _run_meta(request, meta.EXECUTE)


@routes.post("/v1/connections")
async def manage_connections(request: web.Request) -> web.Response:
    """`qlaud_manage_connections` over REST, where `connect` may bring credentials along."""
    body, toolset = await read_json(request, ConnectionsBody), await _reachable(request)
    arguments, context = msgspec.structs.asdict(body), call_context(request)
    return _answered(await services(request).desk.answer(arguments, toolset, context, by_model=False))


def _url(body: ToolBody, *, allow_private: bool) -> str:
    if body.provider is not None:
        raise InvalidRequest("`provider`: built-in tools are not offered in this version, only webhooks.")
    if body.webhook_url is None:
        raise InvalidRequest("`webhook_url` is missing.")
    return webhook_url("webhook_url", body.webhook_url, allow_private=allow_private)


async def _run_meta(request: web.Request, name: str) -> web.Response:
    """Run a meta-tool for the caller; what it would tell a model is an error, it says as 400."""
    arguments = await read_json(request, dict[str, Any])
    toolset, call_id = await _reachable(request), new_call_id()
    call = ToolCall(call_id, call_id, name, arguments)
    dispatcher = services(request).dispatcher
    return _answered(await dispatcher.run(call, toolset, call_context(request), NoJournal()))


async def _reachable(request: web.Request) -> Toolset:
    hub = services(request)
    return await reachable_tools(hub.pool, hub.vault, caller(request).account_id, hub.connector_tools)


def _answered(outcome: ToolOutcome) -> web.Response:
    if outcome.is_error:
        raise InvalidRequest(str(outcome.output))
    return json_response(outcome.output)


def tool_object(tool: Tool) -> dict[str, object]:
    """A tool as the API shows it, without its secret."""
    return {
        "id": tool.id,
        "object": "tool",
        "kind": tool.kind,
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "webhook_url": tool.webhook_url,
        "timeout_ms": tool.timeout_ms,
        "effect": tool.effect,
        "shared": tool.shared,
        "created_at": tool.created_at_ms,
    }
