"""Top-ups through the front door, with Stripe's double on the other side."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.stripe_double import SECRET_KEY, StripeDouble, signed, stripe_double
from front_door import Door, front_door
from stripe_door import USD, WEBHOOK, balance, customer, order, paid, send, stripe_settings

from qlaud_actors.billing import topup
from qlaud_actors.db.pool import Pool


@pytest.fixture
async def stripe() -> AsyncIterator[StripeDouble]:
    """Stripe's double."""
    async with stripe_double() as double:
        yield double


@pytest.fixture
async def door(pool: Pool, stripe: StripeDouble) -> AsyncIterator[Door]:
    """The front door on the test's database and the double."""
    async with front_door(pool, settings=stripe_settings(stripe)) as door:
        yield door


async def test_a_paid_checkout_fills_the_wallet(door: Door, stripe: StripeDouble) -> None:
    """From the order to the balance; until Stripe says that it is paid there is nothing."""
    key = await customer(door)
    page = await order(door, key, 20.5)
    assert set(page) == {"id", "url"}
    assert page["url"].startswith(stripe.url)
    assert await balance(door, key) == 0
    assert await send(door, stripe.pay(page["id"])) == 200
    assert await balance(door, key) == 20.5 * USD
    _, ledger = await door.ask("GET", "/v1/billing/ledger", key=key)
    assert [entry["kind"] for entry in ledger["entries"]] == ["topup"]
    assert await balance(door, door.master) == 0


async def test_a_replayed_event_credits_once(door: Door, stripe: StripeDouble) -> None:
    """Fifty deliveries at the same time, all answered with 200, and one credit."""
    key = await customer(door)
    event = stripe.pay((await order(door, key))["id"])
    assert set(await asyncio.gather(*(send(door, event) for _ in range(50)))) == {200}
    assert await balance(door, key) == 20 * USD


async def test_a_payment_told_by_many_events_credits_once(door: Door, stripe: StripeDouble) -> None:
    """Another event about the same payment is not another payment."""
    key = await customer(door)
    completed = stripe.pay((await order(door, key))["id"])
    session = completed["data"]["object"]
    intent = stripe._objects[session["payment_intent"]]
    others = [stripe.event("checkout.session.completed", session) for _ in range(10)]
    others += [stripe.event("payment_intent.succeeded", intent) for _ in range(10)]
    assert set(await asyncio.gather(*(send(door, event) for event in [completed, *others]))) == {200}
    assert await balance(door, key) == 20 * USD


async def test_an_event_that_was_forgotten_credits_nothing_when_it_comes_again(
    door: Door, pool: Pool, stripe: StripeDouble
) -> None:
    """Old events are pruned, new ones not; every event of a payment, told anew in any order, is no money."""
    key = await customer(door)
    page = await order(door, key)
    completed = stripe.pay(page["id"])
    events = [completed, *stripe.refund(completed["data"]["object"]["payment_intent"], 500)]
    assert {await send(door, event) for event in events} == {200}
    before = await balance(door, key)
    assert before == 15 * USD
    await topup.forget_events(pool)
    assert await pool.fetchval("SELECT count(*) FROM stripe_events") == len(events)
    await pool.execute("UPDATE stripe_events SET received_at = now() - interval '41 days'")
    await topup.forget_events(pool)
    assert await pool.fetchval("SELECT count(*) FROM stripe_events") == 0
    for told in itertools.permutations(events):
        assert {await send(door, event) for event in told} == {200}
        assert await balance(door, key) == before
        await pool.execute("DELETE FROM stripe_events")


async def test_an_unpaid_checkout_credits_nothing_until_the_bank_pays(
    door: Door, stripe: StripeDouble
) -> None:
    """A bank debit completes the page days before the money is there."""
    key = await customer(door)
    page = await order(door, key)
    assert await send(door, stripe.pay(page["id"], settled=False)) == 200
    assert await balance(door, key) == 0
    assert await send(door, stripe.settle(page["id"])) == 200
    assert await balance(door, key) == 20 * USD


@pytest.mark.parametrize("how", [{"secret": "whsec_other"}, {"age": 301}])
async def test_a_wrong_or_old_signature_is_refused(door: Door, stripe: StripeDouble, how: Any) -> None:
    """400, and no credit; the same event signed properly is taken."""
    key = await customer(door)
    event = stripe.pay((await order(door, key))["id"])
    assert await send(door, event, **how) == 400
    assert await balance(door, key) == 0
    assert await send(door, event, age=290) == 200
    assert await balance(door, key) == 20 * USD


async def test_a_changed_body_or_no_signature_is_refused(door: Door, stripe: StripeDouble) -> None:
    """The signature is of these very bytes."""
    event = stripe.pay((await order(door, await customer(door)))["id"])
    body, signature = signed(event)
    for data, headers in (
        (body.replace(b"2000", b"9000"), {"stripe-signature": signature}),
        (body, {}),
        (b"\xff", {"stripe-signature": signature}),
        (b"[]", {"stripe-signature": "t=x"}),
    ):
        async with door.client.post(WEBHOOK, data=data, headers=headers) as response:
            assert response.status == 400


async def test_an_endless_event_is_not_read_to_its_end(door: Door) -> None:
    """Nobody has shown a key or a signature yet: the body is cut off at what no event reaches."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 2**16

    async with door.client.post(WEBHOOK, data=endless()) as response:
        assert response.status == 413


async def test_refunds_are_debited_by_what_is_new(door: Door, stripe: StripeDouble) -> None:
    """Told by the refund, by the charge, or by both: each cent goes back once."""
    key = await customer(door)
    intent = await paid(door, stripe, key)
    of_refund, of_charge = stripe.refund(intent, 500)
    assert await send(door, of_charge) == 200
    assert await balance(door, key) == 15 * USD
    assert await send(door, of_refund) == 200
    assert await balance(door, key) == 15 * USD
    of_refund, of_charge = stripe.refund(intent, 300)
    assert await send(door, of_refund) == 200
    assert await send(door, of_charge) == 200
    assert await balance(door, key) == 12 * USD
    assert await send(door, stripe.fail_refund(of_refund["data"]["object"]["id"])) == 200
    assert await balance(door, key) == 15 * USD


async def test_a_dispute_takes_the_money_and_a_won_one_gives_it_back(
    door: Door, stripe: StripeDouble
) -> None:
    """Also when it was spent; an inquiry takes nothing."""
    key = await customer(door)
    intent = await paid(door, stripe, key)
    asked = stripe.dispute(intent, 2000, "warning_needs_response")
    assert await send(door, asked) == 200
    assert await balance(door, key) == 20 * USD
    taken = stripe.dispute(intent, 2000)
    assert await send(door, taken) == 200
    assert await balance(door, key) == 0
    closed = stripe.close_dispute(taken["data"]["object"]["id"], "won")
    assert await send(door, closed) == 200
    assert await balance(door, key) == 20 * USD
    lost = stripe.dispute(intent, 2000)
    for event in (lost, stripe.close_dispute(lost["data"]["object"]["id"], "lost")):
        assert await send(door, event) == 200
    assert await balance(door, key) == 0


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_ends_at_the_same_balance(door: Door, stripe: StripeDouble, seed: int) -> None:
    """A whole life of a payment, shuffled, doubled and at the same time."""
    key = await customer(door)
    completed = stripe.pay((await order(door, key))["id"])
    intent = completed["data"]["object"]["payment_intent"]
    dispute = stripe.dispute(intent, 700)
    won = stripe.close_dispute(dispute["data"]["object"]["id"], "won")
    refunds = itertools.chain.from_iterable(stripe.refund(intent, cents) for cents in (500, 250))
    events = [completed, dispute, won, *refunds] * 2
    random.Random(seed).shuffle(events)
    assert set(await asyncio.gather(*(send(door, event) for event in events))) == {200}
    assert await balance(door, key) == 12.5 * USD


async def test_a_dispute_that_names_only_its_charge_is_looked_up(door: Door, stripe: StripeDouble) -> None:
    """Older events leave the payment out; Stripe is asked for it."""
    key = await customer(door)
    taken = stripe.dispute(await paid(door, stripe, key), 2000)
    taken["data"]["object"]["payment_intent"] = None
    assert await send(door, taken) == 200
    assert await balance(door, key) == 0


async def test_events_about_other_business_change_nothing(door: Door, stripe: StripeDouble) -> None:
    """The same Stripe account may sell other things, in other currencies, to accounts of others."""
    key = await customer(door)
    session = stripe._objects[(await order(door, key))["id"]]
    stripe.pay(session["id"])
    foreign: list[dict[str, Any]] = [
        {**session, "metadata": {}},
        {**session, "metadata": {"account_id": "00000000-0000-7000-8000-0000000000ff"}},
        {**session, "metadata": {"account_id": "somebody"}},
        {**session, "currency": "eur"},
        {**session, "payment_status": "no_payment_required"},
    ]
    for number, about in enumerate(foreign):
        event = stripe.event("checkout.session.completed", {**about, "payment_intent": f"pi_{number}"})
        assert await send(door, event) == 200
    charge = stripe._objects[stripe._objects[session["payment_intent"]]["latest_charge"]]
    assert await send(door, stripe.event("charge.succeeded", charge)) == 200
    assert await balance(door, key) == 0


async def test_the_same_idempotency_key_gives_the_same_page(door: Door) -> None:
    """Per account; with another amount it is a conflict."""
    key, other = await customer(door), await customer(door)
    header = {"idempotency-key": "order-1"}
    first, again = [await order(door, key, 20, **header) for _ in range(2)]
    assert first == again
    assert (await order(door, other, 20, **header))["id"] != first["id"]
    body = {"amount_usd": 21}
    status, answer = await door.ask("POST", "/v1/billing/topups", body, key=key, **header)
    assert (status, answer["error"]["code"]) == (409, "idempotency_conflict")


async def test_a_failure_of_stripe_is_retried_then_told(door: Door, stripe: StripeDouble) -> None:
    """One failure is passed over, with the same key; when it stays, it is 503."""
    key = await customer(door)
    stripe.fail_next = 1
    await order(door, key)
    first, second = (sent for sent, _ in stripe.requests)
    assert first == second != ""
    stripe.fail_next = 10
    status, answer = await door.ask("POST", "/v1/billing/topups", {"amount_usd": 5}, key=key)
    assert (status, answer["error"]["code"]) == (503, "stripe_unavailable")
    assert SECRET_KEY not in str(answer)


@pytest.mark.parametrize("amount", [0, 0.49, 1_000_000, 10.001, -5, None, "20"])
async def test_amounts_that_cannot_be_paid_are_refused(door: Door, stripe: StripeDouble, amount: Any) -> None:
    """Before Stripe is asked."""
    status, answer = await door.ask(
        "POST", "/v1/billing/topups", {"amount_usd": amount}, key=await customer(door)
    )
    assert status == 400
    assert "amount_usd" in answer["error"]["message"]
    assert stripe.requests == []


async def test_without_stripe_the_rest_works(pool: Pool) -> None:
    """503 that names what is missing; the balance is still told."""
    async with front_door(pool) as door:
        status, answer = await door.ask("POST", "/v1/billing/topups", {"amount_usd": 5})
        assert status == 503
        assert "STRIPE_SECRET_KEY" in answer["error"]["message"]
        status, answer = await door.ask("POST", WEBHOOK, {}, key="")
        assert status == 503
        assert (await door.ask("GET", "/v1/billing/balance"))[0] == 200


async def test_a_thin_event_is_taken_and_changes_nothing(door: Door) -> None:
    """Stripe's second API sends events without an object, as reports of meters; 200 ends their retries."""
    thin = {"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered"}
    assert await send(door, thin) == 200
