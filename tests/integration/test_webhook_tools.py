"""Webhook tools against a real server on loopback: what is sent, what is retried, what is refused."""

import asyncio
import hashlib
import hmac
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from receiver import Receiver, hangs_up, running_receiver, says, stays_silent

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.pool import DatabaseError, Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.settings import Secret
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.store import insert_tool, list_tools
from qlaud_actors.tools.webhook import MAX_ANSWER_BYTES, WebhookCaller

SECRET = "wsk_" + "ab" * 24
THREAD = uuid.UUID(int=7)
CONTEXT = CallContext(uuid.UUID(int=1), "req_1", thread_id=THREAD, end_user_id="user-ü")
CALL = ToolCall("call_1.2", "toolu_1", "web_search", {"query": "Zürich", "n": [1, 2.5, None]})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A running endpoint."""
    async with running_receiver() as endpoint:
        yield endpoint


async def no_wait(_: float) -> None:
    """Retry at once."""


@pytest.fixture
async def caller() -> AsyncIterator[WebhookCaller]:
    """A caller that may call loopback and does not wait between attempts."""
    session = open_guarded_session(allow_private=True)
    yield WebhookCaller(session, allow_private=True, sleep=no_wait)
    await session.close()


def tool(url: str, **more: Any) -> Tool:
    """A tool at a URL."""
    schema = {"type": "object"}
    return Tool(
        "tool_1", "web_search", "Searches.", schema, "webhook", webhook_url=url, secret=Secret(SECRET), **more
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_opening_a_secret_is_on_record_before_it_signs(
    pool: Pool, vault: Vault, receiver: Receiver, caller: WebhookCaller
) -> None:
    """A call of a stored tool names itself in the audit; when that cannot be written nothing is sent."""
    receiver.answers = [says({"output": 1})]
    await insert_tool(pool, vault, BOOTSTRAP_ACCOUNT, tool(receiver.url))
    (stored,) = await list_tools(pool, vault, BOOTSTRAP_ACCOUNT)
    assert await pool.fetchval("SELECT count(*) FROM vault_audit") == 0
    assert await caller.call(stored, CALL, CONTEXT) == ToolOutcome(1)
    row = await pool.fetchrow("SELECT account_id, owner, purpose FROM vault_audit")
    assert row is not None
    assert tuple(row) == (BOOTSTRAP_ACCOUNT, "tool:tool_1", "tool_call:call_1.2")
    await pool.execute("DROP TABLE vault_audit")
    with pytest.raises(DatabaseError):
        await caller.call(stored, CALL, CONTEXT)
    assert len(receiver.bodies) == 1


async def test_without_a_database_a_tool_is_not_called(
    pool: Pool, vault: Vault, receiver: Receiver, caller: WebhookCaller
) -> None:
    """A secret that cannot be put on record stays closed, and the model is told that nothing was sent."""
    await insert_tool(pool, vault, BOOTSTRAP_ACCOUNT, tool(receiver.url))
    (stored,) = await list_tools(pool, vault, BOOTSTRAP_ACCOUNT)
    await pool.close()
    outcome = await caller.call(stored, CALL, CONTEXT)
    assert outcome.is_error
    assert "was not called" in outcome.output
    assert receiver.bodies == []


async def test_a_secret_that_does_not_open_fails_its_tool_in_words(
    pool: Pool, vault: Vault, receiver: Receiver, caller: WebhookCaller
) -> None:
    """Nothing is sent, and the model is told what the tool's owner has to do."""
    await insert_tool(pool, vault, BOOTSTRAP_ACCOUNT, tool(receiver.url))
    lost = Vault(Keyring.parse(Keyring.generate()), pool)
    (stored,) = await list_tools(pool, lost, BOOTSTRAP_ACCOUNT)
    outcome = await caller.call(stored, CALL, CONTEXT)
    assert outcome.is_error
    assert "registered again" in outcome.output
    assert receiver.bodies == []


async def test_a_call_is_sent_exactly_as_the_contract_says(receiver: Receiver, caller: WebhookCaller) -> None:
    """One POST with the seven fields, compact UTF-8, and a signature over the raw bytes."""
    receiver.answers = [says({"output": {"hits": 3}})]
    before = int(time.time())
    assert await caller.call(tool(receiver.url), CALL, CONTEXT) == ToolOutcome({"hits": 3})
    (body,), (headers,) = receiver.bodies, receiver.headers
    assert (
        body
        == (
            '{"tool_id":"tool_1","tool_use_id":"toolu_1","name":"web_search",'
            '"input":{"query":"Zürich","n":[1,2.5,null]},"request_id":"req_1",'
            f'"thread_id":"{THREAD}","end_user_id":"user-ü"}}'
        ).encode()
    )
    assert headers["content-type"] == "application/json"
    stamp = headers["x-qlaud-timestamp"]
    assert before <= int(stamp) <= time.time()
    expected = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-qlaud-signature"] == expected
    assert headers["webhook-id"] == "call_1_2"
    assert headers["webhook-timestamp"] == stamp
    assert headers["webhook-signature"].startswith("v1,")
    assert SECRET not in str(headers) + body.decode()
    assert not {"cookie", "authorization", "proxy-authorization"} & headers.keys()


async def test_a_call_outside_a_thread_has_null_fields(receiver: Receiver, caller: WebhookCaller) -> None:
    """Over REST there is no thread and perhaps no end user: the fields are there and null."""
    receiver.answers = [says({"output": None})]
    outcome = await caller.call(tool(receiver.url), CALL, CallContext(uuid.UUID(int=1), "req_2"))
    assert outcome == ToolOutcome(None)
    sent = msgspec.json.decode(receiver.bodies[0])
    assert (sent["thread_id"], sent["end_user_id"]) == (None, None)


async def test_a_5xx_is_retried_under_the_same_id(
    receiver: Receiver, caller: WebhookCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write tool too is tried again after a 5xx, with the same id and a fresh timestamp."""
    clock = iter(range(1000, 9000, 10))
    monkeypatch.setattr("qlaud_actors.tools.webhook.time.time", lambda: next(clock))
    receiver.answers = [says(b"oops", 500), says(b"oops", 503), says({"output": "third"})]
    assert (await caller.call(tool(receiver.url), CALL, CONTEXT)).output == "third"
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 1
    stamps = [headers["x-qlaud-timestamp"] for headers in receiver.headers]
    assert len(set(stamps)) == 3
    for stamp, body, headers in zip(stamps, receiver.bodies, receiver.headers, strict=True):
        expected = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert headers["x-qlaud-signature"] == expected


async def test_a_5xx_that_stays_is_told_after_three_attempts(
    receiver: Receiver, caller: WebhookCaller
) -> None:
    """Three attempts, then the model hears the status and nothing of the body."""
    receiver.answers = [says(b"stack trace", 502)]
    outcome = await caller.call(tool(receiver.url), CALL, CONTEXT)
    assert outcome.is_error
    assert "502" in outcome.output
    assert "stack trace" not in outcome.output
    assert len(receiver.bodies) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 422, 429])
async def test_a_4xx_is_not_retried(receiver: Receiver, caller: WebhookCaller, status: int) -> None:
    """The endpoint has refused the call: once is enough."""
    receiver.answers = [says(b"no", status), says({"output": "never"})]
    outcome = await caller.call(tool(receiver.url, effect="read"), CALL, CONTEXT)
    assert outcome.is_error
    assert str(status) in outcome.output
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(receiver: Receiver, caller: WebhookCaller, status: int) -> None:
    """A redirect could lead inside: it is an error, and nothing is sent to where it points."""
    receiver.answers = [says(b"", status, location="/other"), says({"output": "never"})]
    outcome = await caller.call(tool(receiver.url, effect="read"), CALL, CONTEXT)
    assert outcome.is_error
    assert "redirect" in outcome.output
    assert len(receiver.bodies) == 1


async def test_a_refused_connection_is_retried(caller: WebhookCaller, receiver: Receiver) -> None:
    """Nothing was sent, so a write tool too is tried again, and answered once somebody listens."""
    receiver.answers = [says({"output": "at last"})]
    dead = f"http://127.0.0.1:{free_port()}/"
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    caller._sleep = note
    outcome = await caller.call(tool(dead), CALL, CONTEXT)
    assert outcome.is_error
    assert "could not be reached" in outcome.output
    assert "may or may not" not in outcome.output
    assert len(waits) == 2


async def test_a_broken_connection_is_repeated_only_where_that_is_safe(
    receiver: Receiver, caller: WebhookCaller
) -> None:
    """After a request without an answer a write is left in doubt; read and idempotent go again."""
    receiver.answers = [hangs_up, says({"output": "second"})]
    outcome = await caller.call(tool(receiver.url, effect="write"), CALL, CONTEXT)
    assert outcome.is_error
    assert "may or may not have taken effect" in outcome.output
    assert len(receiver.bodies) == 1
    for effect in ("read", "idempotent"):
        receiver.bodies.clear()
        assert (await caller.call(tool(receiver.url, effect=effect), CALL, CONTEXT)).output == "second"
        assert len(receiver.bodies) == 2


async def test_a_truncated_answer_is_a_broken_connection(receiver: Receiver, caller: WebhookCaller) -> None:
    """An answer that ends before its announced length is no answer, even if it parses."""

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b'{"output": 1}')
        assert request.transport is not None
        request.transport.close()
        return response

    receiver.answers = [cut]
    outcome = await caller.call(tool(receiver.url), CALL, CONTEXT)
    assert outcome.is_error
    assert len(receiver.bodies) == 1


async def test_the_time_out_covers_all_attempts(receiver: Receiver, caller: WebhookCaller) -> None:
    """The tool's time-out is the budget of everything: attempts that hang end with it, in doubt."""
    receiver.answers = [says(b"", 500), stays_silent(5)]
    start = time.monotonic()
    outcome = await caller.call(tool(receiver.url, timeout_ms=1000), CALL, CONTEXT)
    assert 0.9 < time.monotonic() - start < 3
    assert outcome.is_error
    assert "1 s" in outcome.output
    assert "may or may not have taken effect" in outcome.output
    assert len(receiver.bodies) == 2


async def test_a_slow_body_is_cut_off_by_the_time_out(receiver: Receiver, caller: WebhookCaller) -> None:
    """An endpoint that drips its answer byte by byte gets no more time than another."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    receiver.answers = [drip]
    start = time.monotonic()
    outcome = await caller.call(tool(receiver.url, timeout_ms=300), CALL, CONTEXT)
    assert outcome.is_error
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"[]",
        b'"output"',
        b"null",
        b"{}",
        b'{"result": 1}',
        b'{"output": NaN}',
        b'{"output": "\xff"}',
        b'{"output": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=lambda body: body[:20],
)
async def test_an_answer_in_another_form_is_an_error(
    receiver: Receiver, caller: WebhookCaller, body: bytes
) -> None:
    """What is not JSON with `output`, or nested beyond reading, is told as such and not retried."""
    receiver.answers = [says(body)]
    outcome = await caller.call(tool(receiver.url, effect="read"), CALL, CONTEXT)
    assert outcome.is_error
    assert "JSON of the form" in outcome.output
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_oversize_answer_is_an_error(
    receiver: Receiver, caller: WebhookCaller, encoding: str
) -> None:
    """More than the limit is not read, also when it comes small and compressed; the limit itself is."""

    async def big(_: web.Request) -> web.StreamResponse:
        response = web.Response(body=b'{"output":"' + b"x" * (MAX_ANSWER_BYTES * 4) + b'"}')
        response.enable_compression(web.ContentCoding(encoding))
        return response

    receiver.answers = [big]
    outcome = await caller.call(tool(receiver.url), CALL, CONTEXT)
    assert outcome.is_error
    assert "larger than" in outcome.output
    fits = b'{"output":"' + b"x" * (MAX_ANSWER_BYTES - 13) + b'"}'
    assert len(fits) == MAX_ANSWER_BYTES
    receiver.answers = [says(fits)]
    assert not (await caller.call(tool(receiver.url), CALL, CONTEXT)).is_error


async def test_the_endpoint_may_report_an_error(receiver: Receiver, caller: WebhookCaller) -> None:
    """200 with `is_error` is the tool's own failure, passed on as it is and not retried."""
    receiver.answers = [says({"output": {"why": "no such city"}, "is_error": True, "more": 1})]
    outcome = await caller.call(tool(receiver.url), CALL, CONTEXT)
    assert outcome == ToolOutcome({"why": "no such city"}, is_error=True)
    assert len(receiver.bodies) == 1


def to_loopback(*_: Any, **__: Any) -> list[Any]:
    """A name server that is in somebody else's hands: every name leads to loopback."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]


async def test_a_private_url_is_refused_when_it_is_called(receiver: Receiver) -> None:
    """Rows from a time when private hosts were allowed are not called; nothing is sent or retried."""
    receiver.answers = [says({"output": "inside"})]
    port = receiver.url.rpartition(":")[2]
    session = open_guarded_session(allow_private=False, lookup=to_loopback)
    caller = WebhookCaller(session, allow_private=False, sleep=no_wait)
    for url in (
        receiver.url,
        f"https://127.0.0.1:{port}",
        f"https://[::1]:{port}",
        f"https://localhost:{port}",
    ):
        outcome = await caller.call(tool(url), CALL, CONTEXT)
        assert outcome.is_error
        assert "was not called" in outcome.output
    await session.close()
    assert receiver.bodies == []


async def test_a_public_name_that_leads_inside_is_refused(receiver: Receiver) -> None:
    """A hostname that resolves to loopback is refused on connecting, at once, without naming the address."""
    receiver.answers = [says({"output": "inside"})]
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    session = open_guarded_session(allow_private=False, lookup=to_loopback)
    caller = WebhookCaller(session, allow_private=False, sleep=note)
    port = receiver.url.rpartition(":")[2]
    outcome = await caller.call(tool(f"https://hook.example.com:{port}"), CALL, CONTEXT)
    await session.close()
    assert outcome.is_error
    assert "was not called" in outcome.output
    assert "127.0.0.1" not in outcome.output
    assert (waits, receiver.bodies) == ([], [])


async def test_a_literal_address_is_checked_at_the_socket_too(receiver: Receiver) -> None:
    """Even a caller that forgot to check the URL cannot connect the guarded session to loopback."""
    receiver.answers = [says({"output": "inside"})]
    session = open_guarded_session(allow_private=False)
    caller = WebhookCaller(session, allow_private=True, sleep=no_wait)
    outcome = await caller.call(tool(receiver.url), CALL, CONTEXT)
    await session.close()
    assert outcome.is_error
    assert "was not called" in outcome.output
    assert receiver.bodies == []


async def test_a_name_that_does_not_resolve_is_retried_and_told() -> None:
    """A DNS failure reaches nobody, so it is tried again, and ends in an outcome."""

    def nothing(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    asked: list[str] = []
    session = open_guarded_session(allow_private=False, lookup=nothing)
    outcome = await WebhookCaller(session, allow_private=False, sleep=no_wait).call(
        tool("https://gone.example.com/"), CALL, CONTEXT
    )
    await session.close()
    assert outcome.is_error
    assert "could not be reached" in outcome.output
    assert asked == ["gone.example.com"] * 3


async def test_a_connection_that_is_never_accepted_is_retried(
    caller: WebhookCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time-out while connecting has sent nothing: a write tool is tried again, without doubt."""
    monkeypatch.setattr("qlaud_actors.outbound.attempt.CONNECT_SECONDS", 0.1)
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    caller._sleep = note
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        outcome = await caller.call(tool(f"http://127.0.0.1:{full.getsockname()[1]}/"), CALL, CONTEXT)
        for filler in fillers:
            filler.close()
    assert outcome.is_error
    assert "could not be reached" in outcome.output
    assert len(waits) == 2


async def test_an_ipv6_literal_works(caller: WebhookCaller) -> None:
    """A URL with a literal IPv6 address is called like any other."""
    endpoint = Receiver(answers=[says({"output": "six"})])
    app = web.Application()
    app.router.add_post("/", endpoint.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "::1", 0).start()
    except OSError:
        await runner.cleanup()
        pytest.skip("this machine has no IPv6 loopback")
    url = f"http://[::1]:{runner.addresses[0][1]}/"
    assert (await caller.call(tool(url), CALL, CONTEXT)).output == "six"
    await runner.cleanup()


async def test_a_long_retry_after_is_not_waited_for(receiver: Receiver, caller: WebhookCaller) -> None:
    """A 5xx that asks for more patience than we have is told at once."""
    receiver.answers = [says(b"", 503, **{"retry-after": "60"}), says({"output": "never"})]
    assert (await caller.call(tool(receiver.url), CALL, CONTEXT)).is_error
    assert len(receiver.bodies) == 1


async def test_a_tool_whose_secret_is_lost_is_not_called(receiver: Receiver, caller: WebhookCaller) -> None:
    """Without its secret a call could not be signed, so it is not made."""
    receiver.answers = [says({"output": "unsigned"})]
    outcome = await caller.call(replace(tool(receiver.url), secret=None), CALL, CONTEXT)
    assert outcome.is_error
    assert receiver.bodies == []
