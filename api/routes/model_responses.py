"""`POST /v1/responses`: OpenAI's Responses dialect, stateless, for every model of the catalogue."""

from typing import Any

from aiohttp import web

from api.bodies import read_json
from api.relayed import relayed
from qlaud_actors.gateway.ask_responses import ResponsesAsk

routes = web.RouteTableDef()


@routes.post("/v1/responses")
async def post_response(request: web.Request) -> web.StreamResponse:
    """One response of a model; nothing is stored, no tool is run."""
    body: dict[str, Any] = await read_json(request, dict)
    return await relayed(request, ResponsesAsk.of(body))
