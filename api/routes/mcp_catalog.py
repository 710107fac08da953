"""The catalogue of vendors: whose tools can be connected here, and whose own MCP server can be registered."""

from aiohttp import web

from api.context import services
from api.responses import json_response
from qlaud_actors.connectors.catalog_files import fields_of
from qlaud_actors.connectors.hosted import HostedServer
from qlaud_actors.connectors.model import Connector
from qlaud_actors.tools.builtins.model import config_schema
from qlaud_actors.tools.connector import PREFIX

routes = web.RouteTableDef()


@routes.get("/v1/mcp-catalog")
async def list_entries(request: web.Request) -> web.Response:
    """Every vendor once, in order of slug; public."""
    catalog = services(request).connectors
    slugs = sorted(catalog.connectors.keys() | catalog.hosted.entries.keys())
    data = [entry_object(slug, catalog.connectors.get(slug), catalog.hosted.find(slug)) for slug in slugs]
    return json_response({"object": "list", "data": data})


def entry_object(slug: str, connector: Connector | None, hosted: HostedServer | None) -> dict[str, object]:
    """A vendor. `kind` is `mcp` where its own server can be registered; then the schema is for that.

    `connect` names what end users connect to use the actions that this server has for the vendor.
    """
    shown = hosted or connector
    assert shown is not None
    return {
        "slug": slug,
        "kind": "mcp" if hosted else "connector",
        "name": shown.name,
        "description": shown.description,
        "category": shown.category,
        "docs_url": shown.docs_url,
        "server_url": hosted.server_url if hosted else None,
        "config_schema": _schema(connector, hosted),
        "auth_modes": ["tenant", "per_user"],
        "connect": PREFIX + slug if connector else None,
        "actions": len(connector.actions) if connector else 0,
    }


def _schema(connector: Connector | None, hosted: HostedServer | None) -> dict[str, object]:
    """The fields of the registration, or else of the first way of signing in that has a form."""
    if hosted is not None:
        return config_schema(hosted.auth.fields)
    assert connector is not None
    form = next((auth for auth in connector.auth if auth.oauth2 is None), connector.auth[0])
    return config_schema(fields_of(connector, form))
