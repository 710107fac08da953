"""Prices, for the operator: what is in force and where it comes from; overrides and who made them."""

from functools import cache
from typing import Annotated, Any

import msgspec
from aiohttp import web

from api.bodies import no_nul, query_int, query_text, read_json
from api.context import caller, services
from api.responses import json_response
from qlaud_actors.errors import InvalidRequest, NotFound, ScopeMissing
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.prices import store
from qlaud_actors.prices.model import DEFAULT_LEAD_SECONDS, LEAD_SECONDS, Change, shown
from qlaud_actors.prices.sanity import doubts
from qlaud_actors.providers.book import PriceBook
from qlaud_actors.providers.catalog import Catalog, packaged, parse
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.price_rows import PriceRow
from qlaud_actors.providers.pricing import Dated, Timeline, in_force

routes = web.RouteTableDef()

FAR_MS = 253_402_300_799_000
"""The end of the year 9999."""

SOURCE = "set by the operator through the API"
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=FAR_MS)]


class PriceBody(PriceRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`PUT /v1/prices/:provider/:model`: a price as catalogue files spell it, and why it changes."""

    reason: Words
    source: Words = SOURCE
    effective_from: Millis | None = None
    force: bool = False
    """Take a price that is hard to believe."""


@routes.get("/v1/prices")
async def list_prices(request: web.Request) -> web.Response:
    """The price of every model at every provider: in force now, and announced."""
    _operator(request)
    catalog = services(request).catalog
    provider, slug = query_text(request, "provider"), query_text(request, "model")
    wanted = (
        catalog.hosts(slug) if slug else tuple(m for one in catalog.models() for m in catalog.hosts(one.slug))
    )
    listed = [_price_object(catalog.prices, m) for m in wanted if provider in (None, m.provider.slug)]
    return json_response({"prices": listed})


@routes.get("/v1/prices/audit")
async def list_changes(request: web.Request) -> web.Response:
    """Who set which price, when and why; newest first."""
    _operator(request)
    provider, slug = query_text(request, "provider"), query_text(request, "model")
    before = query_int(request, "before", 0, 0, 2**53) or None
    limit = query_int(request, "limit", 50, 1, 500)
    return json_response(await store.audit(services(request).pool, provider, slug, before, limit))


@routes.put("/v1/prices/{provider}/{model:.+}")
async def put_price(request: web.Request) -> web.Response:
    """Another price of a model at a provider, from a moment on that lies at least 30 seconds ahead."""
    key = _operator(request)
    body = await read_json(request, PriceBody)
    catalog = services(request).catalog
    model = _offered(catalog, request)
    for name in ("reason", "source"):
        no_nul(name, getattr(body, name))
    if body.price is None:
        raise InvalidRequest(
            "`price` is missing: pico-USD per token of `input` and `output`, and of the cache."
        )
    if problem := body.price_problem():
        raise InvalidRequest(f"`tiers`: {problem}.")
    if missing := sorted(model.price.units.keys() - body.units.keys()):
        raise InvalidRequest(f"`units` lacks a price for {', '.join(missing)}.")
    begins_ms = body.effective_from or _soon(catalog)
    row = msgspec.convert({name: getattr(body, name) for name in PriceRow.__struct_fields__}, PriceRow)
    await services(request).prices.read()
    before = _at(catalog.prices, model, begins_ms).price
    change = Change(model, begins_ms, row, before, body.source, body.reason, key.id)
    price = change.override.price
    assert price is not None
    if not body.force and (doubted := doubts(price, before if model.priced else None)):
        raise InvalidRequest(
            f"This is hard to believe: {'; '.join(doubted)}. Send `force: true` if it is so."
        )
    return await _make(request, change)


@routes.delete("/v1/prices/{provider}/{model:.+}")
async def delete_price(request: web.Request) -> web.Response:
    """End a model's overrides, also those to come: the price of the files counts again."""
    key = _operator(request)
    catalog = services(request).catalog
    model = _offered(catalog, request)
    reason = query_text(request, "reason") or "override ended"
    await services(request).prices.read()
    begins_ms = query_int(request, "effective_from", 0, 0, FAR_MS) or _before_the_next(catalog, model)
    now = _at(catalog.prices, model, begins_ms)
    later = [dated for dated in _timeline(catalog.prices, model) if dated.begins_ms > begins_ms]
    if not any(dated.overridden for dated in (now, *later)):
        raise NotFound("There is no override to end.")
    return await _make(request, Change(model, begins_ms, None, now.price, SOURCE, reason, key.id))


async def _make(request: web.Request, change: Change) -> web.Response:
    hub = services(request)
    async with hub.pool.acquire() as connection, connection.transaction():
        await store.add(connection, change)
    await hub.prices.read()
    return json_response(_price_object(hub.catalog.prices, change.model))


def _operator(request: web.Request) -> ApiKey:
    key = caller(request)
    if not key.is_master:
        raise ScopeMissing("Prices are the operator's: this route needs the master key.")
    return key


def _offered(catalog: Catalog, request: web.Request) -> Model:
    provider, slug = request.match_info["provider"], request.match_info["model"]
    found = next((host for host in catalog.hosts(slug) if host.provider.slug == provider), None)
    if found is None:
        raise NotFound(
            "This provider does not offer this model: an override changes a price that a file has."
        )
    return found


def _soon(catalog: Catalog) -> int:
    return catalog.prices.clock() + int(DEFAULT_LEAD_SECONDS * 1000)


def _before_the_next(catalog: Catalog, model: Model) -> int:
    """Soon, and no later than an override that is still far enough ahead: it never begins."""
    known_ms = catalog.prices.clock() + int((LEAD_SECONDS + 1) * 1000)
    coming = [
        d.begins_ms for d in _timeline(catalog.prices, model) if d.overridden and d.begins_ms > known_ms
    ]
    return min([_soon(catalog), *coming])


def _timeline(book: PriceBook, model: Model) -> Timeline:
    timeline = book.timeline(model.provider.slug, model.slug)
    assert timeline is not None
    return timeline


def _at(book: PriceBook, model: Model, at_ms: int) -> Dated:
    return in_force(_timeline(book, model), at_ms)


def _price_object(book: PriceBook, model: Model) -> dict[str, Any]:
    """A model's price in force with those to come, in pico-USD per token."""
    now = book.clock()
    coming = [dated for dated in _timeline(book, model) if dated.begins_ms > now]
    return {
        "object": "price",
        "provider": model.provider.slug,
        "model": model.slug,
        **_dated_object(_at(book, model, now)),
        "upcoming": [_dated_object(dated) for dated in coming],
    }


def _dated_object(dated: Dated) -> dict[str, Any]:
    packaged = dated.price.version in _packaged_versions()
    return {
        **shown(dated.price),
        "version": dated.price.version,
        "origin": "override" if dated.overridden else "packaged" if packaged else "file",
        "source": dated.source,
        "checked": dated.checked,
        "effective_from": dated.begins_ms or None,
    }


@cache
def _packaged_versions() -> frozenset[str]:
    """The names of all prices that come with this package."""
    files = [parse(name, text) for name, text in packaged().items()]
    models = [row.model(file.provider()) for file in files for row in file.models]
    announced = [dated.price.version for model in models for dated in model.scheduled]
    return frozenset([*(model.price.version for model in models), *announced])
