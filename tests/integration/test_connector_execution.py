"""Actions at a vendor over loopback: sent as spelled, repeated only where that is safe, and bounded."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from acme import ALICE, BOB, FILE, KEY, OTHER_KEY, OURS, Bench, running_bench
from aiohttp import web
from receiver import Answering, hangs_up, says
from structlog.testing import capture_logs

from qlaud_actors.connectors import sending
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connections import Connections, ConnectRefused
from qlaud_actors.connectors.execute import PARALLEL, ActionCall
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.outbound.guard import open_guarded_session

OK = says({"id": "1"})
BUSY, CLOSED, BROKEN = says({"error": "slow"}, 429), says({"error": "down"}, 503), says({"error": "x"}, 500)
CLOSED_UNTIL = says({"error": "down"}, 503, **{"retry-after": "1"})


@pytest.fixture
async def bench(pool: Pool, vault: Vault) -> AsyncIterator[Bench]:
    """A vendor, and who calls it."""
    async with running_bench(pool, vault) as bench:
        yield bench


async def test_a_write_whose_time_is_over_is_not_begun(bench: Bench) -> None:
    """Opening its credential took all its time: nothing is sent that nobody would wait for."""
    await bench.connect()
    call = ActionCall("call_1", ALICE, "acme", "create_item", {"text": "t"}, seconds=0)
    result = await bench.executor.run(call)
    assert (result.code, result.unsure, bench.acme.asked) == ("unavailable", False, [])
    assert "not made" in result.output


async def test_a_request_is_sent_as_it_was_built(bench: Bench) -> None:
    """No client escapes the path anew, a POST without body names no type, and a write has the call's id."""
    await bench.connect()
    assert (await bench.run("get_item", id="a b/ü%2F?#")).output == {"id": "1"}
    await bench.run("ring", call_id="call_2")
    await bench.run("create_item", call_id="call_3")
    (_, path, headers, _), (_, _, bell, body), (_, _, made, text) = bench.acme.asked
    assert path == "/items/a%20b%2F%C3%BC%252F%3F%23"
    assert (headers["authorization"], "idempotency-key" in headers) == (f"Bearer {KEY}", False)
    assert ("content-type" in bell, bell.get("content-length", "0"), body) == (False, "0", b"")
    assert (made["idempotency-key"], text) == ("call_3", b'{"text":"t"}')


@pytest.mark.parametrize(
    ("action", "answers", "asked", "code", "unsure"),
    [
        ("get_item", [BROKEN, hangs_up, OK], 3, None, False),
        ("set_item", [hangs_up, BUSY, OK], 3, None, False),
        ("get_item", [BROKEN], 3, "unavailable", False),
        ("set_item", [hangs_up], 3, "unavailable", True),
        ("create_item", [BUSY, CLOSED_UNTIL, OK], 3, None, False),
        ("create_item", [CLOSED, OK], 1, "unavailable", True),
        ("create_item", [BROKEN, OK], 1, "unavailable", True),
        ("create_item", [hangs_up, OK], 1, "unavailable", True),
        ("create_item", [says({"error": "no"}, 403, **{"retry-after": "1"}), OK], 1, "rate_limited", False),
        ("get_item", [says({"error": "no"}, 404), OK], 1, "refused", False),
        ("get_item", [says({"error": "far"}, 302, location="/elsewhere"), OK], 1, "refused", False),
        ("get_item", [says({"error": "slow"}, 429, **{"retry-after": "300"}), OK], 1, "rate_limited", False),
    ],
)
async def test_what_is_repeated(
    bench: Bench, action: str, answers: list[Answering], asked: int, code: str | None, unsure: bool
) -> None:
    """Reads and idempotent actions are; a write only when the vendor said that it was not done."""
    await bench.connect()
    bench.acme.answers = answers
    result = await bench.run(action)
    assert (len(bench.acme.asked), result.code, result.unsure) == (asked, code, unsure)
    assert len({headers.get("idempotency-key") for _, _, headers, _ in bench.acme.asked}) == 1
    assert len(bench.slept) == asked - 1


async def test_the_vendors_wish_to_wait_is_kept(bench: Bench) -> None:
    """A wait that it asks for is waited; one that is too long is told to the model instead."""
    await bench.connect()
    bench.acme.answers = [says({"error": "slow"}, 429, **{"retry-after": "7"}), OK]
    assert (await bench.run("get_item")).code is None
    assert bench.slept[0] >= 7
    bench.acme.answers = [says({"error": "slow"}, 429, **{"retry-after": "300"})]
    assert (await bench.run("get_item")).retry_after_s == 300


async def test_no_more_than_some_calls_at_a_time_on_one_connection(bench: Bench) -> None:
    """Twelve calls at once reach the vendor four by four; another connection does not wait for them."""
    await bench.connect()
    await bench.connect(BOB, OTHER_KEY)
    inside, most, full, release = 0, 0, asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        nonlocal inside, most
        if OTHER_KEY in request.headers["Authorization"]:
            return web.json_response({"id": "2"})
        inside += 1
        most = max(most, inside)
        if inside == PARALLEL:
            full.set()
        await release.wait()
        inside -= 1
        return web.json_response({"id": "1"})

    bench.acme.answers = [wait]
    running = [asyncio.create_task(bench.run("get_item", call_id=f"call_{i}")) for i in range(12)]
    await full.wait()
    assert (await bench.run("get_item", BOB)).output == {"id": "2"}
    release.set()
    assert [(await task).code for task in running] == [None] * 12
    assert most == PARALLEL


async def test_a_dead_key_is_noticed_and_offered_for_reconnection(bench: Bench) -> None:
    """After a 401 nothing more is sent with it; a user's dead key does not make his calls the account's."""
    await bench.connect()
    await bench.connect(OURS, OTHER_KEY)
    del bench.acme.people[KEY]
    assert (await bench.run("create_item")).code == "connection_expired"
    assert (await bench.run("create_item")).code == "connection_expired"
    assert len(bench.acme.asked) == 1
    assert (await bench.run("create_item", BOB)).code is None
    found = await bench.connections.find(ALICE, "acme")
    assert found is not None
    assert found.status == "expired"
    bench.acme.people[KEY] = "Ada"
    await bench.connect()
    assert (await bench.run("create_item")).code is None


async def test_a_late_401_does_not_end_a_newer_connection(bench: Bench) -> None:
    """Who reconnects while an old call is on its way keeps the new connection."""
    await bench.connect()
    there, go_on = asyncio.Event(), asyncio.Event()

    async def refuse_late(_: web.Request) -> web.StreamResponse:
        there.set()
        await go_on.wait()
        return web.json_response({"error": "dead"}, status=401)

    bench.acme.answers = [refuse_late, OK]
    late = asyncio.create_task(bench.run("get_item"))
    await there.wait()
    await bench.connect(ALICE, OTHER_KEY)
    go_on.set()
    assert (await late).code == "connection_expired"
    assert (await bench.run("get_item")).code is None


async def test_no_credential_comes_back(bench: Bench) -> None:
    """A vendor that repeats what it was sent, in answers or errors, is not repeated; logs name no key."""
    await bench.connect()
    bench.acme.answers = [says({"echo": f"Bearer {KEY}"}), says({"error": f"bad {KEY}"}, 400)]
    with capture_logs() as logs:
        results = [await bench.run("get_item"), await bench.run("create_item")]
        with pytest.raises(ConnectRefused) as refused:
            await bench.connect(BOB, "acme_unknown_key_123")
    assert KEY not in str(results)
    assert "[hidden]" in str(results[0])
    assert "acme_unknown_key_123" not in refused.value.words
    assert KEY not in str(logs)


async def test_every_opening_is_on_record(bench: Bench) -> None:
    """With the call's id; a refresh token is not opened for a call."""
    made = await bench.sign_in()
    await bench.run("get_item", call_id="call_9")
    rows = await bench.pool.fetch("SELECT owner, field, purpose FROM vault_audit")
    assert [tuple(row) for row in rows] == [(f"connection:{made.id}", "access_token", "tool_call:call_9")]


async def test_an_answer_without_end_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor's answer has a limit; the model is told, and nothing is repeated."""
    monkeypatch.setattr(sending, "MAX_ANSWER_BYTES", 1000)
    await bench.connect()
    bench.acme.answers = [says({"text": "x" * 5000})]
    result = await bench.run("get_item")
    assert result.code == "unavailable"
    assert "larger than" in result.output
    assert len(bench.acme.asked) == 1


def leads_home(*_: Any, **__: Any) -> list[Any]:
    """A name server that gives this machine's address for every name."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]


async def test_a_vendors_name_that_leads_inside_is_not_followed(pool: Pool, vault: Vault) -> None:
    """Without the operator's word a vendor's address must be public, whatever a name server says."""
    catalog = ConnectorCatalog.load({}, {"acme.toml": FILE})
    async with open_guarded_session(allow_private=False, lookup=leads_home) as session:
        sender = VendorSender(session, session, allow_private=False)
        with pytest.raises(ConnectRefused, match="not a public address"):
            await Connections(pool, vault, catalog, sender).connect(ALICE, "acme", 0, {"token": KEY})


@pytest.mark.parametrize("ended", ["disconnected", "replaced"])
async def test_nothing_is_sent_with_a_credential_that_was_given_back(bench: Bench, ended: str) -> None:
    """Neither by calls that wait for their turn, nor by the next attempt of one that was under way."""
    await bench.connect()
    inside, full, release = 0, asyncio.Event(), asyncio.Event()

    async def busy(_: web.Request) -> web.StreamResponse:
        nonlocal inside
        inside += 1
        if inside == PARALLEL:
            full.set()
        await release.wait()
        return web.json_response({"error": "slow"}, status=429)

    bench.acme.answers = [busy]
    running = [asyncio.create_task(bench.run("get_item", call_id=f"call_{i}")) for i in range(9)]
    await full.wait()
    if ended == "disconnected":
        assert await bench.connections.disconnect(ALICE, "acme")
    else:
        await bench.connect(ALICE, OTHER_KEY)
    release.set()
    codes = sorted([str((await task).code) for task in running])
    assert codes == ["not_connected"] * (9 - PARALLEL) + ["rate_limited"] * PARALLEL
    assert len(bench.acme.asked) == PARALLEL
