"""Tools, for admins: webhooks and built-ins are registered; the four meta-tools over REST, for any key."""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from api.bodies import read_json, webhook_url
from api.context import call_context, caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.bootstrap import Services
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.ids import new_call_id, new_tool_id, new_webhook_secret
from qlaud_actors.settings import Secret, Settings
from qlaud_actors.tools import meta, store
from qlaud_actors.tools.builtins.model import Offer
from qlaud_actors.tools.builtins.registration import Registration, registered
from qlaud_actors.tools.dispatch import NoJournal
from qlaud_actors.tools.model import AuthMode, Effect, Tool, ToolCall, ToolOutcome, Toolset
from qlaud_actors.tools.registry import reachable_tools
from qlaud_actors.tools.schema import check_definition

routes = web.RouteTableDef()

DEFAULT_TIMEOUT_MS = 30_000


class ToolBody(msgspec.Struct):
    """`POST /v1/tools`: a webhook, or with `provider` a built-in."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] | None = None
    webhook_url: str | None = None
    provider: str | None = None
    auth_mode: AuthMode = "tenant"
    config: dict[str, Any] | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=120_000)] | None = None
    effect: Effect | None = None
    shared: bool = True


class ConnectionsBody(msgspec.Struct):
    """`POST /v1/connections`. What is wrong with it is said without repeating a credential."""

    action: Literal["list", "status", "connect", "disconnect"]
    tool: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    credentials: dict[str, str] | None = None


@routes.post("/v1/tools")
@require_admin
async def register_tool(request: web.Request) -> web.Response:
    """Register a webhook or a built-in; a webhook's signing secret is in this answer and nowhere else."""
    body, hub = await read_json(request, ToolBody), services(request)
    tool = _webhook(body, hub.settings) if body.provider is None else _builtin(body, hub)
    stored = await store.insert_tool(hub.pool, hub.vault, caller(request).account_id, tool)
    secret = {"secret": tool.secret.reveal()} if isinstance(tool.secret, Secret) else {}
    return json_response({**tool_object(stored), **secret}, status=201)


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


@routes.get("/v1/builtins")
async def list_builtins(request: web.Request) -> web.Response:
    """The built-ins that can be registered; public."""
    offers = services(request).builtins.offers.values()
    return json_response({"object": "list", "data": [builtin_object(offer) for offer in offers]})


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


def _webhook(body: ToolBody, settings: Settings) -> Tool:
    if body.webhook_url is None:
        raise InvalidRequest("`webhook_url` is missing; a built-in has `provider` instead.")
    if body.config is not None:
        raise InvalidRequest("`config` is for built-ins, which have a `provider`.")
    allow_private = settings.allow_private_webhooks
    url = webhook_url("webhook_url", body.webhook_url, allow_private=allow_private)
    schema = body.input_schema or {}
    check_definition(body.name, body.description, schema)
    return Tool(
        id=new_tool_id(),
        name=body.name,
        description=body.description,
        input_schema=schema,
        kind="webhook",
        effect=body.effect or "write",
        timeout_ms=body.timeout_ms or DEFAULT_TIMEOUT_MS,
        webhook_url=url,
        secret=Secret(new_webhook_secret()),
        shared=body.shared,
    )


def _builtin(body: ToolBody, hub: Services) -> Tool:
    if body.webhook_url is not None:
        raise InvalidRequest("`webhook_url` and `provider` exclude each other.")
    offer = hub.builtins.find(body.provider)
    if offer is None:
        raise InvalidRequest("`provider` is not a built-in: `GET /v1/builtins` lists them.")
    asked = Registration(
        body.name,
        body.description,
        body.auth_mode,
        body.config,
        body.input_schema,
        body.effect,
        body.timeout_ms,
        body.shared,
    )
    return registered(offer, asked, allow_private=hub.settings.allow_private_webhooks)


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
    """A tool as the API shows it, without anything secret of it."""
    own: dict[str, object] = {"webhook_url": tool.webhook_url}
    if tool.kind == "builtin":
        own = {"provider": tool.provider, "auth_mode": tool.auth_mode}
    return {
        "id": tool.id,
        "object": "tool",
        "kind": tool.kind,
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        **own,
        "timeout_ms": tool.timeout_ms,
        "effect": tool.effect,
        "shared": tool.shared,
        "created_at": tool.created_at_ms,
    }


def builtin_object(offer: Offer) -> dict[str, object]:
    """A built-in as the catalogue shows it (reference 6.4)."""
    return {
        "provider": offer.provider,
        "display_name": offer.builtin.display_name,
        "description": offer.builtin.description,
        "provider_brand": offer.builtin.brand,
        "input_schema": offer.shown_schema(offer.decided),
        "config_schema": offer.config_schema,
        "authMode": offer.builtin.auth_mode,
        "effect": offer.effect,
        "timeout_ms": offer.builtin.timeout_ms,
    }
