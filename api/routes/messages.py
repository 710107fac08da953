"""`POST /v1/messages` and its token counter: Anthropic's dialect, for every model of the catalogue."""

from typing import Any

from aiohttp import web

from api.bodies import read_json
from api.context import caller, services
from api.relayed import relayed
from api.responses import json_response
from qlaud_actors.gateway.asks import AnthropicAsk

routes = web.RouteTableDef()


@routes.post("/v1/messages")
async def post_message(request: web.Request) -> web.StreamResponse:
    """One answer of a model; nothing is stored, no tool is run."""
    return await relayed(request, await _ask(request))


@routes.post("/v1/messages/count_tokens")
async def count_tokens(request: web.Request) -> web.Response:
    """The input tokens of a message: exact for Claude models, estimated for others. Costs nothing."""
    ask = await _ask(request)
    counted = await services(request).relay.admission.count(caller(request), ask)
    return json_response({"input_tokens": counted})


async def _ask(request: web.Request) -> AnthropicAsk:
    body: dict[str, Any] = await read_json(request, dict)
    headers = request.headers
    return AnthropicAsk.of(body, headers.get("anthropic-version"), headers.get("anthropic-beta"))
