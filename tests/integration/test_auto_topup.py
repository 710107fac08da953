"""Automatic top-ups on a real Postgres, with Stripe's double on the other side."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.stripe_double import StripeDouble, stripe_double
from front_door import Door, front_door
from stripe_door import USD, balance, customer, order, send, stripe_settings

from qlaud_actors.billing import auto_topup, intent, stripe_client
from qlaud_actors.db.pool import Pool
from qlaud_actors.settings import Settings

RULE = {"threshold_usd": 5, "amount_usd": 10, "monthly_ceiling_usd": 25}
PATH = "/v1/billing/auto-topup"
SPEND = (
    "SELECT post_entry_v1(gen_random_uuid(), account_id, 'adjustment', $1, gen_random_uuid()::text, 'spent')"
    " FROM wallets WHERE account_id = $2::uuid"
)
ROWS = "SELECT state, amount_nanos, reason, payment_id, attempts FROM auto_topups ORDER BY created_at, id"
HOUR_LATER = "UPDATE auto_topup_rules SET next_at = now()"
LAST_MONTH = "UPDATE auto_topups SET created_at = date_trunc('month', now(), 'UTC') - interval '1 ms'"
DUE = "UPDATE auto_topups SET next_at = now()"


@pytest.fixture
async def stripe() -> AsyncIterator[StripeDouble]:
    """Stripe's double."""
    async with stripe_double() as double:
        yield double


@pytest.fixture
def settings(stripe: StripeDouble) -> Settings:
    """A server that has the double for its Stripe."""
    return stripe_settings(stripe)


@pytest.fixture
async def door(pool: Pool, settings: Settings) -> AsyncIterator[Door]:
    """The front door on the test's database and the double."""
    async with front_door(pool, settings=settings) as door:
        yield door


@pytest.fixture
async def key(door: Door, stripe: StripeDouble) -> str:
    """The admin key of a prepaid account with a saved card, a rule, and a dollar."""
    key = await customer(door)
    page = await order(door, key, 1, save=True)
    for event in (stripe.pay(page["id"]), stripe.paid_intent(page["id"])):
        assert await send(door, event) == 200
    assert (await door.ask("PUT", PATH, RULE, key=key))[0] == 200
    return key


async def rule(door: Door, key: str) -> Any:
    status, answer = await door.ask("GET", PATH, key=key)
    assert status == 200, answer
    return answer


async def deliver(door: Door, stripe: StripeDouble) -> None:
    """Stripe's events arrive, each of them twice."""
    for event in [*stripe.events, *stripe.events]:
        assert await send(door, event) == 200
    stripe.events.clear()


async def spend(pool: Pool, door: Door, key: str, usd: int) -> None:
    _, account = await door.ask("GET", "/v1/account", key=key)
    await pool.execute(SPEND, -usd * 1_000_000_000, account["user_id"])


async def states(pool: Pool) -> list[str]:
    return [row["state"] for row in await pool.fetch(ROWS)]


async def test_a_low_wallet_is_filled_from_the_saved_card(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """Below the threshold the card is charged once; the money is there when Stripe's event says so."""
    await auto_topup.sweep(pool, settings)
    assert await balance(door, key) == 1 * USD
    shown = await rule(door, key)
    assert shown["pending"]["charged"] is True
    assert shown["month_micros"] == shown["pending"]["amount_micros"] == 10 * USD
    await auto_topup.sweep(pool, settings)
    await deliver(door, stripe)
    await auto_topup.sweep(pool, settings)
    assert await balance(door, key) == 11 * USD
    assert await states(pool) == ["credited"]
    shown = await rule(door, key)
    assert (shown["pending"], shown["enabled"], shown["month_micros"]) == (None, True, 10 * USD)
    [_, charged] = stripe.intents()
    assert charged["payment_method"] == shown["payment_method_id"]


async def test_what_is_held_counts_as_gone(door: Door, pool: Pool, settings: Settings, key: str) -> None:
    """The threshold is compared with what is free: a wallet full of holds is low."""
    await spend(pool, door, key, -7)
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == []
    await pool.execute("UPDATE wallets SET held_nanos = 4000000000")
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["charged"]


async def test_nobody_is_charged_without_a_saved_card_or_a_wallet(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings
) -> None:
    """A plain top-up saves nothing; a postpaid account cannot have a rule."""
    key = await customer(door)
    page = await order(door, key, 1)
    for event in (stripe.pay(page["id"]), stripe.paid_intent(page["id"])):
        await send(door, event)
    assert (await door.ask("PUT", PATH, RULE, key=key))[0] == 200
    await auto_topup.sweep(pool, settings)
    assert (await rule(door, key))["payment_method_id"] is None
    assert await states(pool) == []
    assert (await door.ask("PUT", PATH, RULE))[0] == 409


async def test_the_newest_saved_card_counts(door: Door, stripe: StripeDouble, key: str) -> None:
    """An older event that comes later changes nothing."""
    page = await order(door, key, 1, save=True)
    stripe.pay(page["id"])
    event = stripe.paid_intent(page["id"])
    first = await rule(door, key)
    old = {**event, "id": "evt_old", "created": event["created"] - 60}
    assert await send(door, old) == 200
    assert await rule(door, key) == first
    assert await send(door, {**event, "created": event["created"] + 60}) == 200
    assert (await rule(door, key))["payment_method_id"] != first["payment_method_id"]


async def test_the_ceiling_counts_the_months_topups(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """Two of ten dollars fit under 25, a third does not; last month's do not count."""
    for _ in range(4):
        await auto_topup.sweep(pool, settings)
        await deliver(door, stripe)
        await spend(pool, door, key, 10)
    assert await states(pool) == ["credited"] * 2
    assert (await rule(door, key))["month_micros"] == 20 * USD
    await pool.execute(LAST_MONTH)
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["credited", "credited", "charged"]


async def test_many_sweepers_decide_once(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """Twenty sweeps at the same time, with the event arriving among them: one charge, one credit."""
    await asyncio.gather(*(auto_topup.sweep(pool, settings) for _ in range(20)))
    await asyncio.gather(deliver(door, stripe), *(auto_topup.sweep(pool, settings) for _ in range(10)))
    assert await states(pool) == ["credited"]
    assert await balance(door, key) == 11 * USD
    assert len(stripe.intents()) == 2


@pytest.mark.parametrize("dies_at", ["request", "answer", "result"])
async def test_a_crash_anywhere_charges_once(
    door: Door, stripe: StripeDouble, pool: Pool, key: str, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    """Between row and request, with the answer on its way, before the result is kept: the next sweep goes on.

    Also when Stripe has forgotten the key by then.
    """
    settings = stripe_settings(stripe)

    class Died(BaseException):
        """What `kill -9` looks like from inside."""

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        match dies_at:
            case "request":
                patch.setattr(auto_topup, "open_stripe", die)
            case "result":
                patch.setattr(intent, "outcome", die)
            case "answer":
                pay = stripe_client.StripeClient.pay

                async def paid_unheard(*args: Any) -> None:
                    await pay(*args)
                    raise Died

                patch.setattr(stripe_client.StripeClient, "pay", paid_unheard)
        with pytest.raises(Died):
            await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["pending"]
    assert (await rule(door, key))["month_micros"] == 10 * USD
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["pending"]
    stripe.forget_keys()
    await pool.execute(DUE)
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["charged"]
    await deliver(door, stripe)
    assert await states(pool) == ["credited"]
    assert len(stripe.intents()) == 2
    assert await balance(door, key) == 11 * USD


@pytest.mark.usefixtures("key")
async def test_the_event_may_come_before_the_answer(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings
) -> None:
    """The answer is lost three times over; the event closes the top-up, and nothing is sent again."""
    stripe.lose_next = 3
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["pending"]
    await deliver(door, stripe)
    await pool.execute(DUE)
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["credited"]
    assert len(stripe.intents()) == 2


async def test_what_stripe_never_answered_is_given_up_before_its_keys_expire(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """After 20 hours it is looked for once more, not sent again; the ceiling gets its money back."""
    stripe.fail_next = 3
    await auto_topup.sweep(pool, settings)
    await pool.execute(f"{DUE}, created_at = created_at - interval '20 hours 1 second'")
    await auto_topup.sweep(pool, settings)
    [row] = await pool.fetch(ROWS)
    assert (row["state"], row["reason"]) == ("failed", "Stripe did not answer")
    assert len(stripe.intents()) == 1
    shown = await rule(door, key)
    assert (shown["month_micros"], shown["enabled"], shown["declines"]) == (0, True, 0)


async def test_three_declines_in_a_row_switch_it_off(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """With a pause after each; a declined charge counts against no ceiling; setting the rule starts anew."""
    stripe.card = "insufficient_funds"
    for declines in (1, 2, 3):
        await auto_topup.sweep(pool, settings)
        await deliver(door, stripe)
        await auto_topup.sweep(pool, settings)
        shown = await rule(door, key)
        assert (shown["declines"], shown["month_micros"]) == (declines, 0)
        await pool.execute(HOUR_LATER)
    assert shown["enabled"] is False
    assert shown["disabled_reason"] == "3 declines in a row: insufficient_funds"
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["failed"] * 3
    stripe.card = "fine"
    assert (await door.ask("PUT", PATH, RULE, key=key))[1]["enabled"] is True
    await auto_topup.sweep(pool, settings)
    await deliver(door, stripe)
    assert await balance(door, key) == 11 * USD


async def test_a_payment_between_declines_forgets_them(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """Only declines in a row count."""
    for card in ("do_not_honor", "do_not_honor", "fine", "do_not_honor"):
        stripe.card = card
        await auto_topup.sweep(pool, settings)
        await deliver(door, stripe)
        await spend(pool, door, key, 10)
        await pool.execute(HOUR_LATER)
    shown = await rule(door, key)
    assert (shown["declines"], shown["enabled"]) == (1, True)


async def test_a_bank_that_wants_to_see_the_customer_switches_it_off(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """At once: trying again cannot help while nobody is there."""
    stripe.card = "authentication_required"
    await auto_topup.sweep(pool, settings)
    shown = await rule(door, key)
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "requires_action")
    await deliver(door, stripe)
    assert await rule(door, key) == shown


async def test_a_card_that_stripe_no_longer_has_switches_it_off(
    door: Door, pool: Pool, settings: Settings, key: str
) -> None:
    """The customer detached it; the reason is Stripe's word for it."""
    await pool.execute("UPDATE saved_payment_methods SET payment_method_id = 'pm_gone'")
    await auto_topup.sweep(pool, settings)
    shown = await rule(door, key)
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "resource_missing")


async def test_a_slow_bank_is_waited_for(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """A debit that takes days stays the account's only one; if it fails in the end, that is a decline."""
    stripe.card = "slow"
    await auto_topup.sweep(pool, settings)
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["charged"]
    slow = stripe.intents()[-1]
    error = {"type": "card_error", "code": "insufficient_funds"}
    slow |= {"status": "requires_payment_method", "last_payment_error": error}
    assert await send(door, stripe.event("payment_intent.payment_failed", slow)) == 200
    assert await states(pool) == ["failed"]
    assert (await rule(door, key))["declines"] == 1


async def test_a_success_told_late_wins_over_a_failure(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """Events come in any order: what is paid is credited, and its failure before that is history."""
    stripe.card = "slow"
    await auto_topup.sweep(pool, settings)
    slow = stripe.intents()[-1]
    failed = stripe.event("payment_intent.payment_failed", slow)
    slow |= {"status": "succeeded", "amount_received": slow["amount"]}
    succeeded = stripe.event("payment_intent.succeeded", slow)
    for event in (failed, succeeded, stripe.event("payment_intent.payment_failed", slow)):
        assert await send(door, event) == 200
    assert await states(pool) == ["credited"]
    assert await balance(door, key) == 11 * USD


async def test_switching_off_stops_what_was_not_sent(
    door: Door, stripe: StripeDouble, pool: Pool, settings: Settings, key: str
) -> None:
    """A decision that no worker has taken up is dropped; without a rule there is nothing to show."""
    [account] = [row["account_id"] for row in await pool.fetch("SELECT account_id FROM wallets")]
    assert await pool.fetchval("SELECT open_auto_topup_v1($1, gen_random_uuid())", account)
    assert (await door.ask("DELETE", PATH, key=key))[0] == 200
    await auto_topup.sweep(pool, settings)
    assert await states(pool) == ["failed"]
    assert len(stripe.intents()) == 1
    for method in ("GET", "DELETE"):
        assert (await door.ask(method, PATH, key=key))[0] == 404
