"""Tools of MCP servers, called on a server of the official library: answers, failures, and the guard."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from fakes.mcp_double import TOKEN, McpDouble, listed, mcp_double
from receiver import hangs_up, running_receiver, says
from structlog.testing import capture_logs

from qlaud_actors.connectors.vault import ClosedSecret, VaultError
from qlaud_actors.outbound import mcp as outbound_mcp
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import McpClient, McpFailed, Peer
from qlaud_actors.settings import Secret
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.model import CallContext, McpServer, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED

CONTEXT = CallContext(uuid.UUID(int=1), "req_1")
HEADERS = Secret(f'{{"authorization": "Bearer {TOKEN}"}}')


@pytest.fixture
async def client() -> AsyncIterator[McpClient]:
    """A client that may call loopback."""
    async with open_guarded_session(allow_private=True) as session:
        yield McpClient(session, allow_private=True)


@pytest.fixture
async def double() -> AsyncIterator[McpDouble]:
    """A server with sessions and streams."""
    async with mcp_double(listed("echo")) as running:
        yield running


async def run(
    client: McpClient, url: str, name: str, *, headers: Secret | ClosedSecret = HEADERS, **fields: Any
) -> ToolOutcome:
    """Call a tool of a server at a URL."""
    server = McpServer(uuid.UUID(int=2), "srv", url, headers)
    tool = Tool("tool_1", f"srv/{name}", "Does.", {"type": "object"}, "mcp", server=server)
    call = ToolCall("call_1.2", "toolu_1", tool.name, {"q": "ü"})
    return await McpCaller(client).call(replace(tool, **fields), call, CONTEXT)


@pytest.mark.parametrize("json_response", [False, True])
async def test_a_call_goes_out_with_its_headers_and_its_id(client: McpClient, json_response: bool) -> None:
    """The unprefixed name, the sealed headers on every request, and the idempotency key on the call alone."""
    async with mcp_double(listed("echo"), json_response=json_response) as double:
        outcome = await run(client, double.url, "echo")
    assert outcome == ToolOutcome("echo {'q': 'ü'}")
    assert double.calls == [("echo", {"q": "ü"})]
    assert double.metas[0]["idempotencyKey"] == "call_1.2"
    assert {headers["authorization"] for _, headers in double.requests} == {f"Bearer {TOKEN}"}
    keys = [headers.get("idempotency-key") for _, headers in double.requests]
    assert [key for key in keys if key] == ["call_1.2"]
    assert double.call_headers[0]["idempotency-key"] == "call_1.2"
    assert [method for method, _ in double.requests] == ["POST", "POST", "POST", "DELETE"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("broken", ToolOutcome("No luck.", is_error=True)),
        ("picture", ToolOutcome("Here:\n[image, image/png, about 3 bytes, not shown]")),
        ("sum", ToolOutcome({"sum": 3})),
    ],
)
async def test_results_become_outcomes(
    client: McpClient, double: McpDouble, name: str, expected: ToolOutcome
) -> None:
    """Errors are errors, images are described, what is structured is preferred."""
    assert await run(client, double.url, name) == expected


@pytest.mark.parametrize("json_response", [False, True])
async def test_a_huge_answer_is_cut_off_at_once(client: McpClient, json_response: bool) -> None:
    """It is not waited for until the time-out, and the model learns that the call took place."""
    async with mcp_double(json_response=json_response) as double:
        start = time.monotonic()
        outcome = await run(client, double.url, "huge")
    assert outcome.is_error
    assert "too large" in outcome.output
    assert MAY_HAVE_HAPPENED in outcome.output
    assert time.monotonic() - start < 10


async def test_a_tool_that_hangs_is_given_up(client: McpClient, double: McpDouble) -> None:
    """The time-out of the tool holds, and only a tool that reads leaves no doubt."""
    outcome = await run(client, double.url, "hang", timeout_ms=300)
    words = "The tool's MCP server gave no result: it did not answer within 0.3 s."
    assert outcome.output == f"{words} {MAY_HAVE_HAPPENED}"
    read = await run(client, double.url, "hang", timeout_ms=300, effect="read")
    assert MAY_HAVE_HAPPENED not in read.output


async def test_a_cancelled_call_ends(client: McpClient, double: McpDouble) -> None:
    """Draining a worker cancels its calls: that passes through the library's own tasks."""
    task = asyncio.create_task(run(client, double.url, "hang"))
    await asyncio.wait_for(double.called.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_refusal_is_told_as_such(client: McpClient, double: McpDouble, status: int) -> None:
    """The status is named, and that the call was not made."""
    double.status = status
    outcome = await run(client, double.url, "echo")
    assert outcome.is_error
    assert f"status {status}" in outcome.output
    assert "was not made" in outcome.output
    assert double.calls == []


async def test_an_error_of_the_protocol_is_the_servers_word(client: McpClient) -> None:
    """A JSON-RPC error becomes the tool's error, in the server's words, cut where they are endless."""

    async def refuses(request: web.Request) -> web.StreamResponse:
        message = await request.json()
        error = {"code": -32602, "message": "bad " + "x" * 5000}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

    async with running_receiver() as receiver:
        receiver.answers = [refuses]
        outcome = await run(client, receiver.url, "echo")
    assert outcome.is_error
    assert outcome.output.startswith("The tool's MCP server refused the call: bad xxx")
    assert len(outcome.output) < 2100


@pytest.mark.parametrize(
    "answer",
    [
        says({"hello": 1}, **{"content-type": "application/json"}),
        says(b"<html>", **{"content-type": "text/html"}),
        says(b"data: x\n\n", **{"content-type": "text/event-stream"}),
        says(b"", **{"content-type": "text/event-stream"}),
        hangs_up,
    ],
)
async def test_what_is_no_mcp_server_fails_at_once(client: McpClient, answer: Any) -> None:
    """Other JSON, a web page, a stream that ends early, a closed connection: a failure, not a wait."""
    async with running_receiver() as receiver:
        receiver.answers = [answer]
        outcome = await asyncio.wait_for(run(client, receiver.url, "echo"), 5)
    assert outcome.is_error
    assert "was not made" in outcome.output


async def test_redirects_elsewhere_are_not_followed(client: McpClient, double: McpDouble) -> None:
    """A server that points to another origin gets nothing sent there: the headers are for it alone."""
    async with running_receiver() as elsewhere:
        elsewhere.answers = [says({})]
        double.redirect = elsewhere.url
        outcome = await run(client, double.url, "echo")
    assert "status 307" in outcome.output
    assert elsewhere.bodies == []


def to_loopback(_host: str, port: int, **_: Any) -> list[Any]:
    """A name server that leads every name here."""
    return [(2, 1, 6, "", ("127.0.0.1", port))]


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/mcp",
        "https://[::ffff:127.0.0.1]/mcp",
        "https://169.254.169.254/latest",
        "https://0x7f.1/mcp",
        "https://2130706433/mcp",
        "http://example.com/mcp",
        "https://rebinding.example.com/mcp",
        "https://user:pw@example.com/mcp",
    ],
)
async def test_private_addresses_are_refused(url: str) -> None:
    """Written or resolved: the guard of webhooks stands before MCP servers too."""
    async with open_guarded_session(allow_private=False, lookup=to_loopback) as session:
        outcome = await run(McpClient(session, allow_private=False), url, "echo")
    assert outcome.is_error
    assert "was not made: its URL" in outcome.output


async def test_metadata_is_refused_in_development_too(client: McpClient) -> None:
    """Private hosts are allowed there, metadata services never."""
    outcome = await run(client, "http://169.254.169.254/mcp", "echo")
    assert "metadata" in outcome.output


async def test_lost_headers_stop_the_call(client: McpClient, double: McpDouble) -> None:
    """Without its headers a server is not called at all."""

    class Lost:
        async def open(self, purpose: str) -> Secret:
            raise VaultError("does not open here")

    outcome = await run(client, double.url, "echo", headers=Lost())
    assert "register it again" in outcome.output
    assert double.requests == []


async def test_lists_are_read_to_a_limit(
    client: McpClient, double: McpDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are followed, a server that has another page for ever is left, a huge page is refused."""
    peer = Peer(double.url, {})
    double.tools, double.page_size = [listed(f"t{n}") for n in range(7)], 3
    listing = await client.list_tools(peer, 10)
    assert ([tool["name"] for tool in listing.tools], listing.cut) == ([f"t{n}" for n in range(7)], False)
    double.endless = True
    monkeypatch.setattr(outbound_mcp, "MAX_LISTED", 10)
    listing = await client.list_tools(peer, 10)
    assert (len(listing.tools), listing.cut) == (10, True)
    monkeypatch.setattr(outbound_mcp, "MAX_LIST_BYTES", 1000)
    with pytest.raises(McpFailed, match="too large"):
        await client.list_tools(peer, 10)


async def test_no_secret_is_logged(
    client: McpClient, double: McpDouble, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by us nor by the libraries below: not the headers, not the input, not the URL's query."""
    caplog.set_level(logging.DEBUG)
    with capture_logs() as lines:
        for name in ("echo", "huge", "broken"):
            await run(client, f"{double.url}?key={TOKEN}", name)
        double.status = 500
        await run(client, f"{double.url}?key={TOKEN}", "echo")
    told = capsys.readouterr()
    theirs = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert TOKEN not in told.out + told.err + str(theirs) + repr(lines)
    assert [line["event"] for line in lines if line["event"] == "mcp_call"] == ["mcp_call"] * 4
