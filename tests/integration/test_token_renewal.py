"""Access tokens that end: renewed once for all processes, kept before use, lost only where nothing helps."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from acme import ALICE, Bench, running_bench
from aiohttp import web
from receiver import says

from qlaud_actors.connectors import connection_store
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool

ENDED = timedelta(seconds=-1)


@pytest.fixture
async def bench(pool: Pool, vault: Vault) -> AsyncIterator[Bench]:
    """A vendor, and who calls it."""
    async with running_bench(pool, vault) as bench:
        yield bench


async def kept(bench: Bench) -> tuple[int, dict[str, str]]:
    """Generation and secrets of the one connection."""
    found = await bench.connections.find(ALICE, "acme")
    assert found is not None
    opened = await connection_store.open_secrets(bench.pool, bench.vault, found, "test")
    return found.generation, {name: secret.reveal() for name, secret in opened.items()}


SECOND = (2, {"access_token": "access-2", "refresh_token": "refresh-2"})


async def test_many_callers_in_two_processes_renew_once(bench: Bench) -> None:
    """A token whose time is up is renewed by one of them; the others wait and use what it got."""
    await bench.sign_in(ends_in=ENDED)
    other = bench.process()
    calls = [(bench, other)[i % 2].run("create_item", call_id=f"call_{i}") for i in range(12)]
    assert {result.code for result in await asyncio.gather(*calls)} == {None}
    assert bench.renewals.asked == 1
    assert await kept(bench) == SECOND


async def test_the_new_token_is_committed_before_it_is_used(bench: Bench) -> None:
    """When the vendor sees the new token, it is in the database: who dies then has lost nothing."""
    await bench.sign_in(ends_in=ENDED)
    seen = []

    async def look(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers["Authorization"], await kept(bench)))
        return web.json_response({"id": "1"})

    bench.acme.answers = [look]
    assert (await bench.run("get_item")).code is None
    assert seen == [("Bearer access-2", SECOND)]


async def test_a_call_cut_off_while_the_vendor_thinks_loses_no_token(bench: Bench) -> None:
    """The renewal goes on when the turn that asked for it is cancelled; the next call uses the new token."""
    await bench.sign_in(ends_in=ENDED)
    there, go_on = asyncio.Event(), asyncio.Event()

    async def think() -> None:
        there.set()
        await go_on.wait()

    bench.renewals.then = think
    call = asyncio.create_task(bench.run("create_item"))
    await there.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    await bench.credentials.close()
    assert await kept(bench) == SECOND
    assert (await bench.process().run("create_item")).code is None
    assert bench.renewals.asked == 1


async def test_a_database_that_breaks_off_just_then_loses_no_token(bench: Bench, pool: Pool) -> None:
    """The vendor has answered and the transaction is gone: the token is written once the database is back."""
    await bench.sign_in(ends_in=ENDED)

    async def break_off() -> None:
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        )

    bench.renewals.then = break_off
    assert (await bench.run("create_item")).code is None
    assert bench.renewals.asked == 1
    assert await kept(bench) == SECOND


async def test_a_process_that_dies_with_the_only_token_costs_a_reconnection(bench: Bench) -> None:
    """Between the vendor's answer and our commit nothing can be saved: it is noticed, and said."""
    await bench.sign_in(ends_in=ENDED)

    async def die() -> None:
        raise KeyError("dead")  # whatever ends the transaction without a commit

    bench.renewals.then = die
    with pytest.raises(KeyError):
        await bench.run("create_item")
    bench.renewals.then = None
    assert (await kept(bench))[0] == 1
    other = bench.process()
    assert (await other.run("create_item")).code == "connection_expired"
    assert (await other.run("create_item")).code == "connection_expired"
    assert bench.renewals.asked == 2
    assert bench.acme.asked == []


@pytest.mark.parametrize("action", ["get_item", "create_item"])
async def test_a_token_that_died_early_is_renewed_and_the_call_made_again(bench: Bench, action: str) -> None:
    """A 401 was not done, so even a write may follow; the model hears nothing of it."""
    await bench.sign_in()
    del bench.acme.people["access-1"]
    assert (await bench.run(action)).code is None
    sent = [headers["authorization"] for _, _, headers, _ in bench.acme.asked]
    assert sent == ["Bearer access-1", "Bearer access-2"]
    assert await kept(bench) == SECOND


async def test_a_fresh_token_that_is_refused_too_ends_the_connection(bench: Bench) -> None:
    """One renewal for a call, no more; then the account has to be connected again."""
    await bench.sign_in()
    bench.acme.answers = [says({"error": "no"}, 401)]
    assert (await bench.run("get_item")).code == "connection_expired"
    assert (bench.renewals.asked, len(bench.acme.asked)) == (1, 2)
    found = await bench.connections.find(ALICE, "acme")
    assert found is not None
    assert found.status == "expired"


async def test_a_token_endpoint_that_is_away_ends_nothing(bench: Bench) -> None:
    """Before the end the old token is tried; after a refusal the call waits for another time."""
    await bench.sign_in(ends_in=timedelta(seconds=30))
    bench.renewals.down = True
    assert (await bench.run("get_item")).code is None
    del bench.acme.people["access-1"]
    assert (await bench.run("create_item")).code == "unavailable"
    bench.renewals.down = False
    assert (await bench.run("create_item")).code is None
    assert await kept(bench) == SECOND


async def test_who_disconnects_while_it_is_renewed_is_disconnected(bench: Bench, pool: Pool) -> None:
    """No new token is kept for a connection that has ended meanwhile."""
    await bench.sign_in(ends_in=ENDED)
    ending: list[asyncio.Task[bool]] = []

    async def disconnect() -> None:
        ending.append(asyncio.create_task(bench.connections.disconnect(ALICE, "acme")))

    bench.renewals.then = disconnect
    await bench.run("create_item")
    assert await ending[0]
    assert await bench.connections.find(ALICE, "acme") is None
    assert await pool.fetchval("SELECT count(*) FROM connection_secrets") == 0
    assert (await bench.run("create_item")).code == "not_connected"
