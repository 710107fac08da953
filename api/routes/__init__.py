"""The route tables of the front door, one line per module."""

from aiohttp import web

from api.routes import (
    account,
    accounts,
    billing,
    catalog,
    chat_completions,
    health,
    keys,
    messages,
    metrics,
    model_responses,
    models,
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
    keys.routes,
    usage.routes,
    tools.routes,
    threads.routes,
    turns.routes,
    messages.routes,
    chat_completions.routes,
    model_responses.routes,
    models.routes,
    catalog.routes,
)
