"""A vendor's side of OAuth 2: the page where a person agrees, the code, and its exchange for a token."""

import base64
import hashlib
import html
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

from aiohttp import web

PAGE = """<!doctype html><html lang="en"><title>Authorize</title><link rel="icon" href="data:,">
<h1>Authorize {client}</h1><p>It asks for: {scope}</p>
<form method="post"><button type="submit">Authorize</button></form></html>"""


@dataclass
class App:
    """An application that an operator has registered with the vendor."""

    client_id: str = "qlaud-client-id"
    client_secret: str = "qlaud-client-secret-canary"
    lists: str = "scope"
    """The parameter that lists the scopes."""
    separator: str = " "
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    """What was asked, by the code that was given for it; a code works once."""
    asked: list[dict[str, str]] = field(default_factory=list)


TokenAnswer = Callable[[web.Request, str | None, str], web.Response]
"""From the request, what is wrong with it (None: nothing) and the scope to the vendor's answer."""


def oauth_pages(server: web.Application, app: App, authorize: str, token: str, answer: TokenAnswer) -> None:
    """Add both addresses."""

    async def show(request: web.Request) -> web.Response:
        asked = dict(request.query)
        app.asked.append(asked)
        if asked.get("client_id") != app.client_id or not asked.get("redirect_uri"):
            return web.Response(status=404, text="There is no such application.")
        shown = {"client": html.escape(asked["client_id"]), "scope": html.escape(asked.get(app.lists, ""))}
        return web.Response(text=PAGE.format(**shown), content_type="text/html")

    async def agree(request: web.Request) -> web.Response:
        asked = dict(request.query)
        code = secrets.token_hex(10)
        app.codes[code] = asked
        query = urlencode({"code": code, "state": asked.get("state", "")})
        raise web.HTTPFound(f"{asked['redirect_uri']}?{query}")

    async def exchange(request: web.Request) -> web.Response:
        given = {name: str(value) for name, value in (await request.post()).items()}
        problem, scope = _exchanged(app, given, request.headers.get("Authorization", ""))
        return answer(request, problem, scope)

    server.router.add_get(authorize, show)
    server.router.add_post(authorize, agree)
    server.router.add_post(token, exchange)


def _exchanged(app: App, given: dict[str, str], authorization: str) -> tuple[str | None, str]:
    """What is wrong with an exchange, if anything, and the scope that was agreed to."""
    pair = f"{app.client_id}:{app.client_secret}"
    basic = f"Basic {base64.b64encode(pair.encode()).decode()}"
    in_form = (given.get("client_id"), given.get("client_secret")) == (app.client_id, app.client_secret)
    if not in_form and authorization != basic:
        return "client", ""
    asked = app.codes.pop(given.get("code", ""), None)
    if asked is None or given.get("redirect_uri") != asked["redirect_uri"]:
        return "code", ""
    if challenge := asked.get("code_challenge"):
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != challenge:
            return "code", ""
    return None, asked.get(app.lists, "")
