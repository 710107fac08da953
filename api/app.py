"""The aiohttp application."""

from aiohttp import web

from api.context import SERVICES
from api.middleware import add_headers, around
from api.routes import ROUTES
from qlaud_actors.bootstrap import Services


def make_app(services: Services) -> web.Application:
    """The front door over open services."""
    app = web.Application(
        middlewares=[around],
        client_max_size=services.settings.max_body_bytes,
    )
    app[SERVICES] = services
    app.on_response_prepare.append(add_headers)
    for routes in ROUTES:
        app.add_routes(routes)
    return app
