"""The connect page: people connect their account at a vendor here. It needs no key: the link is the key.

Two things keep strangers out of a form. It can be sent only by the browser that it was drawn for, and a
sign-in at a vendor can be finished only by the browser that began it. What is left is somebody who sends
their own link to somebody else, so the page says for which app and user it is.
"""

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from api.bodies import read_at_most
from api.context import services
from api.pages.connect import FORM, NO_WAY, WAY, Form, form_page, leaving_page, success_page
from qlaud_actors.connectors import links
from qlaud_actors.connectors.connection import ConnectRefused, check_fields
from qlaud_actors.connectors.links import Link, LinkOver, SignInLost
from qlaud_actors.connectors.model import Connector
from qlaud_actors.connectors.sign_in import CALLBACK
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.settings import Settings

routes = web.RouteTableDef()

MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 32
MAX_CODE = 4_000
"""Characters of what a vendor sends back."""

COOKIE = "qlaud-connect"
SIGN_IN_COOKIE = "qlaud-sign-in-"
"""With the beginning of the state's hash: one sign-in does not disturb another."""

NO_CONNECTOR = "This server no longer knows the vendor of this link."
FOREIGN_FORM = "This form was not drawn for this browser, or cookies are switched off. Open the link again."


@routes.get(CALLBACK)
async def finish_sign_in(request: web.Request) -> web.Response:
    """Back from a vendor: the code for tokens, the tokens verified, the connection saved."""
    hub = services(request)
    state = request.query.get("state", "")
    token = request.cookies.get(_cookie_name(hub.settings, _sign_in_cookie(state)), "")
    if not links.TOKEN.fullmatch(state) or not links.TOKEN.fullmatch(token):
        raise SignInLost
    link = await links.find(hub.pool, token)
    connector = _connector(request, link)
    back = await links.come_back(hub.pool, hub.vault, link, state)
    await links.count_attempt(hub.redis, link)
    try:
        code = _code(request, connector)
        auth = connector.auth[back.scheme]
        given = await hub.sign_in.exchange(connector, auth, back.settings, code, back.verifier)
        made = await links.connect(
            hub.pool, hub.connections, link, back.scheme, given.values, given.access_expires_at
        )
    except ConnectRefused as refused:
        response = _form(request, link, token, back.scheme, back.settings, refused)
    else:
        response = success_page(connector, _app(request, link), made.connected_as)
    _set_cookie(hub.settings, response, _sign_in_cookie(state), "", max_age=0)
    return response


@routes.get("/connect/{token}")
async def show_form(request: web.Request) -> web.Response:
    """The page. Looking at it changes nothing: previews of chat apps look, too."""
    token = request.match_info["token"]
    return _form(request, await links.find(services(request).pool, token), token)


@routes.post("/connect/{token}")
async def send_form(request: web.Request) -> web.Response:
    """Verify what was given and save it, or go on to the vendor to sign in."""
    hub, token = services(request), request.match_info["token"]
    link = await links.find(hub.pool, token)
    given = await _read_form(request)
    connector = _connector(request, link)
    _check_browser(request, token, given.pop(FORM, ""))
    way = given.pop(WAY, "")
    ways = hub.connectors.ways(connector)
    scheme = int(way) if way.isascii() and way.isdecimal() and len(way) < 3 else NO_WAY
    if scheme not in ways:
        raise InvalidRequest("The form names no way of signing in that is offered here.")
    try:
        if ways[scheme].oauth2:
            return await _leave(request, link, token, scheme, given)
        await links.count_attempt(hub.redis, link)
        made = await links.connect(hub.pool, hub.connections, link, scheme, given)
    except ConnectRefused as refused:
        return _form(request, link, token, scheme, given, refused)
    return success_page(connector, _app(request, link), made.connected_as)


async def _leave(
    request: web.Request, link: Link, token: str, scheme: int, given: Mapping[str, str]
) -> web.Response:
    """On to the vendor, with a cookie by which this browser is known when it is back."""
    hub, connector = services(request), _connector(request, link)
    auth = connector.auth[scheme]
    settings = check_fields(connector, auth, given)
    leaving = await links.leave(hub.pool, hub.vault, link, scheme, settings)
    response = leaving_page(connector, hub.sign_in.authorize_url(connector, auth, settings, leaving))
    _set_cookie(hub.settings, response, _sign_in_cookie(leaving.state), token)
    return response


def _form(
    request: web.Request,
    link: Link,
    token: str,
    way: int = NO_WAY,
    given: Mapping[str, str] | None = None,
    refused: ConnectRefused | None = None,
) -> web.Response:
    """The page for this browser, which keeps the cookie that it has: its other forms stay good."""
    hub, connector = services(request), _connector(request, link)
    browser = request.cookies.get(_cookie_name(hub.settings, COOKIE), "")
    if not links.TOKEN.fullmatch(browser):
        browser = secrets.token_urlsafe(32)
    response = form_page(
        Form(
            connector=connector,
            ways=hub.connectors.ways(connector),
            app=_app(request, link),
            end_user_id=link.owner.end_user_id,
            action=f"{urlsplit(hub.settings.base_url).path}/connect/{token}",
            token=_form_token(browser, token),
            way=way,
            given=given or {},
            refused=refused,
        )
    )
    _set_cookie(hub.settings, response, COOKIE, browser)
    return response


async def _read_form(request: web.Request) -> dict[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        raise InvalidRequest("This page takes the form that it shows, and nothing else.")
    raw = await read_at_most(request, MAX_FORM_BYTES)
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:  # UnicodeDecodeError is one
        raise InvalidRequest("The form is not encoded as forms are.") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise InvalidRequest("The form has a field twice.")
    return given


def _check_browser(request: web.Request, token: str, form_token: str) -> None:
    browser = request.cookies.get(_cookie_name(services(request).settings, COOKIE), "")
    right = _form_token(browser, token)
    if not browser or not hmac.compare_digest(right.encode(), form_token.encode()):
        raise InvalidRequest(FOREIGN_FORM)


def _form_token(browser: str, token: str) -> str:
    """What a form for this browser and link has in it; another site can neither read nor guess it."""
    return hmac.digest(browser.encode(), token.encode(), "sha256").hex()


def _connector(request: web.Request, link: Link) -> Connector:
    found = services(request).connectors.find(link.connector)
    if found is None:
        raise LinkOver(NO_CONNECTOR)
    return found


def _app(request: web.Request, link: Link) -> str:
    """How people know the app: by its account's name, or for the first account by this server's host."""
    if link.owner.account_id == BOOTSTRAP_ACCOUNT and link.account_name == "default":
        return urlsplit(services(request).settings.base_url).hostname or link.account_name
    return link.account_name


def _code(request: web.Request, connector: Connector) -> str:
    """What the vendor sent along. Raises ConnectRefused when it is a refusal."""
    error, code = request.query.get("error", ""), request.query.get("code", "")
    if error == "access_denied":
        raise ConnectRefused(None, f"The sign-in at {connector.name} was cancelled.")
    if error:
        words = error[:100] if error.isprintable() else "an error"
        raise ConnectRefused(None, f"{connector.name} did not let you sign in: {words}.")
    if not 0 < len(code) <= MAX_CODE:
        raise ConnectRefused(None, f"{connector.name} sent no code along.")
    return code


def _sign_in_cookie(state: str) -> str:
    return SIGN_IN_COOKIE + links.hashed(state).hex()[:16]


def _cookie_name(settings: Settings, name: str) -> str:
    """Over https nobody else, not even another host of the same domain, can set a cookie of this name."""
    return f"__Host-{name}" if settings.base_url.startswith("https://") else name


def _set_cookie(
    settings: Settings,
    response: web.Response,
    name: str,
    value: str,
    max_age: int = links.LIFETIME_MINUTES * 60,
) -> None:
    """Lax: sent when a vendor leads back here, not when another site posts a form here."""
    response.set_cookie(
        _cookie_name(settings, name),
        value,
        max_age=max_age,
        path="/",
        httponly=True,
        secure=settings.base_url.startswith("https://"),
        samesite="Lax",
    )
