"""MCP servers: admins register, refresh and delete them; any key of the account sees them."""

import re
from typing import Annotated

import msgspec
from aiohttp import web
from yarl import URL

from api.bodies import path_uuid, read_json, webhook_url
from api.context import caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.bootstrap import Services
from qlaud_actors.connectors.connection import ConnectRefused
from qlaud_actors.connectors.hosted import HostedServer
from qlaud_actors.connectors.request import RequestProblem
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.ids import new_uuid
from qlaud_actors.settings import Secret
from qlaud_actors.tools import mcp_store
from qlaud_actors.tools.connector import PREFIX
from qlaud_actors.tools.mcp import refresh_server, register_server
from qlaud_actors.tools.mcp_listing import Unusable
from qlaud_actors.tools.model import AuthMode, Effect, McpServer, Tool

routes = web.RouteTableDef()

NAME = re.compile(r"[a-z0-9_-]{1,31}")
RESERVED_NAMES = ("qlaud-builtin", "qlaud-mcp")
MAX_HEADERS = 16
MAX_HEADER_CHARS = 4096
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # a token of RFC 9110
# They belong to the connection or to the protocol.
FORBIDDEN_HEADERS = {
    *("host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te"),
    *("accept", "accept-encoding", "expect", "trailer", "keep-alive", "idempotency-key", "last-event-id"),
    *("mcp-session-id", "mcp-protocol-version", "proxy-authorization", "proxy-connection"),
}


class ServerBody(msgspec.Struct):
    """`POST /v1/mcp-servers`: a server by its URL, or by its slug in the catalogue."""

    name: str
    server_url: str | None = None
    auth_headers: dict[str, str] | None = None
    catalog_slug: str | None = None
    config: dict[str, str] | None = None
    auth_mode: AuthMode = "tenant"
    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=120_000)] = 30_000
    effect: Effect | None = None


@routes.post("/v1/mcp-servers")
@require_admin
async def create_server(request: web.Request) -> web.Response:
    """Connect to a server and register its tools. The headers are not in this answer, nor in any other."""
    body, hub = await read_json(request, ServerBody), services(request)
    server = _server(body, hub)
    made = await register_server(hub.pool, hub.vault, hub.mcp, caller(request).account_id, server)
    return json_response(listed_object(*made), status=201)


@routes.get("/v1/mcp-servers")
async def list_servers(request: web.Request) -> web.Response:
    """The account's living servers, newest first."""
    key, hub = caller(request), services(request)
    found = await mcp_store.list_servers(hub.pool, hub.vault, key.account_id)
    shown = [server_object(server, whole_url=key.scope == "admin") for server in found]
    return json_response({"object": "list", "data": shown})


@routes.delete("/v1/mcp-servers/{server_id}")
@require_admin
async def delete_server(request: web.Request) -> web.Response:
    """End a server and its tools; its headers are forgotten."""
    pool, account_id = services(request).pool, caller(request).account_id
    await mcp_store.revoke_server(pool, account_id, path_uuid(request, "server_id"))
    return json_response({"ok": True})


@routes.post("/v1/mcp-servers/{server_id}/refresh")
@require_admin
async def refresh(request: web.Request) -> web.Response:
    """List a server's tools again: new ones come, changed ones change, missing ones go."""
    hub, account_id = services(request), caller(request).account_id
    server_id = path_uuid(request, "server_id")
    return json_response(
        listed_object(*await refresh_server(hub.pool, hub.vault, hub.mcp, account_id, server_id))
    )


def _name(name: str) -> str:
    if not NAME.fullmatch(name) or name in RESERVED_NAMES or name.startswith("qlaud_"):
        raise InvalidRequest(
            "`name` must have 1 to 31 characters of a-z 0-9 - _, and not be one of qlaud's own."
        )
    return name


def _server(body: ServerBody, hub: Services) -> McpServer:
    entry = None if body.catalog_slug is None else _entry(body, hub)
    if entry is None:
        if body.config is not None or body.auth_mode != "tenant":
            raise InvalidRequest("`config` and `auth_mode` belong to a `catalog_slug`.")
        if body.server_url is None:
            raise InvalidRequest("`server_url` or `catalog_slug` is missing.")
        headers, url = _headers(body.auth_headers or {}), body.server_url
    else:
        headers, url = _configured(entry, body), hub.connectors.hosted.url(entry)
    return McpServer(
        id=new_uuid(),
        name=_name(body.name),
        url=webhook_url("server_url", url, allow_private=hub.settings.allow_private_webhooks),
        headers=Secret(msgspec.json.encode(headers).decode()),
        timeout_ms=body.timeout_ms,
        effect=body.effect,
        has_auth_headers=bool(headers),
        catalog_slug=body.catalog_slug,
        auth_mode=body.auth_mode,
    )


def _entry(body: ServerBody, hub: Services) -> HostedServer:
    """The catalogue's entry that is named. Raises InvalidRequest."""
    slug = body.catalog_slug or ""
    if body.server_url is not None or body.auth_headers is not None:
        raise InvalidRequest("`catalog_slug` excludes `server_url` and `auth_headers`.")
    entry = hub.connectors.hosted.find(slug)
    if entry is not None:
        return entry
    if slug in hub.connectors.connectors:
        raise InvalidRequest(
            f"{slug} needs no registration: its tools are connected with `POST /v1/connections`, tool"
            f" `qlaud-mcp/{slug}`."
        )
    raise InvalidRequest("`catalog_slug` is not in the catalogue: see `GET /v1/mcp-catalog`.")


def _configured(entry: HostedServer, body: ServerBody) -> dict[str, str]:
    """The headers of a registration from the catalogue, none where each user has some.

    Raises InvalidRequest.
    """
    if body.auth_mode == "per_user":
        if body.config is not None:
            raise InvalidRequest(
                "`config` is the account's own credential (`auth_mode: tenant`). With `per_user` everybody"
                f" connects `{PREFIX}{entry.connector.slug}`, the account itself with an admin key."
            )
        return {}
    if body.config is None:
        raise InvalidRequest("`config` is missing: `GET /v1/mcp-catalog` has its schema.")
    try:
        return entry.headers(body.config)
    except ConnectRefused as refused:
        where = f"`config.{refused.field}`" if refused.field else "`config`"
        raise InvalidRequest(f"{where}: {refused.words}") from None
    except RequestProblem as problem:
        raise InvalidRequest(f"`config`: {problem}") from None


def _headers(headers: dict[str, str]) -> dict[str, str]:
    """Names once, lower-case. Values are not repeated in errors: they are secrets."""
    if len(headers) > MAX_HEADERS:
        raise InvalidRequest(f"`auth_headers` must have at most {MAX_HEADERS} headers.")
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name) or name.lower() in FORBIDDEN_HEADERS:
            raise InvalidRequest(f"`auth_headers`: {name[:64]!r} is not a header that may be set.")
        if not 1 <= len(value) <= MAX_HEADER_CHARS or not value.isascii() or not value.isprintable():
            raise InvalidRequest(
                f"`auth_headers`: the value of {name!r} must have 1 to {MAX_HEADER_CHARS} printable ASCII "
                "characters."
            )
    lowered = {name.lower(): value for name, value in headers.items()}
    if len(lowered) < len(headers):
        raise InvalidRequest("`auth_headers` names a header twice.")
    return lowered


def server_object(server: McpServer, *, whole_url: bool) -> dict[str, object]:
    """A server as the API shows it (reference 6.6). The query of its URL may hold a key: for admins only."""
    url = server.url if whole_url else str(URL(server.url).with_query(None))
    return {
        "id": str(server.id),
        "object": "mcp_server",
        "name": server.name,
        "server_url": url,
        "timeout_ms": server.timeout_ms,
        "effect": server.effect,
        "catalog_slug": server.catalog_slug,
        "auth_mode": server.auth_mode,
        "connect": PREFIX + server.connector if server.connector else None,
        "tools_cached": server.tools_cached,
        "tools_cache_at": server.tools_cache_at_ms,
        "has_auth_headers": server.has_auth_headers,
        "created_at": server.created_at_ms,
    }


def listed_object(server: McpServer, tools: list[Tool], unusable: list[Unusable]) -> dict[str, object]:
    """The same, with its tools and what was left out."""
    return {
        **server_object(server, whole_url=True),
        "tools": [{"id": tool.id, "name": tool.name, "effect": tool.effect} for tool in tools],
        "unusable": [{"name": tool.name, "reason": tool.reason} for tool in unusable],
    }
