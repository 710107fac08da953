"""Wallets, the ledger and cap periods on a real Postgres."""

import asyncio
import contextlib
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qlaud_actors.billing import ledger, meter, wallet
from qlaud_actors.billing.ledger import Entry
from qlaud_actors.billing.model import Charge, Hold, Settlement
from qlaud_actors.billing.wallet import Account, Billing
from qlaud_actors.db.pool import DatabaseError, Pool
from qlaud_actors.errors import BudgetRefused, SpendCapReached, WalletEmpty
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import accounts, lifecycle
from qlaud_actors.keys.accounts import NewAccount
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import ApiKey, CapPeriod
from qlaud_actors.usage import Price, Rates, Usage, WorstCase

PRICE = Price(Rates(1_000, 1_000, 1_000, 1_000, 1_000), (), "test/m@2026-11-24")
"""One nano-USD per token, without markup: what a call may cost is its tokens."""
HOLD_AT = """SELECT * FROM place_holds_v1(
    ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[NULL::uuid], NULL, ARRAY[$3::bigint], ARRAY[$4::bigint],
    ARRAY[NULL::bytea], ARRAY[NULL::bigint], $5)"""


def call(nanos: int) -> WorstCase:
    return WorstCase(PRICE, 0, nanos, markup_bps=0)


async def account(pool: Pool, nanos: int, billing: Billing = "prepaid") -> tuple[Account, ApiKey]:
    """An account that was given so much, and its admin key, which has no cap."""
    made, key, _ = await accounts.create(pool, NewAccount("acme", billing, nanos))
    return made, key


async def capped(pool: Pool, owner: Account, limit: int | None, period: CapPeriod = "lifetime") -> ApiKey:
    key, _ = await lifecycle.mint(pool, owner.id, NewKey("k", limit_nanos=limit, cap_period=period))
    return key


async def hold(pool: Pool, key: ApiKey, nanos: int, floor: int | None = None) -> Hold:
    return await meter.hold(pool, key.id, None, call(nanos), nanos if floor is None else floor)


async def settle(pool: Pool, key: ApiKey, held: uuid.UUID, nanos: int) -> Settlement | None:
    used = Usage(output=nanos)
    cost = Charge(key.account_id, key.id, None, None, None, "m", "p", used, PRICE, 0, 1, 200)
    async with pool.acquire() as connection, connection.transaction():
        return await meter.settle(connection, held, cost)


async def budget(pool: Pool, key: ApiKey) -> tuple[int, int]:
    """Spent and held in the present window."""
    now = await lifecycle.get_key(pool, key.account_id, key.id)
    return now.spent_nanos, now.held_nanos


async def check_books(pool: Pool, owner: Account) -> int:
    """Every way to know the account's money gives the same; returns the balance."""
    row = await pool.fetchrow(
        "SELECT (SELECT COALESCE(sum(amount_nanos), 0) FROM ledger_entries WHERE account_id = $1)::bigint"
        " AS ledger, account_balance_v1($1) AS computed,"
        " (SELECT COALESCE(sum(cost_nanos), 0) FROM usage_events WHERE account_id = $1)::bigint AS used,"
        " (SELECT COALESCE(-sum(amount_nanos), 0) FROM ledger_entries"
        "   WHERE account_id = $1 AND kind = 'usage')::bigint AS debited,"
        " (SELECT held_nanos FROM wallets WHERE account_id = $1) AS wallet_held,"
        " (SELECT COALESCE(sum(amount_nanos), 0) FROM holds h JOIN keys k ON k.id = h.key_id"
        "   WHERE k.account_id = $1 AND from_wallet)::bigint AS holds",
        owner.id,
    )
    assert row is not None
    shown = (await wallet.get_account(pool, owner.id)).balance_nanos
    assert row["ledger"] == row["computed"] == shown
    assert row["used"] == row["debited"]
    assert row["wallet_held"] in (None, row["holds"])
    return shown


async def test_a_prepaid_account_spends_what_it_has_and_no_more(pool: Pool) -> None:
    """Held, settled, and at zero refused with the wallet's figures, also what costs nothing."""
    owner, key = await account(pool, 1_000)
    first = await hold(pool, key, 700)
    assert (await hold(pool, key, 700, floor=10)).max_tokens == 300
    assert await settle(pool, key, first.id, 700) == Settlement(700, 0)
    with pytest.raises(WalletEmpty, match="wallet_exhausted") as caught:
        await hold(pool, key, 700, floor=200)
    assert caught.value.status == 402
    assert caught.value.details == {
        "scope": "wallet",
        "limit_micros": 1,
        "spent_micros": 0,
        "held_micros": 1,
        "needed_micros": 1,
        "resets_at": None,
        "retryable": True,
    }
    [rest] = await pool.fetch("SELECT id FROM holds")
    assert await settle(pool, key, rest["id"], 300) == Settlement(300, 0)
    assert await check_books(pool, owner) == 0
    free = WorstCase(Price(Rates(0, 0, 0, 0, 0), (), "free@1"), 0, 1, 0)
    with pytest.raises(WalletEmpty) as caught:
        await meter.hold(pool, key.id, None, free, 1)
    assert caught.value.details["retryable"] is False
    with pytest.raises(WalletEmpty):
        lifecycle.precheck(await lifecycle.get_key(pool, owner.id, key.id))


async def test_the_smaller_of_cap_and_wallet_decides(pool: Pool) -> None:
    """A hold is what both afford; the refusal names the one that refused."""
    owner, _ = await account(pool, 1_000)
    poor, rich = await capped(pool, owner, 300), await capped(pool, owner, 5_000)
    assert (await hold(pool, poor, 9_999, floor=1)).amount_nanos == 300
    with pytest.raises(SpendCapReached) as of_key:
        await hold(pool, poor, 1)
    assert of_key.value.details["scope"] == "key"
    assert (await hold(pool, rich, 9_999, floor=1)).amount_nanos == 700
    with pytest.raises(WalletEmpty):
        await hold(pool, rich, 1)
    await check_books(pool, owner)


async def test_keys_that_share_a_wallet_never_overdraw_it(pool: Pool) -> None:
    """200 calls at once on four keys: the wallet ends at what they left, to the nano-dollar."""
    owner, _ = await account(pool, 10_000)
    keys = [await capped(pool, owner, limit) for limit in (None, 1_500, 4_000, None)]
    least: list[int] = []

    async def run(number: int) -> int:
        key = keys[number % 4]
        try:
            held = await hold(pool, key, 300, floor=50)
        except BudgetRefused:
            return 0
        least.append(await pool.fetchval("SELECT min(balance_nanos - held_nanos) FROM wallets"))
        if number % 5 == 0:
            await asyncio.gather(*(meter.release(pool, [held.id]) for _ in range(2)))
            return 0
        settled = await settle(pool, key, held.id, held.max_tokens if number % 2 else 400)
        assert settled is not None
        return settled.charged_nanos

    charged = sum(await asyncio.gather(*(run(number) for number in range(200))))
    assert min(least) >= 0
    assert await check_books(pool, owner) == 10_000 - charged >= 0
    for key, limit in zip(keys, (10_000, 1_500, 4_000, 10_000), strict=True):
        spent, held = await budget(pool, key)
        assert held == 0
        assert spent <= limit


@pytest.mark.parametrize("seed", range(3))
async def test_books_stay_balanced_whatever_happens(pool: Pool, seed: int) -> None:
    """Random holds, settlements, releases, credits, refunds and changes of billing and period."""
    chance = random.Random(seed)
    owner, _ = await account(pool, 3_000)
    keys = [await capped(pool, owner, 2_000, "day"), await capped(pool, owner, None)]
    open_holds: list[tuple[ApiKey, uuid.UUID]] = []

    async def step(number: int) -> None:
        key = chance.choice(keys)
        action = chance.choices(
            ["hold", "settle", "release", "credit", "billing", "period"], [9, 6, 3, 1, 1, 1]
        )
        match action:
            case ["hold"]:
                with contextlib.suppress(BudgetRefused):
                    open_holds.append((key, (await hold(pool, key, chance.randint(1, 900), 1)).id))
            case ["settle"] if open_holds:
                of, hold_id = open_holds.pop(chance.randrange(len(open_holds)))
                await settle(pool, of, hold_id, chance.randint(0, 1_200))
            case ["release"] if open_holds:
                _, hold_id = open_holds[chance.randrange(len(open_holds))]
                await meter.release(pool, [hold_id, new_uuid()])
            case ["credit"]:
                amount = chance.randint(-300, 800)
                await ledger.post(pool, Entry(owner.id, "adjustment", amount, f"a{number}", "test"))
            case ["billing"]:
                await wallet.set_billing(pool, owner.id, chance.choice(["prepaid", "postpaid"]))
            case ["period"]:
                await lifecycle.set_cap_period(pool, keys[0], chance.choice(["day", "month", "lifetime"]))

    for batch in range(30):
        await asyncio.gather(*(step(batch * 8 + number) for number in range(8)))
        await check_books(pool, owner)
        spent, held = await budget(pool, keys[0])
        assert spent + held <= 2_000
        held_rows = await pool.fetchval(
            "SELECT COALESCE(sum(amount_nanos), 0)::bigint FROM holds WHERE key_id = $1", keys[0].id
        )
        assert held == held_rows


async def test_a_postpaid_account_goes_below_zero(pool: Pool) -> None:
    """Its ledger is written all the same, and no row of the account is shared by its keys."""
    owner, key = await account(pool, 100, "postpaid")
    held = await hold(pool, key, 700)
    await settle(pool, key, held.id, 700)
    assert await check_books(pool, owner) == -600
    assert await pool.fetchval("SELECT count(*) FROM wallets") == 0


async def test_postpaid_keys_do_not_wait_for_each_other(pool: Pool) -> None:
    """One key's settlement in an open transaction does not stop another key of the account."""
    owner, _ = await account(pool, 0, "postpaid")
    one, other = await capped(pool, owner, None), await capped(pool, owner, None)
    held = await hold(pool, one, 5)
    cost = Charge(owner.id, one.id, None, None, None, "m", "p", Usage(output=5), PRICE, 0, 1, 200)
    async with pool.acquire() as connection, connection.transaction():
        assert await meter.settle(connection, held.id, cost)
        second = await asyncio.wait_for(hold(pool, other, 7), 5)
        assert await asyncio.wait_for(settle(pool, other, second.id, 7), 5)
    assert await check_books(pool, owner) == -12


async def test_the_balance_survives_a_change_of_billing(pool: Pool) -> None:
    """With holds in flight in both directions, none of which is given back twice or never."""
    owner, key = await account(pool, 1_000)
    first = await hold(pool, key, 400)
    await wallet.set_billing(pool, owner.id, "postpaid")
    second = await hold(pool, key, 500)
    await wallet.set_billing(pool, owner.id, "prepaid")
    third = await hold(pool, key, 100)
    await settle(pool, key, first.id, 400)
    await meter.release(pool, [second.id, third.id])
    assert await check_books(pool, owner) == 600
    assert await pool.fetchval("SELECT held_nanos FROM wallets") == 0


async def test_a_refund_of_spent_money_leaves_a_debt(pool: Pool) -> None:
    """What is in flight is still charged; then everything is refused until it is paid."""
    owner, key = await account(pool, 1_000)
    held = await hold(pool, key, 1_000)
    await ledger.post(pool, Entry(owner.id, "refund", -800, "r", "pi_1"))
    assert await settle(pool, key, held.id, 1_000) == Settlement(1_000, 0)
    assert await check_books(pool, owner) == -800
    with pytest.raises(WalletEmpty):
        await hold(pool, key, 1)
    await ledger.post(pool, Entry(owner.id, "topup", 900, "t", "pi_2"))
    assert (await hold(pool, key, 100)).amount_nanos == 100


async def test_an_entry_is_written_once_per_key(pool: Pool) -> None:
    """From many places at once, too."""
    owner, _ = await account(pool, 0)
    entry = Entry(owner.id, "topup", 5, "topup:pi_1", "pi_1")
    written = await asyncio.gather(*(ledger.post(pool, entry) for _ in range(20)))
    assert sum(written) == 1
    assert await check_books(pool, owner) == 5


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entries SET amount_nanos = 0",
        "DELETE FROM ledger_entries",
        "TRUNCATE ledger_entries",
    ],
)
async def test_the_ledger_is_append_only(pool: Pool, statement: str) -> None:
    """Not even the owner of the table changes it by accident."""
    await account(pool, 5)
    with pytest.raises(DatabaseError, match="append-only"):
        await pool.execute(statement)


async def test_the_ledger_is_read_page_by_page(pool: Pool) -> None:
    """Newest first, no entry twice, until there is no further page."""
    owner, _ = await account(pool, 1)
    for number in range(6):
        await ledger.post(pool, Entry(owner.id, "credit", number + 2, f"c{number}", "test"))
    pages: list[dict[str, Any]] = []
    before = None
    while not pages or before:
        pages.append(await ledger.page(pool, owner.id, before, 3))
        before = pages[-1]["next_before"] and uuid.UUID(pages[-1]["next_before"])
    assert [len(page["entries"]) for page in pages] == [3, 3, 1]
    entries = [entry for page in pages for entry in page["entries"]]
    assert sorted(entry["amount_nanos"] for entry in entries) == [1, 2, 3, 4, 5, 6, 7]
    assert entries == sorted(entries, key=lambda entry: entry["id"], reverse=True)


# --- cap periods ---

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
"""A Saturday."""


async def hold_at(pool: Pool, key: ApiKey, nanos: int, at: datetime) -> tuple[uuid.UUID, Any]:
    hold_id = new_uuid()
    return hold_id, await pool.fetchrow(HOLD_AT, hold_id, key.id, nanos, nanos, at)


async def raw_budget(pool: Pool, key: ApiKey) -> tuple[int, int]:
    row = await pool.fetchrow("SELECT spent_nanos, held_nanos FROM budgets WHERE key_id = $1", key.id)
    assert row is not None
    return row["spent_nanos"], row["held_nanos"]


@pytest.mark.parametrize(
    ("period", "last", "first", "resets"),
    [
        ("day", "2026-01-31T23:59:59.999", "2026-02-01T00:00", "2026-02-01"),
        ("week", "2026-02-01T23:59:59.999", "2026-02-02T00:00", "2026-02-02"),
        ("month", "2026-01-31T23:59:59.999", "2026-02-01T00:00", "2026-02-01"),
    ],
)
async def test_a_cap_begins_anew_with_its_period(
    pool: Pool, period: CapPeriod, last: str, first: str, resets: str
) -> None:
    """To the moment, by the UTC calendar; the refusal says when."""
    await pool.execute("SET timezone = 'Pacific/Auckland'")
    owner, _ = await account(pool, 0, "postpaid")
    key = await capped(pool, owner, 100, period)
    hold_id, row = await hold_at(pool, key, 100, NOON)
    assert row["granted"] == 100
    await settle(pool, key, hold_id, 100)
    _, row = await hold_at(pool, key, 1, datetime.fromisoformat(last).replace(tzinfo=UTC))
    assert (row["granted"], row["scope"], row["spent_nanos"]) == (None, "key", 100)
    assert row["resets_at_ms"] == datetime.fromisoformat(resets).replace(tzinfo=UTC).timestamp() * 1000
    _, row = await hold_at(pool, key, 100, datetime.fromisoformat(first).replace(tzinfo=UTC))
    assert row["granted"] == 100
    assert await raw_budget(pool, key) == (0, 100)


@pytest.mark.parametrize("settled", [True, False])
async def test_a_hold_of_a_passed_period_counts_there_only(pool: Pool, settled: bool) -> None:
    """Settled or released later, it leaves the new period's budget alone; the money is charged once."""
    owner, _ = await account(pool, 1_000)
    key = await capped(pool, owner, 100, "day")
    old, row = await hold_at(pool, key, 100, NOON)
    assert row["granted"] == 100
    new, row = await hold_at(pool, key, 60, NOON + timedelta(days=1))
    assert row["granted"] == 60
    if settled:
        assert await settle(pool, key, old, 150) == Settlement(100, 50)
    else:
        assert await meter.release(pool, [old, old]) == 1
    assert await meter.release(pool, [old]) == 0
    assert await raw_budget(pool, key) == (0, 60)
    assert await settle(pool, key, new, 60) == Settlement(60, 0)
    assert await raw_budget(pool, key) == (60, 0)
    assert await check_books(pool, owner) == (840 if settled else 940)


async def test_a_clock_that_is_behind_opens_no_old_period(pool: Pool) -> None:
    """Around midnight transactions overlap; the newer window stays, and nothing is forgotten."""
    owner, _ = await account(pool, 0, "postpaid")
    key = await capped(pool, owner, 100, "day")
    await hold_at(pool, key, 70, NOON + timedelta(days=1))
    _, row = await hold_at(pool, key, 70, NOON)
    assert row["granted"] is None
    assert await raw_budget(pool, key) == (0, 70)


async def test_a_key_shows_the_present_period(pool: Pool) -> None:
    """Spend of a passed period is not shown, though nothing has begun the new one."""
    owner, _ = await account(pool, 0, "postpaid")
    key = await capped(pool, owner, 100, "month")
    hold_id, _ = await hold_at(pool, key, 80, NOON)
    await settle(pool, key, hold_id, 80)
    assert await raw_budget(pool, key) == (80, 0)
    assert await budget(pool, key) == (0, 0)
    lifecycle.precheck(await lifecycle.get_key(pool, owner.id, key.id))
    now = await lifecycle.get_key(pool, owner.id, key.id)
    assert now.resets_at_ms is not None
    resets = datetime.fromtimestamp(now.resets_at_ms / 1000, UTC)
    assert (resets.day, resets.hour, resets > datetime.now(UTC)) == (1, 0, True)
    assert await check_books(pool, owner) == -80


async def test_another_period_counts_what_it_has_seen(pool: Pool) -> None:
    """Changing the period forgets neither today's spend nor what is held."""
    owner, _ = await account(pool, 0, "postpaid")
    key = await capped(pool, owner, 100)
    first = await hold(pool, key, 30)
    await settle(pool, key, first.id, 30)
    await pool.execute("UPDATE usage_events SET created_at = created_at - interval '40 days'")
    second, third = await hold(pool, key, 20), await hold(pool, key, 10)
    await settle(pool, key, second.id, 20)
    assert await budget(pool, key) == (50, 10)
    await lifecycle.set_cap_period(pool, key, "month")
    assert await budget(pool, key) == (20, 10)
    await settle(pool, key, third.id, 10)
    assert await budget(pool, key) == (30, 0)
    await lifecycle.set_cap_period(pool, key, "lifetime")
    assert await budget(pool, key) == (60, 0)


async def test_calls_on_their_way_are_paid_by_the_wallet_that_comes(pool: Pool) -> None:
    """What a postpaid account holds is held of its wallet once it is prepaid: it never ends below zero."""
    owner, _ = await account(pool, 1_500, "postpaid")
    key = await capped(pool, owner, None)
    first = await hold(pool, key, 1_000)
    await wallet.set_billing(pool, owner.id, "prepaid")
    second = await hold(pool, key, 1_000, floor=1)
    assert second.amount_nanos == 500
    for held in (first, second):
        await settle(pool, key, held.id, 1_000)
    assert await check_books(pool, owner) == 0
    with pytest.raises(WalletEmpty):
        await hold(pool, key, 1)
