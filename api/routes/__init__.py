"""The route tables of the front door, one line per module."""

from aiohttp import web

from api.routes import account, health, keys, metrics, threads, tools, turns, usage

ROUTES: tuple[web.RouteTableDef, ...] = (
    health.routes,
    metrics.routes,
    account.routes,
    keys.routes,
    usage.routes,
    tools.routes,
    threads.routes,
    turns.routes,
)
