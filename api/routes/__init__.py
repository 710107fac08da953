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
    jobs,
    keys,
    messages,
    metrics,
    model_responses,
    models,
    prices,
    stripe_meter,
    threads,
    tools,
    turns,
    usage,
    webhooks,
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
    webhooks.routes,
    threads.routes,
    turns.routes,
    messages.routes,
    chat_completions.routes,
    jobs.routes,
    model_responses.routes,
    models.routes,
    catalog.routes,
    prices.routes,
)
