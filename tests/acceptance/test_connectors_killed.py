"""Workers are killed while a vendor is called: what is written once, what is asked again, what is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from cluster import Api, Cluster, process, running_cluster
from fakes.vendors.conversations import CONNECTIONS, CONVERSATIONS, EXECUTE, calling
from fakes.vendors.linear import Linear
from fakes.vendors.oauth import App
from fakes.vendors.server import served
from fakes.vendors.stripe import Stripe
from talking import Turn, say

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import Owner
from qlaud_actors.connectors.connections import Connections
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session

LINEAR, STRIPE = CONVERSATIONS["linear"], CONVERSATIONS["stripe"]
READ = {"tool": "linear/list_teams", "args": {}}
ONCE = {"tool": STRIPE.tool, "args": STRIPE.arguments}
WRITE = {"tool": LINEAR.tool, "args": LINEAR.arguments}
SAID = {"text": "said"}

# where the worker dies, while it runs a read, an idempotent write and a write in this order; then how often
# the vendors were asked for each, how many issues there are, and whether the write's result is unknown
POINTS = [
    ("send after 1", (2, 1, 1), 1, False),
    ("send after 2", (1, 2, 1), 1, False),
    ("begin before 4", (1, 1, 1), 1, False),
    ("begin after 4", (1, 1, 0), 0, True),
    ("send after 3", (1, 1, 1), 1, True),
]


class SignsIn(Linear):
    """Linear with its token endpoint: each refresh token is taken once, and ends the access token."""

    def __init__(self, credential: str) -> None:
        super().__init__(credential)
        self.oauth = App()
        self.refresh_token = "lin_refresh_1"
        self.asked: list[str] = []
        """Refresh tokens that were shown."""

    def extra_routes(self, app: web.Application) -> None:
        """The one address."""
        app.router.add_post("/oauth/token", self._token)

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.asked.append(str(form["refresh_token"]))
        if form["refresh_token"] != self.refresh_token:
            return web.json_response({"error": "invalid_grant"}, status=400)
        number = len(self.asked) + 1
        self.credential, self.refresh_token = f"lin_access_{number}", f"lin_refresh_{number}"
        tokens = {"access_token": self.credential, "refresh_token": self.refresh_token, "expires_in": 86_400}
        return web.json_response(tokens)


@dataclass
class Scene:
    """A front door without workers, the vendors, and who connects accounts with them."""

    cluster: Cluster
    linear: SignsIn
    stripe: Stripe
    connections: Connections

    async def turn(self, user: Api, point: str, *steps: dict[str, Any]) -> Turn:
        """A turn whose first worker dies at a point, and a second one takes it over."""
        thread = (await user.post("/v1/threads", {}))["id"]
        following = asyncio.create_task(say(user, thread, "Please.", [*steps, SAID]))
        async with process("workers", self.cluster.environ, dies_at=point) as dying:
            assert await asyncio.wait_for(dying.wait(), 30) == 9
        async with process("workers", self.cluster.environ):
            return await asyncio.wait_for(following, 25)


@pytest.fixture
async def scene(database_url: str, redis_url: str, pool: Pool) -> AsyncIterator[Scene]:
    """Leases are short, so that takeovers are quick."""
    async with contextlib.AsyncExitStack() as stack:
        linear, stripe = SignsIn(LINEAR.credential), Stripe(STRIPE.credential)
        await stack.enter_async_context(served(linear))
        await stack.enter_async_context(served(stripe))
        environ = {
            "QLAUD_CONNECTOR_BASE_URL_LINEAR": linear.url,
            "QLAUD_CONNECTOR_BASE_URL_STRIPE": stripe.url,
            "QLAUD_OAUTH_LINEAR_CLIENT_ID": linear.oauth.client_id,
            "QLAUD_OAUTH_LINEAR_CLIENT_SECRET": linear.oauth.client_secret,
        }
        running = running_cluster(database_url, redis_url, workers=0, QLAUD_LEASE_SECONDS="1", **environ)
        cluster = await stack.enter_async_context(running)
        session = await stack.enter_async_context(open_guarded_session(allow_private=True))
        vault = Vault(Keyring.parse(cluster.environ["QLAUD_KEYRING"]), pool)
        sender = VendorSender(session, session, allow_private=True)
        connections = Connections(pool, vault, ConnectorCatalog.load(environ), sender)
        yield Scene(cluster, linear, stripe, connections)


@pytest.mark.parametrize(("point", "asked", "made", "unknown"), POINTS)
async def test_a_vendor_is_called_again_only_where_that_is_safe(
    scene: Scene, point: str, asked: tuple[int, int, int], made: int, unknown: bool
) -> None:
    """A read is asked again, a write with a key of its own too, any other at most once and then told."""
    owner = Owner(BOOTSTRAP_ACCOUNT, "ada")
    user, _ = await scene.cluster.key(end_user_id="ada")
    await scene.connections.connect(owner, "linear", 0, {"api_key": LINEAR.credential})
    await scene.connections.connect(owner, "stripe", 0, {"api_key": STRIPE.credential})
    scene.linear.forget()
    scene.stripe.forget()
    turn = await scene.turn(user, point, calling(EXECUTE, calls=[READ, ONCE, WRITE], ordered=True))
    check(scene, turn.outputs[-1]["results"], asked, made, unknown=unknown)
    assert turn.events[-1]["status"] == "completed"


def check(scene: Scene, results: list[Any], asked: tuple[int, int, int], made: int, *, unknown: bool) -> None:
    """What the vendors saw, and what the model was told."""
    documents = [call.body["query"] for call in scene.linear.calls]
    writes = sum("issueCreate" in document for document in documents)
    assert (len(documents) - writes, len(scene.stripe.calls), writes) == asked
    assert (len(scene.stripe.made), len(scene.linear.made)) == (1, made)
    assert len({call.headers["Idempotency-Key"] for call in scene.stripe.calls}) == 1
    assert [result.get("is_error", False) for result in results] == [False, False, unknown]
    assert (results[2]["status"] == "unknown") == unknown
    assert scene.linear.mistakes + scene.stripe.mistakes == []


async def test_a_token_that_died_with_its_process_is_noticed_and_not_used(scene: Scene) -> None:
    """Renewed at the vendor and not yet saved: the connection has expired, is offered anew and left alone."""
    owner = Owner(BOOTSTRAP_ACCOUNT, "ada")
    user, _ = await scene.cluster.key(end_user_id="ada")
    scene.linear.credential = "lin_access_1"
    tokens = {"access_token": "lin_access_1", "refresh_token": "lin_refresh_1"}
    ended = datetime.now(UTC) - timedelta(seconds=1)
    await scene.connections.connect(owner, "linear", 1, tokens, ended)
    scene.linear.forget()
    steps = [
        calling(EXECUTE, calls=[READ]),
        calling(EXECUTE, calls=[WRITE, READ]),
        calling(CONNECTIONS, action="connect", tool=LINEAR.tool),
    ]
    turn = await scene.turn(user, "refresh after 1", *steps)
    *executed, offered = turn.outputs[-3:]
    results = [result for output in executed for result in output["results"]]
    assert [result["status"] for result in results] == ["not_connected"] * 3
    assert [result["output"]["error"] for result in results] == ["connection_expired"] * 3
    assert "/connect/" in str(offered)
    assert scene.linear.asked == ["lin_refresh_1", "lin_refresh_1"]
    assert scene.linear.calls == []
    found = await scene.connections.find(owner, "linear")
    assert found is not None
    assert found.status == "expired"
    assert "expired" in str(await user.post("/v1/connections", {"action": "list"}))
