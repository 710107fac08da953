"""Other people's addresses: one table of what is refused, for everything that requests one.

Webhook tools, MCP servers, http-call, and connectors whose address comes from a connection's fields.
"""

import socket
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
import pytest
from receiver import running_receiver, says

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import ConnectRefused, Owner
from qlaud_actors.connectors.connections import Connections
from qlaud_actors.connectors.credentials import Credentials
from qlaud_actors.connectors.execute import ActionCall, Executor
from qlaud_actors.connectors.hosted import HostedServers
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.attempt import Session
from qlaud_actors.outbound.guard import Lookup, open_guarded_session
from qlaud_actors.outbound.mcp import McpClient
from qlaud_actors.settings import Secret
from qlaud_actors.tools.builtins.caller import BuiltinCaller
from qlaud_actors.tools.builtins.catalog import Builtins
from qlaud_actors.tools.builtins.vendor import VendorTools
from qlaud_actors.tools.hosted import HostedDesk
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.model import CallContext, McpServer, Tool, ToolCall
from qlaud_actors.tools.webhook import WebhookCaller

Entry: TypeAlias = Callable[[Session, bool, str], Awaitable[str]]
"""Requests a URL through a session, private hosts allowed or not; gives the words of the failure."""

CALL = ToolCall("call_1", "toolu_1", "t", {})
CONTEXT = CallContext(uuid.UUID(int=1), "req_1")
OBJECT = {"type": "object"}


async def no_wait(_: float) -> None:
    """Retry at once."""


async def webhook(session: Session, allow_private: bool, url: str) -> str:
    """A webhook tool."""
    tool = Tool("t", "t", "d", OBJECT, "webhook", webhook_url=url, secret=Secret("wsk_1"))
    outcome = await WebhookCaller(session, allow_private, no_wait).call(tool, CALL, CONTEXT)
    return str(outcome.output) if outcome.is_error else ""


async def mcp_server(session: Session, allow_private: bool, url: str) -> str:
    """A tool of an MCP server."""
    server = McpServer(uuid.UUID(int=2), "s", url, Secret("{}"))
    tool = Tool("t", "s/t", "d", OBJECT, "mcp", server=server)
    outcome = await McpCaller(McpClient(session, allow_private=allow_private)).call(tool, CALL, CONTEXT)
    return str(outcome.output) if outcome.is_error else ""


async def http_call(session: Session, allow_private: bool, url: str) -> str:
    """The built-in http-call: the check is the same when it is registered and when it is called."""
    connectors = ConnectorCatalog.load({}, {})
    sender = VendorSender(session, session, allow_private=allow_private)
    nobody: Any = None
    vendors = VendorTools(sender, {}, nobody, no_wait)
    builtins = Builtins({HTTP_CALL.provider: HTTP_CALL}, connectors)
    caller = BuiltinCaller(builtins, vendors, nobody, allow_private=allow_private)
    config = Secret(msgspec.json.encode({"url": url, "method": "GET"}).decode())
    tool = Tool("t", "t", "d", OBJECT, "builtin", "read", provider=HTTP_CALL.provider, config=config)
    outcome = await caller.call(tool, CALL, CONTEXT)
    return str(outcome.output) if outcome.is_error else ""


CONNECTOR = """
slug = "acme"
name = "Acme"
category = "data"
description = "A vendor whose address is a connection's."
docs_url = "https://acme.example"
base_url = "https://{host}/api"
hosts = ["*.vendor.example"]
spec = { unchecked = "A test." }

[[fields]]
name = "host"
label = "Host"
help = "Where it is."

[[auth]]
scheme = "bearer"
label = "Token"
headers = { Authorization = "Bearer {token}" }

[[auth.fields]]
name = "token"
label = "Token"
secret = true
help = "Anything."

[verify]
request = "GET /me"
connected_as = "{name}"
account_id = "{id}"

[[actions]]
name = "read_it"
title = "Read it"
description = "Reads whatever there is at the address."
effect = "read"
request = "GET /it"
"""


async def connection(session: Session, allow_private: bool, url: str) -> str:
    """The address that a connection's field gives, when it is verified: the first request to it.

    Where private hosts are allowed, the operator's own address for the vendor is asked.
    """
    host = url.removeprefix("https://").removesuffix("/hook")
    override = {"QLAUD_CONNECTOR_BASE_URL_ACME": url} if url.startswith("http://") else {}
    catalog = ConnectorCatalog.load(override, {"acme.toml": CONNECTOR})
    nobody: Any = None
    connections = Connections(
        nobody, nobody, catalog, VendorSender(session, session, allow_private=allow_private)
    )
    values = {"host": host if not override else "eu.vendor.example", "token": "secret-token"}
    try:
        await connections.verify(Owner(ACCOUNT), "acme", 0, values)
    except ConnectRefused as refused:
        return refused.words
    return ""


HOSTED = HostedServers.load({}).entries


async def hosted_server(session: Session, allow_private: bool, url: str) -> str:
    """A vendor's hosted MCP server, asked with the credential that somebody gives."""
    catalog = ConnectorCatalog({}, {}, hosted=HostedServers(HOSTED, {"linear": url}))
    nobody: Any = None
    desk = HostedDesk(McpClient(session, allow_private=allow_private), catalog)
    try:
        values = {"api_key": "lin_api_" + "x" * 40}
        await Connections(nobody, nobody, catalog, nobody, desk).verify(
            Owner(ACCOUNT), "mcp-linear", 0, values
        )
    except ConnectRefused as refused:
        return refused.words
    return ""


HTTP_CALL = Builtins.load(ConnectorCatalog.load({})).offers["qlaud-builtin/http-call"]
ENTRIES: list[Entry] = [webhook, mcp_server, http_call, connection, hosted_server]

HOSTS = [
    # Loopback, in every spelling that some parser takes for it.
    *("127.0.0.1", "127.0.0.1:8080", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1"),
    *("017700000001", "127.0.0.1.", "0", "0.0.0.0", "localhost", "LOCALHOST", "localhost."),
    *("a.localhost", "[::1]", "[::]"),
    # An IPv4 address within an IPv6 one: mapped, translated, compatible, NAT64, 6to4, Teredo.
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:0:127.0.0.1]", "[::127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]"),
    *("[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"),
    "[2002:a9fe:a9fe::1]",
    # Private, carriers', link-local, unique local, reserved, multicast, broadcast.
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.1.1"),
    *("[fe80::1]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[fec0::1]", "[fc00::1]", "[fd12::1]"),
    *("192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "[ff02::1]", "[100::1]", "[2001:db8::1]"),
    *("[3fff::1]", "[5f00::1]"),
    # Where clouds keep credentials.
    *("169.254.169.254", "169.254.170.2", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376"),
    *("[fd00:ec2::254]", "100.100.100.200", "168.63.129.16", "192.0.0.192", "metadata"),
    *("metadata.google.internal", "metadata.goog", "METADATA.google.internal.", "instance-data"),
    "[fd20:ce::254]",
    # Neighbours.
    *("db", "kubernetes", "host.docker.internal", "api.default.svc", "api.default.svc.cluster.local"),
    "nas.local",
    # Disguises of the host.
    *("user@127.0.0.1", "eu.vendor.example@127.0.0.1", "eu.vendor.example:x@10.0.0.1"),
    *("127.0.0.1#.vendor.example", "127.0.0.1\\@eu.vendor.example", "eu.vendor.example\\@127.0.0.1"),
    *("127.0.0.1%2f.vendor.example", "%31%32%37.0.0.1", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1"),
    *("ⓛocalhost", "127.0.0.1 .vendor.example", "127.0.0.1\t", "127.0.0.1\r\nHost:x"),
    *("eu.vendor.example,127.0.0.1", "[::1", "a..vendor.example"),
]  # fmt: skip
RESOLVED = [
    *("127.0.0.1", "10.1.2.3", "172.20.0.1", "192.168.0.9", "100.64.1.1", "169.254.169.254", "0.0.0.0"),
    *(
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fe80::1%eth0",
    ),
    *("fd00:ec2::254", "fc00::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "100.100.100.200", "224.0.0.1"),
]


def lookup_of(*addresses: str) -> tuple[Lookup, list[str]]:
    """A name server that gives all of these for every name, and a list of the names that it was asked."""
    asked: list[str] = []

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_STREAM, 6, "", (to, port))
            for to in addresses
        ]

    return lookup, asked


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
@pytest.mark.parametrize("host", HOSTS)
async def test_an_address_that_is_not_public_is_refused_everywhere(entry: Entry, host: str) -> None:
    """Whatever its spelling, it is refused in words; no name server is asked and no socket is opened."""
    lookup, asked = lookup_of("127.0.0.1")
    async with open_guarded_session(False, lookup) as session:
        words = await entry(session, False, f"https://{host}/hook")
    assert words
    assert "refused or broke" not in words
    assert asked == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
@pytest.mark.parametrize("address", RESOLVED)
async def test_a_name_that_leads_inside_is_refused_everywhere(entry: Entry, address: str) -> None:
    """One bad address among good ones is enough. The name is asked for when the call is made, and once:

    what it answered earlier, or would answer next, plays no part (DNS rebinding).
    """
    lookup, asked = lookup_of("8.8.8.8", address)
    async with open_guarded_session(False, lookup) as session:
        words = await entry(session, False, "https://eu.vendor.example/hook")
    assert "which is" in words
    assert address not in words
    assert asked == ["eu.vendor.example"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_leads_nowhere(entry: Entry, status: int) -> None:
    """Even where private hosts are allowed, nobody is sent on to a metadata service."""
    async with running_receiver() as peer, open_guarded_session(True) as session:
        peer.answers = [says(b"", status, location="http://169.254.169.254/latest/meta-data/")]
        assert await entry(session, True, peer.url)
        assert len(peer.bodies) == 1


async def test_a_connection_is_held_to_its_vendor_at_every_call(pool: Pool, vault: Vault) -> None:
    """A field that was changed behind our back gains nothing: the address is checked when it is used."""
    lookup, asked = lookup_of("127.0.0.1")
    catalog = ConnectorCatalog.load({}, {"acme.toml": CONNECTOR})
    async with open_guarded_session(False, lookup) as session:
        sender = VendorSender(session, session, allow_private=False)
        connections = Connections(pool, vault, catalog, sender)
        executor = Executor(catalog, connections, Credentials(pool, vault, None), sender, no_wait)
        await pool.execute(
            "INSERT INTO connections"
            " (id, account_id, connector, scheme, settings, connected_as, vendor_account_id)"
            " VALUES ($1, $2, 'acme', 0, $3, 'x', 'x')",
            uuid.uuid4(),
            ACCOUNT,
            {"host": "127.0.0.1"},
        )
        result = await executor.run(ActionCall("call_1", Owner(ACCOUNT), "acme", "read_it", {}))
    assert result.code == "refused"
    assert asked == []
