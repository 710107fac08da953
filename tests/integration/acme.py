"""A vendor that nobody else has: its connector file, and its server on loopback; and who calls it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from receiver import Answering, says

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import Connection, Owner, RefreshFailed, RefreshRefused, Tokens
from qlaud_actors.connectors.connections import Connections
from qlaud_actors.connectors.credentials import Credentials
from qlaud_actors.connectors.execute import ActionCall, Executor, Result
from qlaud_actors.connectors.model import Auth, Connector
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.settings import Secret

ALICE, BOB, OURS = Owner(ACCOUNT, "alice"), Owner(ACCOUNT, "bob"), Owner(ACCOUNT)
KEY, OTHER_KEY = "acme_key_of_ada_123456", "acme_key_of_zoe_123456"
FILE = """
slug = "acme"
name = "Acme"
category = "support"
description = "Items of Acme."
docs_url = "https://acme.example/docs"
base_url = "https://api.acme.example"
spec = { unchecked = "It does not exist." }

[[auth]]
scheme = "bearer"
label = "API key"
headers = { Authorization = "Bearer {token}" }

[[auth.fields]]
name = "token"
label = "API key"
secret = true
help = "Under Settings."
pattern = "acme_[a-z0-9_]+"

[[auth]]
scheme = "oauth2"
label = "Sign in with Acme"
headers = { Authorization = "Bearer {access_token}" }

[auth.oauth2]
authorize_url = "https://acme.example/authorize"
token_url = "https://acme.example/token"

[verify]
request = "GET /me"
connected_as = "{name}"
account_id = "{id}"

[errors]
message = ["error"]

[[actions]]
name = "get_item"
title = "Get an item"
description = "Read one item of Acme, by its id."
effect = "read"
request = "GET /items/{id}"
required = ["id"]
input.id = { type = "string", description = "Its id." }

[[actions]]
name = "set_item"
title = "Set an item"
description = "Set the text of one item of Acme."
effect = "idempotent"
request = "PUT /items/{id}"
required = ["id", "text"]
input.id = { type = "string", description = "Its id." }
input.text = { type = "string", description = "Its text." }

[[actions]]
name = "create_item"
title = "Create an item"
description = "Make a new item at Acme, with a text."
effect = "write"
request = "POST /items"
required = ["text"]
headers = { Idempotency-Key = "{idempotency_key}" }
input.text = { type = "string", description = "Its text." }

[[actions]]
name = "ring"
title = "Ring the bell"
description = "Ring the bell of Acme, for everybody to hear."
effect = "write"
request = "POST /bell"
"""
ARGUMENTS: dict[str, dict[str, str]] = {
    "get_item": {"id": "1"},
    "set_item": {"id": "1", "text": "t"},
    "create_item": {"text": "t"},
    "ring": {},
}


@dataclass
class Acme:
    """The vendor: who its keys belong to, and what it answers to actions; the last answer stays."""

    url: str = ""
    people: dict[str, str] = field(default_factory=lambda: {KEY: "Ada", OTHER_KEY: "Zoe"})
    answers: list[Answering] = field(default_factory=lambda: [says({"id": "1"})])
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Of actions: method, path as it was spelled, headers, body."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Tell a stranger so; else say who somebody is, or play the next answer."""
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.path == "/me":
            found = self.people.get(key)
            body = {"name": found, "id": f"id-{found}"} if found else {"error": f"I do not know {key}"}
            return web.json_response(body, status=200 if found else 401)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.method, request.raw_path, headers, await request.read()))
        if key not in self.people:
            return web.json_response({"error": f"I do not know {key}"}, status=401)
        return await self.answers[min(len(self.asked), len(self.answers)) - 1](request)


@dataclass
class Renewals:
    """The vendor's token endpoint as a Refresher: each refresh token is good once."""

    acme: Acme
    valid: set[str] = field(default_factory=lambda: {"refresh-1"})
    asked: int = 0
    down: bool = False
    lifetime: timedelta = timedelta(hours=1)
    then: Callable[[], Awaitable[None]] | None = None
    """What happens between the vendor's answer and ours."""

    async def refresh(
        self, connector: Connector, auth: Auth, settings: Mapping[str, str], token: Secret
    ) -> Tokens:
        """New tokens; the old ones are dead."""
        self.asked += 1
        if self.down:
            raise RefreshFailed("it cannot be reached")
        if token.reveal() not in self.valid:
            raise RefreshRefused
        number = int(token.reveal().removeprefix("refresh-"))
        self.valid = {f"refresh-{number + 1}"}
        self.acme.people.pop(f"access-{number}", None)
        self.acme.people[f"access-{number + 1}"] = "Ada"
        if self.then is not None:
            await self.then()
        end = datetime.now(UTC) + self.lifetime
        return Tokens(Secret(f"access-{number + 1}"), Secret(f"refresh-{number + 1}"), end)


@dataclass
class Bench:
    """Everything that calls Acme, in one process; `process()` makes another."""

    pool: Pool
    vault: Vault
    acme: Acme
    catalog: ConnectorCatalog
    sender: VendorSender
    renewals: Renewals
    connections: Connections
    credentials: Credentials
    executor: Executor
    slept: list[float]

    def process(self) -> "Bench":
        """Another process with the same database, at the same vendor."""
        return _bench(self.pool, self.vault, self.acme, self.catalog, self.sender, self.renewals)

    async def run(self, action: str, owner: Owner = ALICE, call_id: str = "call_1", **given: str) -> Result:
        """The result of an action."""
        return await self.executor.run(ActionCall(call_id, owner, "acme", action, given or ARGUMENTS[action]))

    async def connect(self, owner: Owner = ALICE, key: str = KEY) -> Connection:
        """Connect with a key."""
        return await self.connections.connect(owner, "acme", 0, {"token": key})

    async def sign_in(self, owner: Owner = ALICE, ends_in: timedelta = timedelta(hours=1)) -> Connection:
        """Connect as after a sign-in by OAuth."""
        self.acme.people["access-1"] = "Ada"
        values = {"access_token": "access-1", "refresh_token": "refresh-1"}
        return await self.connections.connect(owner, "acme", 1, values, datetime.now(UTC) + ends_in)


def _bench(*parts: Any) -> Bench:
    pool, vault, _, catalog, sender, renewals = parts
    connections, credentials = (
        Connections(pool, vault, catalog, sender),
        Credentials(pool, vault, renewals),
    )
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    executor = Executor(catalog, connections, credentials, sender, sleep)
    return Bench(*parts, connections, credentials, executor, slept)


@contextlib.asynccontextmanager
async def running_bench(pool: Pool, vault: Vault) -> AsyncIterator[Bench]:
    """The vendor's server, and a process that calls it."""
    acme = Acme()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", acme.handle)
    async with (
        TestServer(app) as server,
        open_guarded_session(allow_private=False) as guarded,
        open_guarded_session(allow_private=True) as operators,
    ):
        acme.url = str(server.make_url("/")).rstrip("/")
        catalog = ConnectorCatalog.load({"QLAUD_CONNECTOR_BASE_URL_ACME": acme.url}, {"acme.toml": FILE})
        sender = VendorSender(guarded, operators, allow_private=False)
        bench = _bench(pool, vault, acme, catalog, sender, Renewals(acme))
        yield bench
        await bench.credentials.close()
