"""`POST /v1/chat/completions`: OpenAI's dialect, for every model of the catalogue."""

from typing import Any

from aiohttp import web

from api.bodies import read_json
from api.relayed import relayed
from qlaud_actors.gateway.asks import OpenAIAsk

routes = web.RouteTableDef()


@routes.post("/v1/chat/completions")
async def post_chat_completion(request: web.Request) -> web.StreamResponse:
    """One completion of a model; nothing is stored, no tool is run."""
    body: dict[str, Any] = await read_json(request, dict)
    return await relayed(request, OpenAIAsk.of(body))
