"""`POST /v1/images/generations` and `/v1/images/edits`: OpenAI's dialect; edits also as JSON."""

from typing import Any

from aiohttp import web

from api.bodies import read_json
from api.forms import read_form
from api.relayed import relayed
from qlaud_actors.gateway.ask_images import FILES, ImagesAsk

routes = web.RouteTableDef()


@routes.post("/v1/images/generations")
async def post_image(request: web.Request) -> web.StreamResponse:
    """Pictures of a description."""
    body: dict[str, Any] = await read_json(request, dict)
    return await relayed(request, ImagesAsk.generation(body))


@routes.post("/v1/images/edits")
async def post_image_edit(request: web.Request) -> web.StreamResponse:
    """Pictures made of others: as a form, or as JSON with them in base64."""
    if request.content_type == "multipart/form-data":
        return await relayed(request, ImagesAsk.form_edit(await read_form(request, FILES)))
    body: dict[str, Any] = await read_json(request, dict)
    return await relayed(request, ImagesAsk.json_edit(body))
