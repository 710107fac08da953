"""A vendor on loopback with Linear's sign-in: OAuth with PKCE, a token endpoint, and who somebody is."""

import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import ClientSession, CookieJar, web
from front_door import Door, front_door
from redis.asyncio import Redis

from qlaud_actors.connectors import links
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.catalog_files import packaged
from qlaud_actors.connectors.connections import Connections, Owner
from qlaud_actors.connectors.revocation import Revocations
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.sign_in import SignIn
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.settings import Settings

BASE_URL = "http://qlaud.test:8787"
KEY = "lin_api_" + "a1B2c3D4e5" * 4
CLIENT_ID, CLIENT_SECRET = "our-app", "the-apps-secret"

FILES = {name: text for name, text in packaged().items() if name in ("linear.toml", "gmail.toml")}


@dataclass
class SignInDouble:
    """Gives a code for a challenge, tokens for a code and its verifier, and names for tokens."""

    url: str = ""
    people: dict[str, str] = field(default_factory=lambda: {KEY: "Ada"})
    """Name by what stands in `Authorization`."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshes: dict[str, str] = field(default_factory=dict)
    """Name by refresh token that is still good."""
    asked: list[str] = field(default_factory=list)
    """Paths, in order."""
    token_answer: tuple[int, dict[str, Any]] | None = None
    """Instead of tokens."""
    before_answer: Any = None
    """Awaited before somebody is named."""

    def approve(self, authorize_url: str, who: str = "Ada") -> tuple[str, str]:
        """What a person does at the vendor: the code and the state that the browser takes back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(authorize_url).query).items()}
        code = f"code-{len(self.codes)}-{who}"
        self.codes[code] = {**query, "who": who}
        return code, query["state"]

    async def token(self, request: web.Request) -> web.Response:
        """The token endpoint."""
        self.asked.append(request.path)
        form = await request.post()
        if self.token_answer is not None:
            return web.json_response(self.token_answer[1], status=self.token_answer[0])
        if (form["client_id"], form["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["grant_type"] == "refresh_token":
            who = self.refreshes.pop(str(form["refresh_token"]), None)
        else:
            who = self._who(dict(form))
        if who is None:
            return web.json_response({"error": "invalid_grant", "error_description": "No."}, status=400)
        number = len(self.asked)
        self.people[f"Bearer access-{number}"] = who
        self.refreshes[f"refresh-{number}"] = who
        answer = {"access_token": f"access-{number}", "refresh_token": f"refresh-{number}"}
        return web.json_response({**answer, "token_type": "Bearer", "expires_in": 3600})

    def _who(self, form: dict[str, Any]) -> str | None:
        begun = self.codes.pop(str(form["code"]), None)
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if begun is None or begun["redirect_uri"] != form["redirect_uri"]:
            return None
        return begun["who"] if begun["code_challenge"] == challenge else None

    async def revoke(self, request: web.Request) -> web.Response:
        """The revocation endpoint."""
        self.asked.append(request.path)
        form = await request.post()
        if self.before_answer is not None:
            await self.before_answer()
        if (form["client_id"], form["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        self.refreshes.pop(str(form["token"]), None)
        return web.json_response({})

    async def graphql(self, request: web.Request) -> web.Response:
        """Who somebody is."""
        self.asked.append(request.path)
        if self.before_answer is not None:
            await self.before_answer()
        name = self.people.get(request.headers.get("Authorization", ""))
        if name is None:
            words = "Authentication required <b>&</b>"
            return web.json_response({"errors": [{"message": words}]}, status=401)
        viewer = {"id": f"id-{name}", "name": name, "email": name, "organization": {"name": "Acme"}}
        return web.json_response({"data": {"viewer": viewer}})


@dataclass
class Page:
    """An answer, as a person has it."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def form_token(self) -> str:
        """What the form has in it."""
        found = re.search(r'name="_form" value="([^"]+)"', self.text)
        assert found, self.text
        return found[1]

    @property
    def goes_to(self) -> str:
        """Where the browser goes on to."""
        found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', self.text)
        assert found, self.text
        return unescape(found[1])


@dataclass
class Browser:
    """A person's browser, with its own cookies."""

    session: ClientSession
    address: str

    async def ask(self, method: str, path: str, **sent: Any) -> Page:
        """One request; redirects would be shown."""
        url = self.address + path
        async with self.session.request(method, url, allow_redirects=False, **sent) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Page(response.status, headers, await response.text())

    async def send(self, path: str, way: int, **fields: str) -> Page:
        """Open the page, fill its form, send it."""
        form_token = (await self.ask("GET", path)).form_token
        return await self.ask("POST", path, data={"_form": form_token, "_way": str(way), **fields})

    async def back(self, code: str, state: str) -> Page:
        """Back from the vendor."""
        return await self.ask("GET", "/connect/oauth/callback", params={"code": code, "state": state})


@dataclass
class Desk:
    """A front door, a vendor behind it, and people's browsers."""

    pool: Pool
    vendor: SignInDouble
    door: Door
    connections: Connections
    revocations: Revocations
    sign_in: SignIn
    catalog: ConnectorCatalog
    stack: contextlib.AsyncExitStack

    async def link(self, end_user_id: str | None = "ada", connector: str = "linear") -> str:
        """The path of a new link."""
        owner = Owner(BOOTSTRAP_ACCOUNT, end_user_id)
        made = await links.create(self.pool, owner, connector, BASE_URL)
        assert made.url.startswith(f"{BASE_URL}/connect/")
        return made.url.removeprefix(BASE_URL)

    async def browser(self) -> Browser:
        """Somebody's."""
        session = await self.stack.enter_async_context(ClientSession(cookie_jar=CookieJar(unsafe=True)))
        return Browser(session, str(self.door.client.make_url("")).rstrip("/"))


@contextlib.asynccontextmanager
async def running_desk(pool: Pool, vault: Vault, redis_url: str) -> AsyncIterator[Desk]:
    """All of it, as long as the block runs."""
    vendor = SignInDouble()
    app = web.Application()
    app.add_routes([web.post("/oauth/token", vendor.token), web.post("/graphql", vendor.graphql)])
    app.add_routes([web.post("/oauth/revoke", vendor.revoke)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with contextlib.AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        session = await stack.enter_async_context(open_guarded_session(allow_private=True))
        redis = Redis.from_url(redis_url)
        stack.push_async_callback(redis.aclose)
        catalog = ConnectorCatalog.load(
            {
                "QLAUD_CONNECTOR_BASE_URL_LINEAR": vendor.url,
                "QLAUD_OAUTH_LINEAR_CLIENT_ID": CLIENT_ID,
                "QLAUD_OAUTH_LINEAR_CLIENT_SECRET": CLIENT_SECRET,
            },
            FILES,
        )
        sender = VendorSender(session, session, allow_private=True)
        sign_in = SignIn(catalog, sender, BASE_URL)
        revocations = Revocations(pool, vault, catalog, sign_in)
        stack.push_async_callback(revocations.close)
        connections = Connections(pool, vault, catalog, sender, revocations=revocations)
        services = {"connectors": catalog, "connections": connections, "sign_in": sign_in}
        settings = Settings(public_url=BASE_URL)
        door = await stack.enter_async_context(
            front_door(pool, settings=settings, vault=vault, redis=redis, **services)
        )
        yield Desk(pool, vendor, door, connections, revocations, sign_in, catalog, stack)
