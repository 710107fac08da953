"""Around every request: its id, its log line, errors as responses, CORS, and who is calling."""

import re
import time
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from redis.exceptions import RedisError

from api.context import CALLER, REQUEST_ID, services
from api.errors import CONNECT_PATH, error_response
from qlaud_actors import log, metrics
from qlaud_actors.db.pool import ConnectionLost
from qlaud_actors.deliveries import outbox
from qlaud_actors.errors import (
    InvalidKey,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QlaudError,
    ScopeMissing,
    ServiceUnavailable,
    SpendCapReached,
)
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = log.get_logger(__name__)

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds: not logged."""

PUBLIC_PATHS = PROBES.union(
    (
        *("/v1/catalog", "/v1/builtins", "/v1/mcp-catalog"),
        *("/v1/billing/stripe/webhook", "/v1/billing/topups/done"),
    )
)
"""Need no key."""

HELD_PATHS = frozenset({"/v1/messages", "/v1/chat/completions", "/v1/responses"})
"""Every request of these places a hold, which looks at the key itself: it may be verified from memory."""

REQUEST_ID_PATTERN = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")

CORS_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
CORS_HEADERS = (
    "x-api-key, authorization, content-type, accept, last-event-id, content-length, "
    "idempotency-key, anthropic-version, anthropic-beta"
)
CORS_EXPOSED = (
    "x-request-id, request-id, retry-after, idempotency-replayed, x-qlaud-thread-id, x-qlaud-turn-id, "
    "x-qlaud-assistant-seq, x-qlaud-resolved-model, x-qlaud-provider, x-qlaud-cost-micros, "
    "x-qlaud-budget-remaining-micros, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


@web.middleware
async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, let it through, say what went wrong in the caller's dialect, and log one line when it
    has ended: never bodies, queries or secrets.

    One layer for all of it: each costs every request something.
    """
    given = request.headers.get("x-request-id", "")
    request[REQUEST_ID] = given if REQUEST_ID_PATTERN.match(given) else str(new_uuid())
    log.clear()
    log.bind(request_id=request[REQUEST_ID])
    start = time.monotonic()
    status = 499  # the client left
    try:
        if request.method == hdrs.METH_OPTIONS:
            response = _preflight()
        else:
            if not (request.path in PUBLIC_PATHS or request.path.startswith(CONNECT_PATH)):
                await _authenticate(request)
            response = await handler(request)
        status = response.status
        return response
    except Exception as error:  # noqa: BLE001 - it is answered, and logged when it is ours
        response = await _refusal(request, error)
        status = response.status
        return response
    finally:
        route = _route(request)
        metrics.requests(route, str(status)).inc()
        if request.path not in PROBES:
            ms = round((time.monotonic() - start) * 1000)
            logger.info("request", method=request.method, route=route, status=status, ms=ms)


def _preflight() -> web.StreamResponse:
    """Answers a browser's question whether it may, on any path: a route for it would hide the 404s."""
    return web.Response(status=204, headers={"access-control-max-age": "86400"})


async def _refusal(request: web.Request, error: Exception) -> web.StreamResponse:
    """What went wrong, as a response in the caller's dialect. Raises the error when the answer has begun:
    nothing can be said in it, and aiohttp ends the connection.
    """
    known = _as_qlaud_error(error)
    if known.status >= 500:
        logger.warning("request_failed", code=known.code, exc_info=type(known) is QlaudError)
    if isinstance(known, SpendCapReached):
        await _tell_cap(request)
    if request.writer.output_size > 0:
        raise error
    response = error_response(known, request.path, request[REQUEST_ID])
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]  # RFC 9110, 15.5.6
    return response


async def _authenticate(request: web.Request) -> None:
    """Verify the key, before a byte of the body is read. Raises InvalidKey."""
    hub, secret = services(request), presented_key(request)
    held = request.path in HELD_PATHS
    key = await (hub.known_keys.verify(secret) if held else lifecycle.verify(hub.pool, secret))
    request[CALLER] = key
    log.bind(key_id=str(key.id), account_id=str(key.account_id))


async def authenticate_again(request: web.Request) -> None:
    """A hold said that the key is not what it was. Raises InvalidKey."""
    request[CALLER] = await services(request).known_keys.verify_anew(presented_key(request))


def presented_key(request: web.Request) -> str:
    """The secret that a request carries: `x-api-key`, else a bearer token. Raises InvalidKey."""
    if key := request.headers.get("x-api-key"):
        return key.strip()
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise InvalidKey("Send your API key as `x-api-key` or as `Authorization: Bearer`.")
    return token.strip()


def require_admin(handler: Handler) -> Handler:
    """A route for admin keys only: a standard key is answered with 403."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        if request[CALLER].scope != "admin":
            raise ScopeMissing("This route needs an admin key.")
        return await handler(request)

    guarded.__doc__ = handler.__doc__
    guarded.__name__ = handler.__name__
    return guarded


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The request id and CORS on every response, streams included."""
    headers = response.headers
    if REQUEST_ID in request:
        headers["x-request-id"] = headers["request-id"] = request[REQUEST_ID]
    if hdrs.ORIGIN in request.headers and not request.path.startswith(CONNECT_PATH):
        # Keys travel in headers, never in cookies: any origin may ask, none is sent credentials.
        headers["access-control-allow-origin"] = "*"
        headers["access-control-allow-methods"] = CORS_METHODS
        headers["access-control-allow-headers"] = CORS_HEADERS
        headers["access-control-expose-headers"] = CORS_EXPOSED


async def _tell_cap(request: web.Request) -> None:
    """The account may want to know that one of its keys has reached its cap; the answer is 402 either way."""
    hub = services(request)
    try:
        await hub.wake_deliveries(await outbox.tell_first_refusal(hub.pool, request[CALLER].id))
    except ConnectionLost as error:
        logger.warning("cap_not_told", error=type(error).__name__)


def _as_qlaud_error(error: Exception) -> QlaudError:
    match error:
        case QlaudError():
            return error
        case web.HTTPRequestEntityTooLarge():
            return PayloadTooLarge(error.text)
        case web.HTTPNotFound():
            return NotFound("There is no such route.")
        case web.HTTPMethodNotAllowed():
            wrong = InvalidRequest("This route does not know this method.")
            wrong.status = error.status
            return wrong
        case web.HTTPException():
            wrong = InvalidRequest(error.reason)
            wrong.status = error.status
            return wrong
        case RedisError() | ConnectionResetError():
            return ServiceUnavailable()
    if isinstance(error, ConnectionLost):
        return ServiceUnavailable()  # fail closed: without the meter nothing is forwarded
    return QlaudError()


def _route(request: web.Request) -> str:
    """The route's pattern, so that ids never become metric labels."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"
