"""Webhooks of an account against a real receiver: what is told once, sent at least once, and given up."""

import asyncio
import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from front_door import front_door
from receiver import Receiver, hangs_up, running_receiver, says, stays_silent

from qlaud_actors.billing import auto_topup, wallet
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool, Rows
from qlaud_actors.deliveries import outbox, store
from qlaud_actors.deliveries.courier import PER_WEBHOOK, SLOTS, Courier
from qlaud_actors.deliveries.model import MAX_ATTEMPTS, DeliveryRecord, Event
from qlaud_actors.errors import SpendCapReached
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.settings import Secret

DATA = {"said": "Grüße"}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A running endpoint that takes everything."""
    async with running_receiver() as endpoint:
        endpoint.answers = [says(b"", 204)]
        yield endpoint


@pytest.fixture
async def courier(pool: Pool, vault: Vault) -> AsyncIterator[Courier]:
    """A courier that may call loopback and waits a fifth of a second for an answer."""
    async with open_guarded_session(allow_private=True) as session:
        courier = Courier(pool, session, vault, allow_private=True, retention_days=7, timeout_seconds=0.2)
        yield courier
        await courier.drain()


async def webhook(pool: Pool, vault: Vault, url: str | None, *events: Event) -> tuple[uuid.UUID, Secret]:
    """A new webhook of the default account."""
    made, secret = await store.insert_webhook(pool, vault, ACCOUNT, url, list(events or ("job.completed",)))
    return made.id, secret


async def told(pool: Pool, event: Event = "job.completed", data: dict[str, Any] = DATA) -> list[uuid.UUID]:
    """Tell the default account something."""
    async with pool.acquire() as connection, connection.transaction():
        return await outbox.tell(connection, ACCOUNT, event, data)


async def ended(courier: Courier) -> None:
    """Wait for all attempts that run."""
    while courier._running:
        await asyncio.gather(*courier._running)


async def attempt(pool: Pool, courier: Courier) -> None:
    """One attempt of everything that is pending, whenever it is due."""
    await pool.execute("UPDATE deliveries SET next_attempt_at = now()")
    await courier.start()
    await ended(courier)


async def only(pool: Pool, webhook_id: uuid.UUID) -> DeliveryRecord:
    """The one delivery of a webhook."""
    (record,) = await store.list_deliveries(pool, webhook_id, 10)
    return record


async def used(connection: Rows, key_id: uuid.UUID) -> uuid.UUID:
    """A usage event, as any way of metering writes it."""
    usage_id = new_uuid()
    await connection.execute(
        "INSERT INTO usage_events (id, account_id, key_id, model_slug, provider_slug, input_tokens,"
        " output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,"
        " provider_cost_picos, cost_nanos, price_version, markup_bps, estimated, latency_ms, status)"
        " VALUES ($1, $2, $3, 'm', 'p', 3, 4, 0, 0, 0, 7000, 0, 'v', 700, false, 1, 200)",
        usage_id,
        ACCOUNT,
        key_id,
    )
    await connection.execute("UPDATE usage_events SET cost_nanos = 8 WHERE id = $1", usage_id)
    return usage_id


async def minted(pool: Pool, **fields: Any) -> uuid.UUID:
    """A new key of the default account."""
    return (await lifecycle.mint(pool, ACCOUNT, NewKey("ada", **fields)))[0].id


async def test_a_delivery_is_signed_both_ways(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """Qlaud's signature and the one of Standard Webhooks both verify with the secret as it was told."""
    webhook_id, secret = await webhook(pool, vault, receiver.url)
    (delivery_id,) = await told(pool)
    await courier.start(delivery_id)
    await ended(courier)
    (headers,), (body,) = receiver.headers, receiver.bodies
    stamp, key = headers["x-qlaud-timestamp"], secret.reveal().encode()
    assert abs(int(stamp) - time.time()) < 5
    signed = hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-qlaud-signature"] == signed
    message = f"{delivery_id}.{stamp}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.reveal()[6:]), message, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert headers["webhook-id"] == str(delivery_id)
    assert headers["x-qlaud-event"] == "job.completed"
    envelope = msgspec.json.decode(body)
    assert envelope.pop("created_at") == pytest.approx(time.time() * 1000, abs=5_000)
    expected = {"id": str(delivery_id), "type": "job.completed", "account_id": str(ACCOUNT), "data": DATA}
    assert envelope == expected
    record = await only(pool, webhook_id)
    assert (record.status, record.attempts, record.last_status) == ("delivered", 1, 204)
    assert record.next_attempt_at_ms is None
    opened = await pool.fetch("SELECT owner, purpose FROM vault_audit")
    assert [tuple(row) for row in opened] == [(f"webhook:{webhook_id}", f"delivery:{delivery_id}")]


async def test_a_secret_that_does_not_open_fails_its_delivery_in_words(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """Nothing is sent unsigned; the delivery stays pending and says that the secret has to be rotated."""
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    await pool.execute("DELETE FROM data_keys")
    vault._remembered.clear()
    await told(pool)
    await attempt(pool, courier)
    record = await only(pool, webhook_id)
    assert (record.status, receiver.bodies) == ("pending", [])
    assert "rotate it" in (record.last_error or "")


async def test_it_is_tried_until_it_is_taken(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """Errors, redirects, silence and broken connections are failures; every attempt has the same id."""
    moved = says(b"", 302, location="/elsewhere")
    failures = [says(b"", 500), moved, stays_silent(5), hangs_up, says(b"", 401)]
    receiver.answers = [*failures, says(b"x" * 100_000)]
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    await told(pool)
    errors = []
    for number in range(1, len(failures) + 1):
        await attempt(pool, courier)
        record = await only(pool, webhook_id)
        assert (record.status, record.attempts) == ("pending", number)
        assert record.next_attempt_at_ms is not None
        assert record.next_attempt_at_ms > time.time() * 1000
        errors.append(record.last_error)
    assert errors == [
        "answered with 500",
        "answered with 302",
        "no answer within 0.2 s",
        "the connection was refused or broke",
        "answered with 401",
    ]
    await attempt(pool, courier)
    assert (await only(pool, webhook_id)).status == "delivered"
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 1
    assert len(set(receiver.bodies)) == 1
    await attempt(pool, courier)
    assert len(receiver.bodies) == len(failures) + 1


async def test_it_dies_and_is_delivered_again_on_demand(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """After the last attempt nothing more is sent, until somebody asks for it: under the same id."""
    receiver.answers = [says(b"", 503)] * MAX_ATTEMPTS + [says(b"")]
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    (delivery_id,) = await told(pool)
    for _ in range(MAX_ATTEMPTS + 2):
        await attempt(pool, courier)
    record = await only(pool, webhook_id)
    assert (record.status, record.attempts) == ("dead", MAX_ATTEMPTS)
    assert len(receiver.bodies) == MAX_ATTEMPTS
    await store.redeliver(pool, webhook_id, delivery_id)
    await courier.start(delivery_id)
    await ended(courier)
    assert (await only(pool, webhook_id)).status == "delivered"
    assert {headers["webhook-id"] for headers in receiver.headers} == {str(delivery_id)}


async def test_gone_ends_it_at_once(pool: Pool, vault: Vault, courier: Courier, receiver: Receiver) -> None:
    """A receiver that answers 410 is not asked again."""
    receiver.answers = [says(b"", 410)]
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    await told(pool)
    await attempt(pool, courier)
    assert (await only(pool, webhook_id)).status == "dead"


async def test_an_attempt_that_died_is_made_again(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """A claim whose process was lost is due when its lease ends; after too many the sweep gives up."""
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    (delivery_id,) = await told(pool)
    claim = (delivery_id, 1, [], 1, 30.0, MAX_ATTEMPTS)
    assert len(await pool.fetch(store.QUERIES.claim_deliveries, *claim)) == 1
    assert await pool.fetch(store.QUERIES.claim_deliveries, *claim) == []
    await attempt(pool, courier)
    record = await only(pool, webhook_id)
    assert (record.status, record.attempts) == ("delivered", 2)
    await store.redeliver(pool, webhook_id, delivery_id)
    await pool.execute("UPDATE deliveries SET attempts = $1", MAX_ATTEMPTS)
    await courier.sweep()
    assert (await only(pool, webhook_id)).status == "dead"


async def test_a_late_answer_does_not_count(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """Delivered again while an attempt is under way: only the new attempt decides."""
    receiver.answers = [stays_silent(0.1), says(b"", 500)]
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    (delivery_id,) = await told(pool)
    await courier.start()
    await store.redeliver(pool, webhook_id, delivery_id)
    await ended(courier)
    record = await only(pool, webhook_id)
    assert (record.status, record.attempts) == ("pending", 0)
    await attempt(pool, courier)
    assert (await only(pool, webhook_id)).last_status == 500


async def test_many_claims_make_one_attempt(pool: Pool, vault: Vault, receiver: Receiver) -> None:
    """Wake-ups and sweeps in many workers at once: each delivery is sent once."""
    await webhook(pool, vault, receiver.url)
    for _ in range(5):
        await told(pool)
    async with open_guarded_session(allow_private=True) as session:
        couriers = [Courier(pool, session, vault, allow_private=True, retention_days=7) for _ in range(8)]
        await asyncio.gather(*(courier.start() for courier in couriers for _ in range(3)))
        await asyncio.gather(*(ended(courier) for courier in couriers))
    assert len({headers["webhook-id"] for headers in receiver.headers}) == len(receiver.headers) == 5


async def test_one_slow_receiver_does_not_keep_all_hands(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """A receiver that hangs has some of the attempts; others are served beside it."""
    async with running_receiver() as slow:
        slow.answers = [stays_silent(5)]
        slow_id, _ = await webhook(pool, vault, slow.url)
        for _ in range(SLOTS):
            await told(pool)
        fine_id, _ = await webhook(pool, vault, receiver.url, "key.cap_exceeded")
        await told(pool, "key.cap_exceeded")
        await courier.start()
        assert list(courier._running.values()).count(slow_id) == PER_WEBHOOK
        await courier.start()
        assert list(courier._running.values()).count(slow_id) == PER_WEBHOOK
        await ended(courier)
    assert (await only(pool, fine_id)).status == "delivered"


async def test_private_addresses_are_not_called(pool: Pool, vault: Vault, receiver: Receiver) -> None:
    """A webhook that was allowed once is refused when the operator forbids private hosts."""
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    await told(pool)
    async with open_guarded_session(allow_private=False) as session:
        strict = Courier(pool, session, vault, allow_private=False, retention_days=7)
        await strict.start()
        await ended(strict)
    record = await only(pool, webhook_id)
    assert (record.status, record.last_status) == ("pending", None)
    assert (record.last_error or "").startswith("its URL ")
    assert receiver.bodies == []


async def test_what_did_not_happen_is_not_told(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """A fact and its telling are one transaction: rolled back together."""
    await webhook(pool, vault, receiver.url, "job.completed", "usage.recorded")
    key_id = await minted(pool)
    connection = await pool.acquire()
    transaction = connection.transaction()
    await transaction.start()
    await outbox.tell(connection, ACCOUNT, "job.completed", DATA)
    await used(connection, key_id)
    await transaction.rollback()
    await pool.release(connection)
    await courier.sweep()
    await ended(courier)
    assert receiver.bodies == []
    assert await pool.fetchval("SELECT count(*) FROM deliveries") == 0


async def test_usage_that_commits_late_is_told_too(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """A row written first and committed last is in a later delivery, and in no other."""
    await webhook(pool, vault, receiver.url, "usage.recorded")
    key_id = await minted(pool)
    connection = await pool.acquire()
    transaction = connection.transaction()
    await transaction.start()
    late = await used(connection, key_id)
    early = [await used(pool, key_id) for _ in range(2)]
    await courier.sweep()
    await transaction.commit()
    await pool.release(connection)
    await courier.sweep()
    await courier.sweep()
    await ended(courier)
    data = [msgspec.json.decode(body)["data"] for body in receiver.bodies]
    data.sort(key=lambda told: told["sequence"])
    assert [d["sequence"] for d in data] == [1, 2]
    assert [[row["id"] for row in d["usage"]] for d in data] == [[str(e) for e in early], [str(late)]]
    row = data[1]["usage"][0]
    assert (row["cost_nanos"], row["cost_micros"], row["output_tokens"]) == (8, 1, 4)
    assert row["key_id"] == str(key_id)


async def test_usage_is_told_in_order_in_batches_by_many_workers(
    pool: Pool, vault: Vault, receiver: Receiver
) -> None:
    """Eight workers at once: each row in one delivery, deliveries full and numbered without a hole."""
    await webhook(pool, vault, receiver.url, "usage.recorded")
    other_id, _ = await webhook(pool, vault, receiver.url, "usage.recorded")
    await webhook(pool, vault, receiver.url, "job.completed")
    key_id = await minted(pool)
    ids = [str(await used(pool, key_id)) for _ in range(250)]
    await asyncio.gather(*(outbox.tell_usage(pool) for _ in range(8)))
    bodies = await pool.fetch("SELECT body FROM deliveries WHERE webhook_id = $1 ORDER BY id", other_id)
    data = [msgspec.json.decode(row["body"])["data"] for row in bodies]
    assert [d["sequence"] for d in data] == [1, 2, 3]
    assert [len(d["usage"]) for d in data] == [100, 100, 50]
    assert [row["id"] for d in data for row in d["usage"]] == ids
    assert await pool.fetchval("SELECT count(*) FROM deliveries") == 6
    assert await pool.fetchval("SELECT count(*) FROM usage_queue") == 0


async def test_a_usage_event_that_is_taken_back_is_not_told(pool: Pool, vault: Vault) -> None:
    """An event that is deleted in its own transaction leaves nothing in the queue."""
    await webhook(pool, vault, "https://example.com", "usage.recorded")
    usage_id = await used(pool, await minted(pool))
    await pool.execute("DELETE FROM usage_events WHERE id = $1", usage_id)
    assert await outbox.tell_usage(pool) == []


async def test_a_deleted_webhook_hears_nothing_more(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """What was on its way is given up, queued usage is dropped, the secret is gone."""
    webhook_id, _ = await webhook(pool, vault, receiver.url, "job.completed", "usage.recorded")
    key_id = await minted(pool)
    await told(pool)
    await used(pool, key_id)
    await store.delete_webhook(pool, ACCOUNT, webhook_id)
    await used(pool, key_id)
    await told(pool)
    await courier.sweep()
    await ended(courier)
    assert receiver.bodies == []
    assert (await only(pool, webhook_id)).status == "dead"
    assert await pool.fetchval("SELECT count(*) FROM usage_queue") == 0
    assert await pool.fetchval("SELECT secret FROM webhooks") == b""


async def test_a_cap_is_told_once_per_window(pool: Pool, vault: Vault) -> None:
    """Refused again and again, also at once: one delivery; another cap or another window is another one."""
    key_id = await minted(pool, limit_nanos=5_000, cap_period="day")
    assert await outbox.tell_first_refusal(pool, key_id) == []
    webhook_id, _ = await webhook(pool, vault, "https://example.com", "key.cap_exceeded")
    found = await asyncio.gather(*(outbox.tell_first_refusal(pool, key_id) for _ in range(10)))
    assert sum(map(len, found)) == 1
    await pool.execute("UPDATE budgets SET limit_nanos = 6000 WHERE key_id = $1", key_id)
    assert len(await outbox.tell_first_refusal(pool, key_id)) == 1
    assert await outbox.tell_first_refusal(pool, key_id) == []
    await pool.execute("UPDATE cap_notices SET window_start = window_start - interval '1 day'")
    assert len(await outbox.tell_first_refusal(pool, key_id)) == 1
    body = await pool.fetchval("SELECT body FROM deliveries WHERE webhook_id = $1 LIMIT 1", webhook_id)
    data = msgspec.json.decode(body)["data"]
    assert (data["key_id"], data["key_name"], data["limit_micros"]) == (str(key_id), "ada", 5)
    assert (data["cap_period"], data["spent_micros"]) == ("day", 0)
    assert data["resets_at"] > time.time() * 1000


async def test_a_low_wallet_is_told_once_per_crossing(pool: Pool, vault: Vault) -> None:
    """By the account's own threshold, else by that of its top-ups; who wants to know later hears it, too."""
    await wallet.set_billing(pool, ACCOUNT, "prepaid")
    await wallet.set_low_balance(pool, ACCOUNT, 5_000_000)

    async def crossing(balance: int) -> int:
        await pool.execute("UPDATE wallets SET balance_nanos = $1", balance)
        told = await asyncio.gather(*(outbox.tell_low_wallets(pool) for _ in range(5)))
        return sum(map(len, told))

    await webhook(pool, vault, None, "wallet.low")
    assert await crossing(4_999_999) == 0, "nobody can be told"
    webhook_id, _ = await webhook(pool, vault, "https://example.com", "wallet.low")
    assert await crossing(4_999_999) == 1
    assert [await crossing(nanos) for nanos in (1, -1, 5_000_000, 4_000_000)] == [0, 0, 0, 1]
    await wallet.set_low_balance(pool, ACCOUNT, 4_500_000)
    assert await crossing(4_000_000) == 1
    await wallet.set_low_balance(pool, ACCOUNT, None)
    assert await crossing(3_000_000) == 0
    rule = auto_topup.Rule(3_500_000, 10_000_000, 20_000_000)
    await auto_topup.switch_on(pool, ACCOUNT, rule)
    assert await crossing(3_000_000) == 1
    first = "SELECT body FROM deliveries WHERE webhook_id = $1 ORDER BY id LIMIT 1"
    data = msgspec.json.decode(await pool.fetchval(first, webhook_id))["data"]
    assert data == {"balance_micros": 4_999, "held_micros": 0, "threshold_micros": 5_000}
    await wallet.set_billing(pool, ACCOUNT, "postpaid")
    assert await outbox.tell_low_wallets(pool) == []


async def test_old_deliveries_are_forgotten(
    pool: Pool, vault: Vault, courier: Courier, receiver: Receiver
) -> None:
    """What ended more than a week ago goes; what is on its way stays."""
    webhook_id, _ = await webhook(pool, vault, receiver.url)
    await told(pool)
    await courier.start()
    await ended(courier)
    (waiting,) = await told(pool)
    await courier.delete_old()
    assert len(await store.list_deliveries(pool, webhook_id, 10)) == 2
    await pool.execute("UPDATE deliveries SET ended_at = ended_at - interval '8 days'")
    await courier.delete_old()
    assert (await only(pool, webhook_id)).id == waiting


async def test_the_routes(pool: Pool, vault: Vault, courier: Courier, receiver: Receiver) -> None:
    """The secret is told once and once per rotation; another account sees nothing of it."""
    woken: list[uuid.UUID] = []

    async def wake(ids: list[uuid.UUID]) -> None:
        woken.extend(ids)

    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", other := new_uuid())
    _, stranger = await lifecycle.mint(pool, other, NewKey("k", scope="admin"))
    async with front_door(pool, vault=vault, wake_deliveries=wake) as door:
        asked = {"url": "https://hooks.example/x", "events": ["job.completed", "job.completed"]}
        status, made = await door.ask("POST", "/v1/webhooks", asked)
        assert (status, made["events"]) == (201, ["job.completed"])
        assert made["secret"].startswith("whsec_")
        path = f"/v1/webhooks/{made['id']}"
        shown = {name: value for name, value in made.items() if name != "secret"}
        assert await door.ask("GET", "/v1/webhooks") == (200, {"object": "list", "data": [shown]})
        status, rotated = await door.ask("POST", f"{path}/rotate")
        assert status == 200
        assert rotated["secret"] not in ("", made["secret"])
        await pool.execute("UPDATE webhooks SET url = $1", receiver.url)
        (delivery_id,) = await told(pool)
        await courier.start()
        await ended(courier)
        stamp = receiver.headers[0]["x-qlaud-timestamp"].encode()
        signed = hmac.new(rotated["secret"].encode(), stamp + b"." + receiver.bodies[0], hashlib.sha256)
        assert receiver.headers[0]["x-qlaud-signature"] == signed.hexdigest()
        status, listed = await door.ask("GET", f"{path}/deliveries")
        assert [(d["id"], d["status"]) for d in listed["data"]] == [(str(delivery_id), "delivered")]
        again = f"{path}/deliveries/{delivery_id}/redeliver"
        for method, there in (("DELETE", path), ("GET", f"{path}/deliveries"), ("POST", again)):
            assert (await door.ask(method, there, key=stranger.reveal()))[0] == 404
        assert (await door.ask("POST", again))[0] == 202
        assert woken == [delivery_id]
        assert (await door.ask("POST", "/v1/webhooks", {"url": None}))[0] == 201
        assert (await door.ask("POST", "/v1/webhooks", {"url": None}))[0] == 409
        assert (await door.ask("DELETE", path)) == (200, {"ok": True})
        assert (await door.ask("DELETE", path))[0] == 404
        statuses = [(await door.ask("POST", "/v1/webhooks", asked))[0] for _ in range(store.MAX_WEBHOOKS)]
        assert statuses == [201] * (store.MAX_WEBHOOKS - 1) + [409]


async def test_a_refused_key_tells_its_account(pool: Pool, vault: Vault) -> None:
    """The first 402 of a key is told, the next ones are not; both are 402."""
    woken: list[uuid.UUID] = []

    async def wake(ids: list[uuid.UUID]) -> None:
        woken.extend(ids)

    async def refuse(_: web.Request) -> web.Response:
        raise SpendCapReached

    await webhook(pool, vault, "https://example.com", "key.cap_exceeded")
    refused = web.post("/v1/refused", refuse)
    async with front_door(pool, refused, vault=vault, wake_deliveries=wake) as door:
        secret = (await door.mint(max_spend_usd=0))["secret"]
        for _ in range(3):
            assert (await door.ask("POST", "/v1/refused", {}, key=secret))[0] == 402
    assert len(woken) == 1
