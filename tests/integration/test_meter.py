"""The meter on a real Postgres: no concurrency, repetition or overrun passes a cap or charges twice."""

import asyncio
import uuid

import pytest

from qlaud_actors.billing import meter, report
from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.billing.model import Charge, Hold, Settlement
from qlaud_actors.billing.presence import present, release_abandoned
from qlaud_actors.billing.report import Selection, Span
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import SpendCapReached
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.fallback import Attempt
from qlaud_actors.usage import Price, Rates, Usage, WorstCase

ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")
MICRO = 1_000
PRICE = Price(Rates(1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000), (), "test/m@2026-11-24")
ALWAYS = Span(0, 4_102_444_800_000)


async def new_key(pool: Pool, limit_nanos: int | None) -> uuid.UUID:
    key = new_uuid()
    await pool.execute(
        "INSERT INTO keys (id, account_id, name, scope, prefix) VALUES ($1, $2, 'k', 'standard', 'p')",
        key,
        ACCOUNT,
    )
    await pool.execute("INSERT INTO budgets (key_id, limit_nanos) VALUES ($1, $2)", key, limit_nanos)
    return key


async def budget(pool: Pool, key: uuid.UUID) -> tuple[int, int]:
    """Spent and held, in nano-USD."""
    row = await pool.fetchrow("SELECT spent_nanos, held_nanos FROM budgets WHERE key_id = $1", key)
    assert row is not None
    return row["spent_nanos"], row["held_nanos"]


def call(input_bound: int = 1_000, max_tokens: int = 1_000, price: Price = PRICE) -> WorstCase:
    return WorstCase(price, input_bound, max_tokens, markup_bps=700)


def charge(key: uuid.UUID, usage: Usage, turn: uuid.UUID | None = None, step: int | None = None) -> Charge:
    return Charge(ACCOUNT, key, turn, step, "ada", "m", "p", usage, PRICE, 700, 12, 200)


async def settle(pool: Pool, hold_id: uuid.UUID, cost: Charge) -> Settlement | None:
    async with pool.acquire() as connection, connection.transaction():
        return await meter.settle(connection, hold_id, cost)


async def test_concurrent_holds_never_pass_the_cap(pool: Pool) -> None:
    """Of 200 calls at once exactly those are held whose worst cases fit together."""
    worst = call()
    key = await new_key(pool, 10 * worst.nanos() + 1)
    results = await asyncio.gather(
        *(meter.hold(pool, key, None, worst, floor_tokens=1_000) for _ in range(200)), return_exceptions=True
    )
    held = [result for result in results if isinstance(result, Hold)]
    refused = [result for result in results if isinstance(result, SpendCapReached)]
    assert len(held) == 10
    assert len(refused) == 190
    assert await budget(pool, key) == (0, 10 * worst.nanos())


async def test_whole_calls_in_a_race_never_pass_the_cap(pool: Pool) -> None:
    """200 calls that hold, use all they may and settle: the sum stays within, and nothing stays held."""
    worst = call()
    limit = 20 * worst.nanos() + worst.nanos() // 2
    key = await new_key(pool, limit)

    async def run(number: int) -> int:
        try:
            hold = await meter.hold(pool, key, None, worst, floor_tokens=64)
        except SpendCapReached:
            return 0
        if number % 3 == 0:
            await meter.release(pool, [hold.id])
            return 0
        # All of the input as a one-hour cache write, the dearest that this price knows.
        used = Usage(cache_write_1h=1_000, output=hold.max_tokens)
        settled = await settle(pool, hold.id, charge(key, used))
        assert settled is not None
        assert settled.overrun_nanos == 0
        return settled.charged_nanos

    charged = sum(await asyncio.gather(*(run(number) for number in range(200))))
    spent, held = await budget(pool, key)
    assert held == 0
    assert spent == charged <= limit
    assert spent == await pool.fetchval("SELECT sum(cost_nanos)::bigint FROM usage_events")


async def test_the_last_money_is_usable(pool: Pool) -> None:
    """What does not fit is clamped to what is left; only below the floor is it refused."""
    worst = call(max_tokens=100_000)
    least = worst.with_max_tokens(64).nanos()
    key = await new_key(pool, least)
    hold = await meter.hold(pool, key, None, worst, floor_tokens=64)
    assert 64 <= hold.max_tokens < 100_000
    assert worst.with_max_tokens(hold.max_tokens).nanos() <= hold.amount_nanos == least
    poorer = await new_key(pool, least - 1)
    with pytest.raises(SpendCapReached):
        await meter.hold(pool, poorer, None, worst, floor_tokens=64)


async def test_a_short_answer_has_a_floor_of_its_own(pool: Pool) -> None:
    """A call that asks for less than the floor needs no more than what it asks for."""
    worst = call(max_tokens=10)
    key = await new_key(pool, worst.nanos())
    assert (await meter.hold(pool, key, None, worst, floor_tokens=64)).max_tokens == 10


async def test_without_a_cap_all_is_held(pool: Pool) -> None:
    """No limit, no clamp; the hold is still counted."""
    key = await new_key(pool, None)
    worst = call(max_tokens=200_000)
    hold = await meter.hold(pool, key, None, worst, floor_tokens=64)
    assert (hold.amount_nanos, hold.max_tokens) == (worst.nanos(), 200_000)
    assert await budget(pool, key) == (0, worst.nanos())


async def test_a_cap_of_zero_refuses_even_what_is_free(pool: Pool) -> None:
    """A model without a price is not a way around a cap of 0."""
    free = call(price=Price(Rates(0, 0, 0, 0, 0), (), "free@1"))
    key = await new_key(pool, 0)
    with pytest.raises(SpendCapReached):
        await meter.hold(pool, key, None, free, floor_tokens=64)


async def test_a_refusal_tells_its_figures(pool: Pool) -> None:
    """Limit, spent, held and needed; retryable exactly when only other calls' holds are in the way."""
    worst = call()
    key = await new_key(pool, worst.nanos())
    first = await meter.hold(pool, key, None, worst, floor_tokens=1_000)
    with pytest.raises(SpendCapReached, match="key_cap_exceeded") as caught:
        await meter.hold(pool, key, None, worst, floor_tokens=1_000)
    micros = -(-worst.nanos() // MICRO)
    assert caught.value.details == {
        "scope": "key",
        "limit_micros": micros,
        "spent_micros": 0,
        "held_micros": micros,
        "needed_micros": micros,
        "resets_at": None,
        "retryable": True,
    }
    await settle(pool, first.id, charge(key, Usage(input=10, output=10)))
    with pytest.raises(SpendCapReached) as caught:
        await meter.hold(pool, key, None, worst, floor_tokens=1_000)
    assert caught.value.details["retryable"] is False
    assert caught.value.details["held_micros"] == 0


async def test_settling_twice_charges_once(pool: Pool) -> None:
    """A call is charged once, however often that is asked for, and each time told what it was charged."""
    key = await new_key(pool, 10**12)
    hold = await meter.hold(pool, key, None, call(), floor_tokens=64)
    used = charge(key, Usage(input=1_000, output=1_000))
    results = await asyncio.gather(*(settle(pool, hold.id, used) for _ in range(10)))
    cost = charge_nanos(PRICE.cost_picos(used.usage), 700)
    assert results == [Settlement(cost, 0)] * 10
    assert await budget(pool, key) == (cost, 0)
    assert await pool.fetchval("SELECT count(*) FROM usage_events") == 1


async def test_a_step_is_charged_once_whoever_took_it(pool: Pool) -> None:
    """A second hold for a step that was metered before is given back without a charge."""
    key, turn = await new_key(pool, 10**12), new_uuid()
    used = Usage(input=100, output=100)
    first = await meter.hold(pool, key, turn, call(), floor_tokens=64)
    assert await settle(pool, first.id, charge(key, used, turn, 1)) is not None
    spent, _ = await budget(pool, key)
    again = await meter.hold(pool, key, turn, call(), floor_tokens=64)
    assert await settle(pool, again.id, charge(key, used, turn, 1)) is None
    assert await budget(pool, key) == (spent, 0)
    other = await meter.hold(pool, key, turn, call(), floor_tokens=64)
    assert await settle(pool, other.id, charge(key, used, turn, 2)) is not None
    assert await budget(pool, key) == (2 * spent, 0)


async def test_a_step_is_charged_once_in_a_race(pool: Pool) -> None:
    """Settlements of the same step at the same time, each with its own hold: one charge, nothing held."""
    key, turn = await new_key(pool, 10**12), new_uuid()
    holds = [await meter.hold(pool, key, turn, call(), floor_tokens=64) for _ in range(8)]
    used = charge(key, Usage(input=100, output=100), turn, 1)
    settled = await asyncio.gather(*(settle(pool, hold.id, used) for hold in holds))
    (only,) = [settlement for settlement in settled if settlement]
    assert await budget(pool, key) == (only.charged_nanos, 0)
    assert await pool.fetchval("SELECT sum(cost_nanos)::bigint FROM usage_events") == only.charged_nanos


async def test_releasing_twice_releases_once(pool: Pool) -> None:
    """Each hold comes back exactly once, also when released from many places at the same time."""
    key = await new_key(pool, 10**12)
    holds = [await meter.hold(pool, key, None, call(), floor_tokens=64) for _ in range(3)]
    ids = [hold.id for hold in holds]
    counts = await asyncio.gather(*(meter.release(pool, ids[:2]) for _ in range(10)))
    assert sum(counts) == 2
    assert await budget(pool, key) == (0, holds[2].amount_nanos)


async def test_a_call_that_was_given_up_is_charged_all_the_same(pool: Pool) -> None:
    """Whoever comes first, the hold is gone once, and what was used is charged once."""
    key = await new_key(pool, 10**12)
    used = charge(key, Usage(input=1_000, output=1_000))
    for _ in range(10):
        before, _ = await budget(pool, key)
        hold = await meter.hold(pool, key, None, call(), floor_tokens=64)
        settled, released = await asyncio.gather(settle(pool, hold.id, used), meter.release(pool, [hold.id]))
        assert settled is not None
        assert released in (0, 1)
        assert await budget(pool, key) == (before + settled.charged_nanos, 0)


async def test_a_late_charge_passes_no_cap(pool: Pool) -> None:
    """A call whose hold was given back to others gets what these leave; the rest is the operator's."""
    worst = call(input_bound=10, max_tokens=10)
    key = await new_key(pool, worst.nanos() + 5)
    late = await meter.hold(pool, key, None, worst, floor_tokens=1)
    await meter.release(pool, [late.id])
    other = await meter.hold(pool, key, None, worst, floor_tokens=1)
    used = charge(key, Usage(input=10, output=10))
    rated = charge_nanos(PRICE.cost_picos(used.usage), 700)
    assert await settle(pool, late.id, used) == Settlement(5, rated - 5)
    assert await budget(pool, key) == (5, other.amount_nanos)


async def test_an_overrun_is_not_the_keys(pool: Pool) -> None:
    """What a provider bills past the limit is recorded beside the charge, which stops at the limit."""
    worst = call(input_bound=10, max_tokens=10)
    key = await new_key(pool, worst.nanos() + 5)
    hold = await meter.hold(pool, key, None, worst, floor_tokens=1)
    used = charge(key, Usage(input=10_000, output=10_000))
    settled = await settle(pool, hold.id, used)
    rated = charge_nanos(PRICE.cost_picos(used.usage), 700)
    assert settled == Settlement(worst.nanos() + 5, rated - worst.nanos() - 5)
    assert await budget(pool, key) == (worst.nanos() + 5, 0)
    row = await pool.fetchrow("SELECT cost_nanos, overrun_nanos FROM usage_events")
    assert row is not None
    assert tuple(row) == (settled.charged_nanos, settled.overrun_nanos)


async def test_an_overrun_leaves_other_holds_alone(pool: Pool) -> None:
    """It is charged only from what nobody else has set aside."""
    worst = call()
    key = await new_key(pool, 2 * worst.nanos())
    mine, other = [await meter.hold(pool, key, None, worst, floor_tokens=1_000) for _ in range(2)]
    await settle(pool, mine.id, charge(key, Usage(output=100_000)))
    full = charge(key, Usage(cache_write_1h=1_000, output=1_000))
    settled = await settle(pool, other.id, full)
    assert settled == Settlement(worst.nanos(), 0)
    assert await budget(pool, key) == (2 * worst.nanos(), 0)


async def test_a_rollback_takes_all_of_a_settlement_back(pool: Pool) -> None:
    """Usage row, charge and hold stand and fall with the caller's transaction."""
    key = await new_key(pool, 10**12)
    hold = await meter.hold(pool, key, None, call(), floor_tokens=64)

    async def fail_after_settling() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await meter.settle(connection, hold.id, charge(key, Usage(input=1)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_settling()
    assert await budget(pool, key) == (0, hold.amount_nanos)
    assert await pool.fetchval("SELECT count(*) FROM usage_events") == 0


async def test_reports_agree_with_the_budget(pool: Pool) -> None:
    """By key, by model, by row and in the budget it is the same money."""
    keys = [await new_key(pool, None) for _ in range(2)]
    for number in range(6):
        hold = await meter.hold(pool, keys[number % 2], None, call(), floor_tokens=64)
        await settle(pool, hold.id, charge(keys[number % 2], Usage(input=7 * number, output=3, cache_read=1)))
    whole = await report.account_usage(pool, Selection(ACCOUNT, ALWAYS))
    spent = [(await budget(pool, key))[0] for key in keys]
    assert whole["request_count"] == 6
    assert whole["total_cost_micros"] == -(-sum(spent) // MICRO)
    assert {row["key_id"]: row["cost_micros"] for row in whole["by_key"]} == {
        str(key): -(-nanos // MICRO) for key, nanos in zip(keys, spent, strict=True)
    }
    assert [row["model_slug"] for row in whole["by_model"]] == ["m"]
    one = await report.key_usage(pool, Selection(ACCOUNT, ALWAYS, keys[0]))
    assert one["cost_micros"] == -(-spent[0] // MICRO)
    assert one["by_model"][0]["model"] == one["by_model"][0]["model_slug"] == "m"
    assert len(one["events"]) == one["request_count"] == 3
    newest = [event["created_at"] for event in one["events"]]
    assert newest == sorted(newest, reverse=True)
    assert one["events"][0]["price_version"] == PRICE.version
    assert one["events"][0]["user_id"] == str(ACCOUNT)


async def test_a_report_shows_the_newest_hundred_rows(pool: Pool) -> None:
    """`events` is bounded, the sums are not."""
    key = await new_key(pool, None)
    for step in range(103):
        hold = await meter.hold(pool, key, None, call(), floor_tokens=64)
        await settle(pool, hold.id, charge(key, Usage(input=step)))
    usage = await report.key_usage(pool, Selection(ACCOUNT, ALWAYS, key))
    assert usage["request_count"] == 103
    assert [event["input_tokens"] for event in usage["events"]] == list(range(102, 2, -1))


async def test_a_step_that_is_being_charged_is_not_charged_beside_it(pool: Pool) -> None:
    """A second settlement that began before the first was committed waits, then gives its hold back."""
    key, turn = await new_key(pool, 10**12), new_uuid()
    first, second = [await meter.hold(pool, key, turn, call(), floor_tokens=64) for _ in range(2)]
    used = charge(key, Usage(input=100, output=100), turn, 1)
    async with pool.acquire() as connection, connection.transaction():
        settled = await meter.settle(connection, first.id, used)
        assert settled is not None
        waiting = asyncio.create_task(settle(pool, second.id, used))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
    assert await waiting is None
    assert await budget(pool, key) == (settled.charged_nanos, 0)
    assert await pool.fetchval("SELECT count(*) FROM usage_events") == 1


async def test_a_hold_follows_its_call_to_another_candidate(pool: Pool) -> None:
    """More or less is held for the same call; a refusal leaves nothing held."""
    small, large = call(10, 10), call(10, 1_000)
    key = await new_key(pool, large.nanos())
    hold = await meter.hold(pool, key, None, small, 10)
    more = await meter.change_hold(pool, hold.id, key, None, large, 1_000)
    assert (more.id, more.amount_nanos) == (hold.id, large.nanos())
    less = await meter.change_hold(pool, hold.id, key, None, small, 10)
    assert await budget(pool, key) == (0, less.amount_nanos)
    with pytest.raises(SpendCapReached) as refused:
        await meter.change_hold(pool, hold.id, key, None, call(10, 2_000), 2_000)
    assert refused.value.details["held_micros"] == 0
    assert await budget(pool, key) == (0, 0)
    assert (await meter.change_hold(pool, hold.id, key, None, small, 10)).id == hold.id


async def test_a_dead_process_loses_its_holds(pool: Pool) -> None:
    """They are given back once it was silent for too long; those of the living and of turns stay."""
    key, (living, dead) = await new_key(pool, None), (new_uuid(), new_uuid())
    async with present(pool, living, 60.0):
        kept = await meter.hold(pool, key, None, call(), 1, owner=living)
        of_turn = await meter.hold(pool, key, new_uuid(), call(), 1)
        lost = [await meter.hold(pool, key, None, call(), 1, owner=owner) for owner in (dead, None)]
        await pool.execute(QUERIES.stay_alive, dead, -1.0)
        assert await release_abandoned(pool) == len(lost)
        assert await release_abandoned(pool) == 0
        assert {row["id"] for row in await pool.fetch("SELECT id FROM holds")} == {kept.id, of_turn.id}
        assert await budget(pool, key) == (0, kept.amount_nanos + of_turn.amount_nanos)
    assert await release_abandoned(pool) == 1


async def test_attempts_that_failed_are_rows(pool: Pool) -> None:
    """In their order, beside the usage event of who answered; written twice they are there once."""
    key, call_id = await new_key(pool, None), new_uuid()
    told = [Attempt("a", "m", 529, 12, "provider_overloaded"), Attempt("b", "m", 200, 40)]
    told.insert(1, Attempt("c", "n", 402, 1, "key_cap_exceeded"))
    for _ in range(2):
        await meter.note_attempts(pool, call_id, key, told)
    rows = await pool.fetch("SELECT number, provider_slug, status, error FROM attempts ORDER BY number")
    assert [tuple(row) for row in rows] == [
        (1, "a", 529, "provider_overloaded"),
        (2, "c", 402, "key_cap_exceeded"),
    ]
