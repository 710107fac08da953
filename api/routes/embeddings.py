"""`POST /v1/embeddings`: OpenAI's dialect."""

from typing import Any

from aiohttp import web

from api.bodies import read_json
from api.relayed import relayed
from qlaud_actors.gateway.ask_embeddings import EmbeddingsAsk

routes = web.RouteTableDef()


@routes.post("/v1/embeddings")
async def post_embeddings(request: web.Request) -> web.StreamResponse:
    """Vectors of texts."""
    body: dict[str, Any] = await read_json(request, dict)
    return await relayed(request, EmbeddingsAsk.of(body))
