"""The route tables of the front door, one line per module."""

from aiohttp import web

from api.routes import (
    account,
    accounts,
    auto_topup,
    billing,
    catalog,
    chat_completions,
    health,
    keys,
    messages,
    metrics,
    models,
    prices,
    stripe_meter,
    threads,
    tools,
    turns,
    usage,
)

ROUTES: tuple[web.RouteTableDef, ...] = (
    health.routes,
    metrics.routes,
    account.routes,
    accounts.routes,
    billing.routes,
    auto_topup.routes,
    stripe_meter.routes,
    keys.routes,
    usage.routes,
    tools.routes,
    threads.routes,
    turns.routes,
    messages.routes,
    chat_completions.routes,
    models.routes,
    catalog.routes,
    prices.routes,
)
