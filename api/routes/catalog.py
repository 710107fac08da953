"""`GET /v1/catalog`: models, hosts and prices, for everybody (reference 4.4)."""

import time
from typing import Any

from aiohttp import web

from api.context import services
from api.responses import json_response
from qlaud_actors.money import BASIS_POINTS
from qlaud_actors.providers.model import Model

routes = web.RouteTableDef()

CACHE = {"cache-control": "public, max-age=300"}
PICOS_PER_USD_PER_MTOK = 1_000_000
PICOS_PER_USD = 10**12
HIDDEN = frozenset({"reasoning_replay"})
"""Capabilities that only our wires care about."""


@routes.get("/v1/catalog")
async def get_catalog(request: web.Request) -> web.Response:
    """Everything on offer. Prices are the hosts' own; `markup_multiplier` is what they are charged at."""
    hub = services(request)
    providers = hub.catalog.providers()
    listing = {
        "providers": [{"slug": p.slug, "display_name": p.display_name} for p in providers],
        "models": [_entry(model, hub.catalog.hosts(model.slug)) for model in hub.catalog.models()],
        "markup_multiplier": (BASIS_POINTS + hub.settings.markup_bps) / BASIS_POINTS,
        "generated_at": int(time.time() * 1000),
    }
    return json_response(listing, headers=CACHE)


def shown_capabilities(model: Model) -> list[str]:
    """What a model can do, in the catalogue's words."""
    return [name for name in model.capabilities if name not in HIDDEN]


def unit_prices(model: Model) -> dict[str, float]:
    """Dollars for each unit that is billed beside text tokens."""
    return {name: picos / PICOS_PER_USD for name, picos in model.price.units.items()}


def _entry(model: Model, hosts: tuple[Model, ...]) -> dict[str, Any]:
    return {
        "slug": model.slug,
        "display_name": model.display_name,
        "author": model.author,
        "description": model.description,
        "task": model.task,
        "capabilities": shown_capabilities(model),
        "context_window": model.context_window,
        "default_max_tokens": model.max_output_tokens,
        "hosts": [_host(host) for host in hosts],
    }


def _host(host: Model) -> dict[str, Any]:
    """Throughput is not measured: all hosts score alike."""
    return {
        "provider": host.provider.slug,
        "input_per_mtok_usd": host.price.rates.input / PICOS_PER_USD_PER_MTOK if host.priced else None,
        "output_per_mtok_usd": host.price.rates.output / PICOS_PER_USD_PER_MTOK if host.priced else None,
        "unit_prices_usd": unit_prices(host),
        "throughput_score": 1.0,
        "verified_tools_ok": "function-calling" in host.capabilities,
    }
