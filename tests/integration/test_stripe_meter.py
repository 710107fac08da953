"""Usage of end users on its way to Stripe's Billing Meters, on a real Postgres and Stripe's double."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fakes.stripe_double import StripeDouble, stripe_double
from front_door import Door, front_door
from stripe_door import stripe_settings

from qlaud_actors.billing import meter, stripe_meter
from qlaud_actors.billing.model import Charge
from qlaud_actors.billing.stripe_meter import Meter
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import accounts
from qlaud_actors.keys.accounts import NewAccount
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.settings import Secret, Settings
from qlaud_actors.usage import Price, Rates, Usage, WorstCase

PRICE = Price(Rates(1_000, 1_000, 1_000, 1_000, 1_000), (), "test/m@2026-11-24")
"""One nano-USD per token, without markup: a call's tokens are its cost."""
COST, TOKENS = Meter("ai_cost", "cost_micros"), Meter("ai_tokens", "tokens")
DUE = "UPDATE stripe_meter_queue SET next_at = now()"
PATH = "/v1/billing/stripe-meter"


@pytest.fixture
async def stripe() -> AsyncIterator[StripeDouble]:
    """Stripe's double, with both meters."""
    async with stripe_double() as double:
        double.meters = {COST.event_name, TOKENS.event_name}
        yield double


@pytest.fixture
def settings(stripe: StripeDouble) -> Settings:
    """A server that has the double for its Stripe."""
    return stripe_settings(stripe)


@pytest.fixture
async def key(pool: Pool) -> ApiKey:
    """The admin key of a postpaid account."""
    return (await accounts.create(pool, NewAccount("acme", "postpaid")))[1]


async def metered(pool: Pool, stripe: StripeDouble, key: ApiKey, what: Meter = COST) -> str:
    """Switch the account's meter on and map its end user; returns the customer."""
    customer = stripe.new_customer()
    await stripe_meter.set_meter(pool, key.account_id, what)
    await stripe_meter.map_end_user(pool, key.account_id, "ada", customer)
    return customer


async def use(pool: Pool, key: ApiKey, nanos: int, end_user: str | None = "ada") -> uuid.UUID:
    """A call that costs so much, of so many tokens; returns its hold, which is gone."""
    held = await meter.hold(pool, key.id, None, WorstCase(PRICE, 0, nanos, markup_bps=0), nanos)
    await settle(pool, key, held.id, nanos, end_user)
    return held.id


async def settle(pool: Pool, key: ApiKey, held: uuid.UUID, nanos: int, end_user: str | None = "ada") -> None:
    used = Usage(output=nanos)
    cost = Charge(key.account_id, key.id, None, None, end_user, "m", "p", used, PRICE, 0, 1, 200)
    async with pool.acquire() as connection, connection.transaction():
        await meter.settle(connection, held, cost)


async def waiting(pool: Pool) -> int:
    return int(await pool.fetchval("SELECT count(*) FROM stripe_meter_queue"))


async def test_what_an_end_user_costs_reaches_their_customer(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """In whole micro-dollars that sum up to the rows: what is below one is carried on, not rounded away."""
    customer = await metered(pool, stripe, key)
    for nanos in (300, 300, 300, 300, 2_900):
        await use(pool, key, nanos)
    assert await stripe_meter.push(pool, settings) > 0
    assert stripe.counted == {(COST.event_name, customer): 4}
    await use(pool, key, 900)
    await stripe_meter.push(pool, settings)
    total = await pool.fetchval("SELECT sum(cost_nanos)::bigint FROM usage_events")
    assert stripe.counted[COST.event_name, customer] == total // 1_000 == 5
    assert await waiting(pool) == 0


async def test_tokens_can_be_counted_instead(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """All of a call's tokens, whatever they cost."""
    customer = await metered(pool, stripe, key, TOKENS)
    for tokens in (7, 5):
        await use(pool, key, tokens)
    assert await stripe_meter.push(pool, settings) == 2
    assert stripe.counted == {(TOKENS.event_name, customer): 12}


async def test_only_what_is_asked_for_is_queued(pool: Pool, stripe: StripeDouble, key: ApiKey) -> None:
    """Not without a meter, not for unmapped or unnamed end users, not for calls that were not charged."""
    await use(pool, key, 5_000)
    await metered(pool, stripe, key)
    await use(pool, key, 5_000, None)
    await use(pool, key, 5_000, "bob")
    held = await use(pool, key, 5_000)
    assert await waiting(pool) == 1
    await settle(pool, key, held, 5_000)
    assert await waiting(pool) == 1
    await stripe_meter.remove_meter(pool, key.account_id)
    await use(pool, key, 5_000)
    assert await waiting(pool) == 1


async def test_a_settlement_that_commits_late_is_not_passed_over(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """A push in the middle of an older transaction sees only the newer event; the older one follows."""
    customer = await metered(pool, stripe, key)
    held = await meter.hold(pool, key.id, None, WorstCase(PRICE, 0, 1_000, markup_bps=0), 1_000)
    cost = Charge(key.account_id, key.id, None, None, "ada", "m", "p", Usage(output=1_000), PRICE, 0, 1, 200)
    _, other, _ = await accounts.create(pool, NewAccount("other", "postpaid"))
    other_customer = await metered(pool, stripe, other)
    async with pool.acquire() as connection, connection.transaction():
        assert await meter.settle(connection, held.id, cost)
        await use(pool, other, 2_000)
        assert await stripe_meter.push(pool, settings) == 1
    assert await stripe_meter.push(pool, settings) == 1
    assert stripe.counted == {(COST.event_name, customer): 1, (COST.event_name, other_customer): 2}


async def test_an_answer_that_is_lost_counts_once(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """Sent again with the same identifier; that Stripe has it already is a delivery, not an error."""
    customer = await metered(pool, stripe, key)
    await use(pool, key, 7_000)
    stripe.lose_next = 3
    assert await stripe_meter.push(pool, settings) == 0
    assert await stripe_meter.push(pool, settings) == 0
    await pool.execute(DUE)
    assert await stripe_meter.push(pool, settings) == 1
    assert stripe.counted == {(COST.event_name, customer): 7}
    assert await waiting(pool) == 0


async def test_many_pushers_send_each_event_once(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """Four workers, three end users, sixty events: every event goes out once, and the sums are exact."""
    customers = {"ada": await metered(pool, stripe, key)}
    for name in ("bob", "eve"):
        customers[name] = stripe.new_customer()
        await stripe_meter.map_end_user(pool, key.account_id, name, customers[name])
    for number in range(60):
        await use(pool, key, 1_500, list(customers)[number % 3])
    sent = await asyncio.gather(*(stripe_meter.push(pool, settings) for _ in range(4)))
    assert sum(sent) == 60
    assert stripe.counted == {(COST.event_name, customer): 30 for customer in customers.values()}
    assert len(stripe.requests) == 60


async def test_what_stripe_refuses_waits_for_a_person(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """Others go on; it is shown with the reason, and can be sent again to the customer that is right."""
    await metered(pool, stripe, key)
    await stripe_meter.map_end_user(pool, key.account_id, "bob", "cus_nobody")
    for name in ("ada", "bob"):
        await use(pool, key, 3_000, name)
    assert await stripe_meter.push(pool, settings) == 1
    await pool.execute(DUE)
    assert await stripe_meter.push(pool, settings) == 0
    state, [refused] = await stripe_meter.show_meter(pool, key.account_id)
    assert (state["queued"], state["failed"]) == (0, 1)
    assert (refused["end_user_id"], refused["stripe_customer_id"]) == ("bob", "cus_nobody")
    assert "No such customer" in refused["reason"]
    right = stripe.new_customer()
    await stripe_meter.map_end_user(pool, key.account_id, "bob", right)
    assert await stripe_meter.retry_failed(pool, key.account_id) == 1
    assert await stripe_meter.push(pool, settings) == 1
    assert stripe.counted[COST.event_name, right] == 3


async def test_a_wrong_key_loses_nothing(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """Stripe turned it away at the door, so its day of knowing the identifier has not begun."""
    customer = await metered(pool, stripe, key)
    await use(pool, key, 3_000)
    wrong = replace(settings, stripe_secret_key=Secret("sk_test_wrong"))
    assert await stripe_meter.push(pool, wrong) == 0
    await pool.execute(f"{DUE}, occurred_at = occurred_at - interval '30 days'")
    assert await stripe_meter.push(pool, settings) == 1
    assert stripe.counted == {(COST.event_name, customer): 3}


async def test_after_a_day_of_silence_nothing_is_sent_twice_by_itself(
    pool: Pool, stripe: StripeDouble, settings: Settings, key: ApiKey
) -> None:
    """Stripe may have counted it and forgotten the identifier: a person decides."""
    await metered(pool, stripe, key)
    await use(pool, key, 3_000)
    stripe.fail_next = 3
    assert await stripe_meter.push(pool, settings) == 0
    await pool.execute(f"{DUE}, first_sent_at = now() - interval '23 hours 1 second'")
    assert await stripe_meter.push(pool, settings) == 0
    state, [unknown] = await stripe_meter.show_meter(pool, key.account_id)
    assert state["failed"] == 1
    assert "23 hours" in unknown["reason"]


async def test_the_routes(pool: Pool, settings: Settings) -> None:
    """The operator switches an account's meter on, its admin maps end users; nobody sees another's."""
    async with front_door(pool, settings=settings) as door:
        _, made = await door.ask("POST", "/v1/accounts", {"name": "acme"})
        admin, here = made["secret"], f"{PATH}?account_id={made['id']}"
        meter_body = {"event_name": COST.event_name}
        assert (await door.ask("PUT", PATH, meter_body, key=admin))[0] == 403
        assert (await door.ask("GET", PATH, key=admin))[0] == 404
        assert (await door.ask("PUT", here, meter_body))[0] == 200
        assert (await door.ask("GET", PATH))[0] == 404
        await _check_end_users(door, admin)
        status, shown = await door.ask("GET", PATH, key=admin)
        assert status == 200
        assert (shown["event_name"], shown["value"]) == (COST.event_name, "cost_micros")
        assert (shown["queued"], shown["failed"], shown["failures"]) == (0, 0, [])
        assert (await door.ask("POST", f"{PATH}/retry", key=admin))[1] == {"retried": 0}
        assert (await door.ask("DELETE", PATH, key=admin))[0] == 403
        assert (await door.ask("DELETE", here))[0] == 200
        assert (await door.ask("DELETE", here))[0] == 404


async def _check_end_users(door: Door, admin: str) -> None:
    path, body = "/v1/end-users/ada%2Fx/billing", {"stripe_customer_id": "cus_1"}
    told: Any = {"object": "end_user_billing", "end_user_id": "ada/x", "stripe_customer_id": "cus_1"}
    assert await door.ask("PUT", path, body, key=admin) == (200, told)
    assert await door.ask("GET", path, key=admin) == (200, told)
    assert (await door.ask("GET", path))[0] == 404
    assert (await door.ask("DELETE", path, key=admin))[0] == 200
    assert (await door.ask("DELETE", path, key=admin))[0] == 404


async def test_an_end_user_of_a_key_is_enough(pool: Pool, stripe: StripeDouble, key: ApiKey) -> None:
    """Whatever writes usage events feeds the queue: the trigger stands on the table, not in the meter."""
    await metered(pool, stripe, key)
    await pool.execute(
        "INSERT INTO usage_events (id, account_id, key_id, end_user_id, model_slug, provider_slug,"
        " input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,"
        " provider_cost_picos, cost_nanos, price_version, markup_bps, estimated, latency_ms, status)"
        " VALUES ($1, $2, $3, 'ada', 'm', 'p', 1, 1, 0, 0, 0, 1, 5000, 'v', 0, false, 1, 200)",
        new_uuid(),
        key.account_id,
        key.id,
    )
    assert await waiting(pool) == 1
