"""Hosted MCP servers with each end user's own credential, which goes along with their calls alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from fakes.mcp_double import McpDouble, listed, mcp_double
from front_door import Door, front_door
from mcp.types import ToolAnnotations
from redis.asyncio import Redis
from structlog.testing import capture_logs

from qlaud_actors.connectors import links
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connections import Connections, Owner
from qlaud_actors.connectors.credentials import Credentials
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import Listing, McpClient
from qlaud_actors.probe import wait_until
from qlaud_actors.settings import Settings
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.finder import ToolFinder
from qlaud_actors.tools.hosted import HostedDesk
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.manage import ConnectionDesk
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.model import CallContext, ToolCall, ToolOutcome
from qlaud_actors.tools.server_users import ServerUsers
from qlaud_actors.tools.store import list_tools

BASE = "https://qlaud.example"
SERVERS = "/v1/mcp-servers"
TOOL = "qlaud-mcp/mcp-linear"
ORDER = {"name": "tracker", "catalog_slug": "linear", "auth_mode": "per_user"}
ADA, BOB, OPS = (f"lin_api_{name}{'x1Y2z3' * 6}" for name in ("ada", "bob", "ops"))


class NoVectors:
    """A search by words alone."""

    def of(self, texts: list[str]) -> None:
        """There are none."""


@dataclass
class Office:
    """A front door, Linear's MCP server behind it, and who connects."""

    door: Door
    double: McpDouble
    pool: Pool
    redis: Redis
    connections: Connections
    mcp: McpCaller

    async def register(self, key: str | None = None, **more: str) -> Any:
        """Register the server for everybody's own credential: the answer."""
        status, made = await self.door.ask("POST", SERVERS, {**ORDER, **more}, key=key)
        assert status == 201, made
        return made

    async def key_of(self, end_user_id: str) -> str:
        """A key of an end user."""
        return str((await self.door.mint(end_user_id=end_user_id))["secret"])

    async def manage(self, key: str, action: str, tool: str = TOOL, **more: Any) -> tuple[int, Any]:
        """What the desk answers."""
        body = {"action": action, "tool": tool, **more}
        return await self.door.ask("POST", "/v1/connections", body, key=key)

    async def connect(self, key: str, token: str) -> Any:
        """Connect with a credential: the answer."""
        status, told = await self.manage(key, "connect", credentials={"api_key": token})
        assert status == 200, told
        return told

    async def run(self, key: str, tool: str = "tracker/list_issues", **args: Any) -> Any:
        """The result of one call."""
        body = {"calls": [{"tool": tool, "args": args}]}
        status, told = await self.door.ask("POST", "/v1/tools/execute", body, key=key)
        assert status == 200, told
        return told["results"][0]

    async def tools(self) -> list[str]:
        """The names of the account's tools."""
        return [tool["name"] for tool in (await self.door.ask("GET", "/v1/tools"))[1]["data"]]


@pytest.fixture
async def office(pool: Pool, vault: Vault, redis_url: str) -> AsyncIterator[Office]:
    """Everything wired as in production, with loopback allowed."""
    tools = (
        listed("list_issues", annotations=ToolAnnotations(readOnlyHint=True)),
        listed("create_issue", description="Creates an issue."),
        listed("mirror"),
    )
    settings = Settings(allow_private_webhooks=True, public_url=BASE)
    async with (
        mcp_double(*tools) as double,
        open_guarded_session(allow_private=True) as session,
        Redis.from_url(redis_url) as redis,
    ):
        double.people = {ADA: "Ada", BOB: "Bob", OPS: "everybody"}
        catalog = ConnectorCatalog.load({"QLAUD_MCP_BASE_URL_LINEAR": double.url})
        client = McpClient(session, allow_private=True)
        hosted, sender = HostedDesk(client, catalog), VendorSender(session, session, allow_private=True)
        connections = Connections(pool, vault, catalog, sender, hosted)
        mcp = McpCaller(client, ServerUsers(hosted, connections, Credentials(pool, vault, None)))

        async def make_link(owner: Owner, connector: str) -> links.NewLink:
            return await links.create(pool, owner, connector, BASE)

        desk = ConnectionDesk(catalog, connections, make_link)
        finder = ToolFinder(pool, catalog, NoVectors())  # type: ignore[arg-type]
        services: dict[str, Any] = {"connectors": catalog, "connections": connections, "desk": desk}
        services |= {"mcp": mcp, "dispatcher": Dispatcher({"mcp": mcp}, KeptCalls(pool), desk, finder)}
        async with front_door(pool, settings=settings, vault=vault, redis=redis, **services) as door:
            yield Office(door, double, pool, redis, connections, mcp)


async def test_a_server_waits_for_the_first_who_connects(office: Office) -> None:
    """Until then one tool stands for it, which is found and says how to connect; then there are its own."""
    made = await office.register()
    assert [tool["name"] for tool in made["tools"]] == ["tracker/connect"]
    assert (made["auth_mode"], made["connect"], made["has_auth_headers"]) == ("per_user", TOOL, False)
    assert (made["tools_cached"], made["tools_cache_at"], office.double.requests) == (0, None, [])
    ada = await office.key_of("ada")
    _, found = await office.door.ask("POST", "/v1/tools/search", {"intent": "linear issues"}, key=ada)
    (first,) = found["results"][:1]
    assert (first["name"], first["connector"], first["status"]) == (
        "tracker/connect",
        "mcp-linear",
        "not_connected",
    )
    refused = await office.run(ada, "tracker/connect")
    assert (refused["status"], refused["output"]["tool"]) == ("not_connected", TOOL)
    assert (await office.run(ada))["status"] == "refused"  # nobody knows such a tool yet
    assert (await office.connect(ada, ADA))["whose"] == "end_user"
    assert await office.tools() == ["tracker/list_issues", "tracker/create_issue", "tracker/mirror"]
    (shown,) = (await office.door.ask("GET", SERVERS))[1]["data"]
    assert (shown["tools_cached"], shown["tools_cache_at"] > 1_700_000_000_000) == (3, True)
    assert (await office.run(ada))["output"] == "list_issues {}"


async def test_each_call_carries_the_credential_of_its_user_alone(office: Office) -> None:
    """Two users, two tokens; who has none is not connected, until the account itself connects."""
    await office.register()
    ada, bob, cy = [await office.key_of(name) for name in ("ada", "bob", "cy")]
    await office.connect(ada, ADA)
    assert (await office.run(bob))["output"]["error"] == "not_connected"
    await office.connect(bob, BOB)
    for key in (ada, bob, ada):
        assert (await office.run(key))["status"] == "ok"
    assert (await office.run(cy))["status"] == "not_connected"
    assert office.double.who() == ["Ada", "Bob", "Ada"]
    assert (await office.connect(office.door.master, OPS))["whose"] == "account"
    for key in (cy, bob, office.door.master):
        await office.run(key)
    assert office.double.who()[3:] == ["everybody", "Bob", "everybody"]
    told = (await office.manage(cy, "status"))[1]
    assert (told["status"], told["whose"]) == ("connected", "account")
    assert (await office.manage(cy, "disconnect"))[0] == 400
    assert (await office.manage(bob, "disconnect"))[1]["whose"] == "account"
    await office.run(bob)
    assert office.double.who()[-1] == "everybody"


async def test_another_account_has_its_own(office: Office) -> None:
    """The same server and the same end user's name at another account share neither tools nor credential."""
    await office.register()
    await office.connect(await office.key_of("ada"), ADA)
    _, account = await office.door.ask("POST", "/v1/accounts", {"name": "other"})
    made = await office.register(account["secret"])
    assert [tool["name"] for tool in made["tools"]] == ["tracker/connect"]
    _, minted = await office.door.ask(
        "POST", "/v1/keys", {"name": "k", "end_user_id": "ada"}, key=account["secret"]
    )
    assert (await office.run(minted["secret"], "tracker/connect"))["status"] == "not_connected"
    status, refused = await office.door.ask("POST", f"{SERVERS}/{made['id']}/refresh", key=account["secret"])
    assert (status, TOOL in refused["error"]["message"]) == (409, True)
    assert office.double.calls == []


async def test_a_refused_credential_expires_its_connection_and_no_other(office: Office) -> None:
    """After a 401 nothing more is sent with it, the user is asked to connect again, others go on."""
    await office.register()
    ada, bob = await office.key_of("ada"), await office.key_of("bob")
    await office.connect(ada, ADA)
    await office.connect(bob, BOB)
    assert office.double.people is not None
    del office.double.people[ADA]
    told = await office.run(ada)
    assert (told["status"], told["output"]["error"]) == ("not_connected", "connection_expired")
    assert (told["output"]["tool"], "connect" in told["output"]["message"]) == (TOOL, True)
    asked = len(office.double.requests)
    assert (await office.run(ada))["output"]["error"] == "connection_expired"
    assert len(office.double.requests) == asked
    assert (await office.manage(ada, "status"))[1]["status"] == "expired"
    _, found = await office.door.ask("POST", "/v1/tools/search", {"intent": "create issue"}, key=ada)
    assert {one["status"] for one in found["results"] if one["connector"] == "mcp-linear"} == {"expired"}
    assert (await office.run(bob))["status"] == "ok"
    await office.connect(ada, OPS)
    assert (await office.run(ada))["status"] == "ok"
    for failure in (403, 500):
        office.double.status = failure
        assert (await office.run(ada))["status"] == "error"
    assert (await office.manage(ada, "status"))[1]["status"] == "connected"


@pytest.mark.parametrize(
    ("status", "token", "words"),
    [
        (None, "lin_api_" + "z" * 40, "does not accept this credential"),
        (403, ADA, "may lack a permission"),
        (400, ADA, "status 400"),
        (503, ADA, "status 503. Nothing was saved. Try again."),
        (None, "wrong", "does not look like"),
    ],
)
async def test_what_does_not_connect_says_why_and_changes_nothing(
    office: Office, status: int | None, token: str, words: str
) -> None:
    """The server is asked before anything is kept; the credential is not repeated."""
    await office.register()
    office.double.status = status
    got, told = await office.manage(await office.key_of("ada"), "connect", credentials={"api_key": token})
    assert (got, words in told["error"]["message"]) == (400, True), told
    assert token not in told["error"]["message"] or token == "wrong"
    assert await office.pool.fetchval("SELECT count(*) FROM connections") == 0
    assert await office.tools() == ["tracker/connect"]


async def test_the_page_connects_and_lists(office: Office) -> None:
    """The link of the desk opens the same page as for connectors; the form makes connection and tools."""
    await office.register()
    ada = await office.key_of("ada")
    _, told = await office.manage(ada, "connect", "tracker/connect")
    path = told["connect_url"].removeprefix(BASE)
    client = office.door.client
    async with client.get(path) as shown:
        page, cookie = await shown.text(), next(iter(shown.cookies.values()))
    assert "Connect Linear (MCP server) to" in page
    assert "the tools of this server" in page
    form_token = page.partition('name="_form" value="')[2].partition('"')[0]
    form = {"_form": form_token, "_way": "0", "api_key": ADA}
    headers = {"cookie": f"{cookie.key}={cookie.value}"}
    async with client.post(path, data=form, headers=headers) as done:
        page = await done.text()
    assert (done.status, "is connected to" in page, ADA in page) == (200, True, False)
    assert (await office.run(ada))["status"] == "ok"
    assert office.double.who() == ["Ada"]


async def test_connection_and_tools_are_saved_together_or_not_at_all(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who dies while the tools are written has connected nobody; the next connection lists them."""
    await office.register()
    keep = HostedDesk.keep

    async def die(self: HostedDesk, rows: Any, account_id: Any, connector: str, listing: Listing) -> None:
        await keep(self, rows, account_id, connector, listing)
        raise ConnectionResetError

    monkeypatch.setattr(HostedDesk, "keep", die)
    ada = await office.key_of("ada")
    status, _ = await office.manage(ada, "connect", credentials={"api_key": ADA})
    assert status >= 500
    assert await office.pool.fetchval("SELECT count(*) FROM connections") == 0
    assert await office.pool.fetchval("SELECT count(*) FROM connection_secrets") == 0
    assert await office.tools() == ["tracker/connect"]
    monkeypatch.undo()
    await office.connect(ada, ADA)
    assert len(await office.tools()) == 3


async def test_a_refresh_asks_as_the_account_else_as_the_newest_user(office: Office) -> None:
    """Whose credential is refused is expired and the next one asked; with nobody left nothing changes."""
    made = await office.register()
    again = f"{SERVERS}/{made['id']}/refresh"
    ada, bob = await office.key_of("ada"), await office.key_of("bob")
    await office.connect(ada, ADA)
    await office.connect(bob, BOB)

    def asked_since(start: int) -> set[str]:
        return {headers["authorization"] for _, headers in office.double.requests[start:]}

    start = len(office.double.requests)
    office.double.tools.append(listed("archive"))
    status, told = await office.door.ask("POST", again)
    assert (status, len(told["tools"]), asked_since(start)) == (200, 4, {f"Bearer {BOB}"})
    await office.connect(office.door.master, OPS)
    start = len(office.double.requests)
    assert (await office.door.ask("POST", again))[0] == 200
    assert asked_since(start) == {f"Bearer {OPS}"}
    assert office.double.people is not None
    del office.double.people[OPS]
    assert (await office.door.ask("POST", again))[0] == 200
    assert (await office.manage(office.door.master, "status"))[1]["status"] == "expired"
    office.double.people.clear()
    status, refused = await office.door.ask("POST", again)
    assert (status, len(await office.tools())) == (409, 4), refused
    office.double.people |= {ADA: "Ada"}
    await office.connect(ada, ADA)
    office.double.status = 500
    assert (await office.door.ask("POST", again))[0] == 502


async def test_a_later_registration_lists_with_the_connections_there_are(office: Office) -> None:
    """Connections outlive the server: they can be seen and ended without it, and serve the next one."""
    made = await office.register()
    ada = await office.key_of("ada")
    await office.connect(ada, ADA)
    assert (await office.door.ask("DELETE", f"{SERVERS}/{made['id']}"))[0] == 200
    assert await office.tools() == []
    assert (await office.manage(ada, "status"))[1]["status"] == "connected"
    assert (await office.manage(ada, "connect"))[0] == 400  # nothing here would use it
    again = await office.register(name="issues")
    assert again["tools"][0]["name"] == "issues/list_issues"
    assert (await office.manage(ada, "disconnect"))[1]["status"] == "not_connected"
    assert await office.pool.fetchval("SELECT count(*) FROM connection_secrets") == 0
    assert (await office.run(ada, "issues/list_issues"))["status"] == "not_connected"


async def test_the_desk_lists_servers_that_are_registered(office: Office) -> None:
    """Beside the connectors; another vendor's server that the account has not registered is not offered."""
    ada = await office.key_of("ada")
    assert (await office.manage(ada, "connect"))[0] == 400
    await office.register()
    _, told = await office.door.ask("POST", "/v1/connections", {"action": "list"}, key=ada)
    servers = [one for one in told["tools"] if one["tool"].startswith("qlaud-mcp/mcp-")]
    assert servers == [
        {"tool": TOOL, "name": "Linear (MCP server)", "status": "not_connected", "connected": False}
    ]
    assert "`api_key` (API key)" in (await office.manage(ada, "status"))[1]["credentials_prompt"]
    await office.connect(ada, ADA)
    _, told = await office.door.ask("POST", "/v1/connections", {"action": "list"}, key=ada)
    assert (told["tools"][0]["tool"], told["tools"][0]["connected"]) == (TOOL, True)
    told = (await office.manage(ada, "status", "tracker/create_issue"))[1]
    assert (told["tool"], told["status"], told["whose"]) == (TOOL, "connected", "end_user")


async def test_tools_of_users_are_not_everybodys(office: Office) -> None:
    """In tenant mode they are not attached; `/mcp` lists them to those who are connected."""
    await office.register()
    ada, bob = await office.key_of("ada"), await office.key_of("bob")
    await office.connect(ada, ADA)
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    listed_to = {}
    for key in (ada, bob):
        _, told = await office.door.ask("POST", "/mcp", message, key=key)
        listed_to[key] = {tool["title"] for tool in told["result"]["tools"]}
    assert "tracker/create_issue" in listed_to[ada]
    assert "tracker/create_issue" not in listed_to[bob]
    assert await office.pool.fetchval("SELECT bool_or(shared) FROM tools") is False


async def test_a_credential_is_nowhere(office: Office) -> None:
    """In no table, Redis, log line or answer, though the server repeats it; each opening is on record."""
    with capture_logs() as logs:
        office.double.tools.append(listed("leaky", description=f"Made for {ADA}."))
        await office.register()
        ada = await office.key_of("ada")
        told = [await office.connect(ada, ADA)]
        told += [await office.run(ada, f"tracker/{name}") for name in ("mirror", "list_issues")]
        told += [await office.door.ask("GET", path) for path in ("/v1/tools", SERVERS)]
        told.append(await office.manage(ada, "connect", credentials={"api_key": ADA[:-1] + "9"}))
        office.double.people = {}
        told.append(await office.run(ada, "tracker/mirror"))
    assert told[1]["output"] == "mirror {'told': 'Bearer [hidden]'}"
    rows = [
        await office.pool.fetch(f'SELECT t::text FROM "{table}" t')
        for (table,) in await office.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    kept = [await office.redis.dump(name) for name in await office.redis.keys()]
    everything = json.dumps([told, logs, [str(row) for row in rows], [str(one) for one in kept]], default=str)
    for spelled in (ADA, ADA[:-1] + "9", ADA.encode().hex()):
        assert spelled not in everything
    purposes = await office.pool.fetch("SELECT field, purpose FROM vault_audit ORDER BY id")
    assert [row["field"] for row in purposes] == ["api_key"] * 3
    assert all(row["purpose"].startswith("tool_call:") for row in purposes)


async def test_a_call_that_waits_is_not_made_after_disconnecting(office: Office, vault: Vault) -> None:
    """A connection that ends between its lookup and the request is not used."""
    await office.register()
    ada = await office.key_of("ada")
    await office.connect(ada, ADA)
    open_ = vault.open

    async def open_slowly(*args: Any) -> Any:
        await office.manage(ada, "disconnect")
        return await open_(*args)

    vault.open = open_slowly  # type: ignore[method-assign]
    told = await office.run(ada)
    assert (told["status"], office.double.calls) == ("not_connected", [])


async def test_at_most_four_calls_run_at_a_time_on_a_connection(office: Office, vault: Vault) -> None:
    """The others wait for their turn; another user's do not."""
    office.double.tools.append(listed("hang"))
    await office.register()
    ada, bob = await office.key_of("ada"), await office.key_of("bob")
    await office.connect(ada, ADA)
    await office.connect(bob, BOB)
    tools = {tool.name: tool for tool in await list_tools(office.pool, vault, ACCOUNT)}

    async def call(end_user_id: str, name: str, number: int) -> ToolOutcome:
        made = ToolCall(f"call_{number}", f"toolu_{number}", name, {})
        context = CallContext(ACCOUNT, "req_1", end_user_id=end_user_id)
        return await office.mcp.call(tools[name], made, context)

    async def four() -> bool:
        return len(office.double.calls) >= 4

    waiting = [asyncio.create_task(call("ada", "tracker/hang", number)) for number in range(6)]
    assert await wait_until(four, 20)
    assert not (await call("bob", "tracker/list_issues", 7)).is_error
    assert office.double.who() == ["Ada"] * 4 + ["Bob"]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
