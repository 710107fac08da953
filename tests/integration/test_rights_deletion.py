"""Deleting an end user: what goes, what stays as nobody's, and that nobody writes afterwards."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from front_door import Door, front_door
from redis.asyncio import Redis
from test_branches import TALK, thread
from test_connections import CATALOG, Vendor
from test_connections import KEY as LINEAR_KEY
from test_retention import aged
from test_rights_export import KEPT, copy, keep, with_turn

from qlaud_actors.artifacts import store as artifacts
from qlaud_actors.artifacts.model import Origin
from qlaud_actors.connectors.connections import Connections, ConnectRefused, Owner
from qlaud_actors.connectors.store import Vault
from qlaud_actors.conversation import log, mailbox, threads
from qlaud_actors.conversation.log import Appender, Entry
from qlaud_actors.conversation.publisher import Publisher
from qlaud_actors.conversation.threads import NewThread
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import InvalidKey
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.rights import deletion, retention
from qlaud_actors.rights.deletion import Deleter
from qlaud_actors.rights.model import Rule

USAGE = (
    "INSERT INTO usage_events (id, account_id, key_id, end_user_id, model_slug, provider_slug, input_tokens,"
    " output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, provider_cost_picos,"
    " cost_nanos, price_version, markup_bps, estimated, latency_ms, status)"
    " VALUES ($1, $2, $3, $4, 'm', 'p', 1, 2, 0, 0, 0, 3, 4, 'v', 0, false, 5, 200)"
)
WEBHOOK = (
    "INSERT INTO webhooks (id, account_id, url, events, secret)"
    " VALUES ($1, $2, 'https://x.example', '{usage.recorded}', '')"
)
DELIVERY = (
    "INSERT INTO deliveries (id, webhook_id, event, url, body) VALUES ($1, $2, $3, 'https://x.example', $4)"
)


async def nobody(ids: list[uuid.UUID]) -> None:
    """There is no worker to wake."""


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def deleter(pool: Pool, redis: Redis) -> Deleter:
    """The one of this test's process."""
    return Deleter(pool, redis, Publisher(redis), nobody, nobody)


@contextlib.asynccontextmanager
async def door_with(pool: Pool, deleter: Deleter) -> AsyncIterator[Door]:
    """A front door that wakes this test's deleter, and one that has Redis."""
    async with front_door(
        pool, wake_deletion=deleter.start, publisher=deleter.publisher, wake=nobody
    ) as door:
        yield door


async def idle(deleter: Deleter) -> None:
    """Wait for what a deleter has begun."""
    await asyncio.gather(*deleter._tasks.values())


async def delete(door: Door, end_user_id: str = "ann") -> Any:
    status, receipt = await door.ask("DELETE", f"/v1/end-users/{end_user_id}")
    assert status == 200, receipt
    return receipt


async def left_of(pool: Pool, text: str) -> dict[str, int]:
    """Tables with rows in which a text stands."""
    names = await pool.fetch("SELECT relname FROM pg_stat_user_tables")
    found = {
        row["relname"]: await pool.fetchval(
            f"SELECT count(*) FROM {row['relname']} t WHERE strpos(t::text, $1) > 0", text
        )
        for row in names
    }
    return {name: rows for name, rows in found.items() if rows}


async def test_all_goes_and_the_sums_stay(pool: Pool, deleter: Deleter) -> None:
    """Threads with all that is in them, keys' names; usage stays without a name; others keep theirs."""
    async with door_with(pool, deleter) as door:
        for _ in range(3):
            await with_turn(pool, await thread(door, pool, TALK))
        other = await door.ask("POST", "/v1/threads", {"end_user_id": "bob"})
        made = await door.mint(end_user_id="ann", name="ann's phone")
        before = await pool.fetchrow("SELECT count(*), sum(cost_nanos) FROM usage_events")
        receipt = await delete(door)
        assert receipt["removed"] | {"connections": 0} == {
            **dict.fromkeys(("kept_results", "artifacts", "jobs", "connections"), 0),
            **dict.fromkeys(("connect_links", "deliveries"), 0),
            "threads": 3,
            "messages": 18,
            "turns": 3,
            "tool_calls": 3,
            "keys": 1,
            "billing_links": 0,
            "usage_events_unlinked": 3,
        }
        assert "ann" not in str(receipt)
        assert (receipt["status"], receipt["object"]) == ("completed", "deletion")
        assert await left_of(pool, "ann") == {}
        assert await pool.fetchrow("SELECT count(*), sum(cost_nanos) FROM usage_events") == before
        assert (await door.ask("GET", "/v1/threads", key=made["secret"]))[0] == 401
        assert (await door.ask("GET", f"/v1/threads/{other[1]['id']}"))[0] == 200
        path = f"/v1/deletions/{receipt['id']}"
        assert await door.ask("GET", path) == (200, receipt)


async def test_asked_again_it_is_the_same_deletion(pool: Pool, deleter: Deleter) -> None:
    """While it runs there is one; afterwards the next one finds nothing, nor does one of a stranger."""
    first = await deletion.begin(pool, ACCOUNT, "ann")
    assert await deletion.begin(pool, ACCOUNT, "ann") == first
    async with door_with(pool, deleter) as door:
        assert (await delete(door))["id"] == str(first)
        again = await delete(door)
        assert again["id"] != str(first)
        assert not any(again["removed"].values())
        admin = await door.mint(scope="admin")
        plain = await door.mint()
        assert (await door.ask("DELETE", "/v1/end-users/ann", key=plain["secret"]))[0] == 403
        assert (await door.ask("GET", f"/v1/deletions/{first}", key=plain["secret"]))[0] == 403
        assert (await door.ask("GET", f"/v1/deletions/{first}", key=admin["secret"]))[0] == 200
        assert (await door.ask("GET", f"/v1/deletions/{new_uuid()}"))[0] == 404


async def test_a_turn_that_runs_is_waited_for_and_writes_nothing_after(
    pool: Pool, redis: Redis, deleter: Deleter
) -> None:
    """Its worker is asked to stop; when that is gone, its lease ends; its last events are refused."""
    async with door_with(pool, deleter) as door:
        found = await thread(door, pool, TALK)
        await with_turn(pool, found)
        turn_id = await pool.fetchval("UPDATE turns SET status = 'queued' RETURNING id")
        turn = await mailbox.claim(pool, turn_id, "worker", 60)
        assert turn is not None
        appender = Appender(redis)
        assert await appender.append([(turn_id, turn.epoch, [Entry(1, b"secret")])]) == [True]
        await deleter.start(await deletion.begin(pool, ACCOUNT, "ann"))
        await idle(deleter)
        assert await pool.fetchval("SELECT cancel_requested FROM turns WHERE id = $1", turn_id)
        assert await pool.fetchval("SELECT completed_at FROM deletions") is None
        await pool.execute("UPDATE turns SET lease_until = now() - interval '1 second'")
        await pool.execute("UPDATE deletions SET due_at = now()")
        receipt = await delete(door)
        assert receipt["removed"]["turns"] == 1
        assert await mailbox.finish(pool, turn, InvalidKey()) is None
        assert await appender.append([(turn_id, turn.epoch, [Entry(2, b"secret")])]) == [False]
        assert not await redis.exists(log.log_key(turn_id))


async def test_a_call_on_its_way_is_charged_as_nobodys(pool: Pool, deleter: Deleter) -> None:
    """Whether it settles before, during or after the deletion, and whoever waits for whom."""
    key, _ = await lifecycle.mint(pool, ACCOUNT, NewKey("k", end_user_id="ann"))
    stranger, _ = await lifecycle.mint(pool, ACCOUNT, NewKey("k", end_user_id="bob"))
    async with door_with(pool, deleter) as door, pool.acquire() as connection:
        settling = connection.transaction()
        await settling.start()
        await connection.execute(USAGE, new_uuid(), ACCOUNT, key.id, "ann")
        deleting = asyncio.create_task(delete(door))
        while not await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await settling.commit()
        await deleting
        await connection.execute(USAGE, new_uuid(), ACCOUNT, key.id, "ann")
        await connection.execute(USAGE, new_uuid(), ACCOUNT, stranger.id, "bob")
    names = await pool.fetch("SELECT end_user_id FROM usage_events ORDER BY created_at")
    assert [row[0] for row in names] == [None, None, "bob"]
    with pytest.raises(InvalidKey):
        await threads.create(pool, key, NewThread(end_user_id="ann"))


async def test_what_was_told_of_others_stays(pool: Pool, deleter: Deleter) -> None:
    """A delivery of usage loses the name, not its other rows; one about the end user's key goes."""
    webhook, usage, cap = new_uuid(), new_uuid(), new_uuid()
    key, _ = await lifecycle.mint(pool, ACCOUNT, NewKey('an"n', end_user_id='an"n'))
    await pool.execute(WEBHOOK, webhook, ACCOUNT)
    quoted = '{"x":"\\"end_user_id\\":\\"an\\""}'
    body = '{"data":{"usage":[{"end_user_id":"an\\"n"},{"end_user_id":"bob"},' + quoted + "]}}"
    await pool.execute(DELIVERY, usage, webhook, "usage.recorded", body)
    await pool.execute(DELIVERY, cap, webhook, "key.cap_exceeded", f'{{"data":{{"key_id":"{key.id}"}}}}')
    async with door_with(pool, deleter) as door:
        assert (await delete(door, "an%22n"))["removed"]["deliveries"] == 1
    rows = await pool.fetch("SELECT id, body FROM deliveries")
    assert [row["id"] for row in rows] == [usage]
    assert rows[0]["body"] == body.replace('"an\\"n"', "null", 1)


async def test_jobs_of_the_end_users_keys_go(pool: Pool, deleter: Deleter) -> None:
    """Those that wait are cancelled first; what told of them goes, too."""
    key, _ = await lifecycle.mint(pool, ACCOUNT, NewKey("k", end_user_id="ann"))
    webhook = new_uuid()
    await pool.execute(WEBHOOK.replace("usage.recorded", "job.completed"), webhook, ACCOUNT)
    for status in ("queued", "succeeded"):
        await pool.execute(
            "INSERT INTO jobs (id, account_id, key_id, endpoint, body, body_bytes, headers, request_id,"
            " fingerprint, status)"
            " VALUES ($1, $2, $3, '/v1/messages', '{\"model\":\"m\"}', 1, '{}', 'r', '\\x00', $4)",
            *(new_uuid(), ACCOUNT, key.id, status),
        )
    async with door_with(pool, deleter) as door:
        assert (await delete(door))["removed"]["jobs"] == 2
    assert await pool.fetchval("SELECT count(*) FROM jobs") == 0
    assert await pool.fetchval("SELECT count(*) FROM deliveries") == 0


async def test_a_process_that_dies_is_gone_on_for(
    pool: Pool, deleter: Deleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any of its transactions, another process ends the deletion; nothing is counted twice."""
    monkeypatch.setattr(deletion, "THREADS_AT_ONCE", 1)
    monkeypatch.setattr(deletion, "ROWS_AT_ONCE", 1)

    class Died(BaseException):
        pass

    real = Deleter._transact
    async with door_with(pool, deleter) as door:
        for parts in range(8):
            for _ in range(2):
                await with_turn(pool, await thread(door, pool, TALK))
            left = parts

            async def dying(self: Deleter, *what: Any) -> bool:
                nonlocal left
                if not left:
                    raise Died
                left -= 1
                return await real(self, *what)

            started = await deletion.begin(pool, ACCOUNT, "ann")
            row = await pool.fetchrow(deletion.QUERIES.claim_deletion, started, 0)
            assert row is not None
            monkeypatch.setattr(Deleter, "_transact", dying)
            with contextlib.suppress(Died):
                await deleter.advance(deletion.Deletion(**row))
            monkeypatch.setattr(Deleter, "_transact", real)
            await pool.execute("UPDATE deletions SET due_at = now() WHERE completed_at IS NULL")
            await deleter.sweep()
            await idle(deleter)
            seen = await deletion.receipt(pool, ACCOUNT, started)
            assert seen.completed_at_ms is not None
            assert (seen.removed["threads"], seen.removed["messages"]) == (2, 12)
            assert seen.removed["usage_events_unlinked"] == 2


async def test_redis_away_means_nothing_is_removed_yet(pool: Pool, deleter: Deleter) -> None:
    """The events would stay: so the thread does, too, until Redis is back."""
    async with door_with(pool, deleter) as door:
        await with_turn(pool, await thread(door, pool, TALK))
        away = Redis(port=1)
        lost = Deleter(pool, away, Publisher(away), nobody, nobody)
        await lost.start(await deletion.begin(pool, ACCOUNT, "ann"))
        await idle(lost)
        await away.aclose()
        assert await pool.fetchval("SELECT count(*) FROM messages") == 6
        await pool.execute("UPDATE deletions SET due_at = now()")
        assert (await delete(door))["removed"]["messages"] == 6


async def test_a_deleted_thread_loses_its_rows_later(pool: Pool, deleter: Deleter) -> None:
    """Its text goes at once, its rows after a minute."""
    async with door_with(pool, deleter) as door:
        found = await thread(door, pool, TALK)
        await with_turn(pool, found)
        assert (await door.ask("DELETE", f"/v1/threads/{found}"))[0] == 200
        await deleter.erase_hidden()
        assert await pool.fetchval("SELECT count(*) FROM threads") == 1
        await pool.execute("UPDATE threads SET deleted_at = now() - interval '2 hours'")
        await deleter.erase_hidden()
        assert await pool.fetchval("SELECT count(*) FROM threads") == 0
        assert await pool.fetchval("SELECT count(*) FROM turns") == 0


async def test_of_a_deleted_thread_only_what_is_stored_for_its_user_stays(
    pool: Pool, deleter: Deleter
) -> None:
    """By hand or by retention pictures and the thread's own go at once; a note stays in the user's copy."""
    async with door_with(pool, deleter) as door:
        by_hand, by_rule, other = [await thread(door, pool, TALK) for _ in range(3)]
        for found in (by_hand, by_rule, other):
            await keep(pool, found, f"thread:{found}", *KEPT)
            await keep(pool, found, "user:ann", *((f"{found}{name}", *rest) for name, *rest in KEPT))
        assert (await door.ask("DELETE", f"/v1/threads/{by_hand}"))[0] == 200
        await aged(pool, by_rule, 40)
        await retention.remove(pool, await retention.due(pool, ACCOUNT, Rule(ttl_days=30)))
        stay = {f"{found}{name}" for found in (by_hand, by_rule) for name in ("plan", "data")}
        for _ in range(2):
            lines = await copy(door, "/v1/end-users/ann/export")
            kept = [line for line in lines if line["type"] == "artifact"]
            assert {line["name"] for line in kept if line["thread_id"] is None} == stay
            assert len([line for line in kept if line["thread_id"] == other]) == 6
            assert await pool.fetchval("SELECT count(*) FROM artifacts") == 10
            await pool.execute("UPDATE threads SET deleted_at = deleted_at - interval '2 hours'")
            await deleter.erase_hidden()
        assert await pool.fetchval("SELECT count(*) FROM threads") == 1
        assert (await delete(door))["removed"]["artifacts"] == 10
        assert await pool.fetchval("SELECT count(*) FROM artifacts") == 0


async def test_a_tool_that_is_late_stores_nothing_behind_a_deletion(pool: Pool, deleter: Deleter) -> None:
    """Its worker was lost, or its key's call was on its way: thread or end user are gone meanwhile."""
    async with door_with(pool, deleter) as door:
        made = await door.mint(end_user_id="ann", name="ann's phone")
        phone, found = uuid.UUID(made["id"]), uuid.UUID(await thread(door, pool, TALK))

        async def late(thread_id: uuid.UUID | None, key_id: uuid.UUID | None) -> bool:
            note = "note", "text/plain", b"x"
            origin = Origin(thread_id, key_id)
            return await artifacts.keep(pool, ACCOUNT, "user:ann", *note, origin) is not None

        assert [await late(found, None), await late(None, phone)] == [True, True]
        assert (await door.ask("DELETE", f"/v1/threads/{found}"))[0] == 200
        assert [await late(found, None), await late(None, phone)] == [False, True]
        assert (await delete(door))["removed"]["artifacts"] == 1
        assert [await late(found, None), await late(None, phone)] == [False, False]
        assert await left_of(pool, "ann") == {}


async def test_a_credential_that_is_being_verified_is_not_kept(
    pool: Pool, deleter: Deleter, vault: Vault
) -> None:
    """While the vendor is asked its end user is deleted: nothing is saved. Later they may connect anew."""
    vendor = Vendor({LINEAR_KEY: "Ada"})
    connections = Connections(pool, vault, CATALOG, vendor)
    given = Owner(ACCOUNT, "ann"), "linear", 0, {"api_key": LINEAR_KEY}
    async with door_with(pool, deleter) as door:
        real = vendor.send

        async def slow(*what: Any, **how: Any) -> Any:
            await delete(door)
            return await real(*what, **how)

        vendor.send = slow  # type: ignore[method-assign]
        with pytest.raises(ConnectRefused):
            await connections.connect(*given)
        assert await pool.fetchval("SELECT count(*) FROM connections") == 0
        vendor.send = real  # type: ignore[method-assign]
        await connections.connect(*given)
        assert (await delete(door))["removed"]["connections"] == 1
    assert await pool.fetchval("SELECT count(*) FROM connection_secrets") == 0


async def test_every_table_has_been_thought_of(pool: Pool) -> None:
    """A table that refers to end users, threads, turns or keys, or keeps what people say, is in this list."""
    rows = await pool.fetch(
        "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND (column_name IN ('end_user_id', 'thread_id', 'turn_id', 'key_id', 'connection_id', 'owner')"
        " OR data_type IN ('json', 'jsonb'))"
    )
    erased = {
        *("threads", "messages", "turns", "steps", "tool_calls", "tool_results", "keyed_calls", "artifacts"),
        *("jobs", "connections", "connection_secrets", "connect_links", "end_user_billing", "deletions"),
        *("keys", "key_secrets"),
    }
    unlinked = {"usage_events", "stripe_meter_queue"}
    names_nobody = {
        *("budgets", "holds", "attempts", "cap_notices", "vault_audit", "tools", "payments"),
        *("current_budgets", "price_overrides"),
    }
    goes_with_its_message = {"search_queue", "search_words", "search_vectors", "search_forgotten"}
    goes_with_its_thread = {"compactions"}
    known = erased | unlinked | names_nobody | goes_with_its_message | goes_with_its_thread
    assert {row[0] for row in rows} - known == set()
