"""`GET /v1/models`: what can be asked now. One shape that both vendors' SDKs read."""

import calendar
import time
from typing import Any

from aiohttp import web

from api.context import services
from api.responses import json_response
from api.routes.catalog import shown_capabilities
from qlaud_actors.errors import UnknownModel
from qlaud_actors.providers.model import Model

routes = web.RouteTableDef()


@routes.get("/v1/models")
async def list_models(request: web.Request) -> web.Response:
    """All models whose provider is configured."""
    catalog = services(request).catalog
    data = [model_object(model) for model in catalog.models() if catalog.configured(model.provider)]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return json_response({"object": "list", "data": data, "has_more": False, **ends})


@routes.get("/v1/models/{model_id:.+}")
async def get_model(request: web.Request) -> web.Response:
    """One model by its slug or another of its names."""
    catalog = services(request).catalog
    model = catalog.resolve(request.match_info["model_id"])
    if not catalog.configured(model.provider):
        raise UnknownModel(f"{model.provider.display_name} is not configured here.")
    return json_response(model_object(model))


def model_object(model: Model) -> dict[str, Any]:
    """A model as OpenAI lists it, with Anthropic's fields and ours beside."""
    return {
        "id": model.slug,
        "object": "model",
        "created": calendar.timegm(time.strptime(model.checked, "%Y-%m-%d")),
        "owned_by": model.author,
        "type": "model",
        "display_name": model.display_name,
        "created_at": f"{model.checked}T00:00:00Z",
        "provider": model.provider.slug,
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output_tokens,
        "supports": shown_capabilities(model),
        "task": model.task,
    }
