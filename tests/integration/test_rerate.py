"""Usage that is rated anew: adjustments once per row and price, books that agree, interruptions."""

import asyncio
import uuid
from typing import Any

import pytest

from qlaud_actors.billing import meter, wallet
from qlaud_actors.billing.model import Charge
from qlaud_actors.billing.report import Selection, Span, account_usage
from qlaud_actors.billing.wallet import Account, Billing
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import accounts, lifecycle
from qlaud_actors.keys.accounts import NewAccount
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import ApiKey, CapPeriod
from qlaud_actors.prices import rerate as rating
from qlaud_actors.prices.rerate import Wanted, rerate
from qlaud_actors.providers.book import PriceBook, now_ms
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.pricing import UNPRICED
from qlaud_actors.usage import Price, Rates, Usage, WorstCase

FILE = """
slug = "p"
display_name = "P"
wire = "openai"
base_url = "https://api.p.test/v1"
auth_header = "authorization"
api_key_env = "P_API_KEY"
base_url_env = "P_BASE_URL"

[[models]]
slug = "m"
display_name = "M"
context_window = 100_000
max_output_tokens = 8_000
capabilities = ["streaming"]
price = { input = PICOS, output = PICOS }
source = "s"
checked = 2026-11-24
"""
WRONG = Price(Rates(1_000, 1_000, 1_000, 1_000, 1_000), (), "p/m@2026-11-01#wrong")
"""One nano-USD per token."""


def book(nanos: int) -> PriceBook:
    """Prices under which a token costs so much."""
    return Catalog.load({}, {"p.toml": FILE.replace("PICOS", str(nanos * 1_000))}).prices


async def account(pool: Pool, nanos: int, billing: Billing = "prepaid") -> tuple[Account, ApiKey]:
    made, key, _ = await accounts.create(pool, NewAccount("acme", billing, nanos))
    return made, key


async def capped(pool: Pool, owner: Account, limit: int | None, period: CapPeriod = "lifetime") -> ApiKey:
    key, _ = await lifecycle.mint(pool, owner.id, NewKey("k", limit_nanos=limit, cap_period=period))
    return key


async def spend(pool: Pool, key: ApiKey, tokens: int, price: Price = WRONG) -> uuid.UUID:
    """A settled call of so many tokens; the id of its usage row."""
    worst = WorstCase(price, 0, tokens, markup_bps=0)
    held = await meter.hold(pool, key.id, None, worst, tokens)
    used = Usage(output=tokens)
    charge = Charge(key.account_id, key.id, None, None, None, "m", "p", used, price, 0, 1, 200)
    async with pool.acquire() as connection, connection.transaction():
        assert await meter.settle(connection, held.id, charge) is not None
    found = await pool.fetchval(
        "SELECT id FROM usage_events WHERE key_id = $1 ORDER BY id DESC LIMIT 1", key.id
    )
    assert isinstance(found, uuid.UUID)
    return found


def today(**fields: Any) -> Wanted:
    return Wanted(Span(now_ms() - 3_600_000, now_ms() + 3_600_000), **fields)


async def check_books(pool: Pool, owner: Account) -> int:
    """Every way to know the account's money gives the same; returns the balance."""
    row = await pool.fetchrow(
        "SELECT (SELECT COALESCE(sum(amount_nanos), 0) FROM ledger_entries WHERE account_id = $1)::bigint"
        " AS ledger, account_balance_v1($1) AS computed,"
        " (SELECT COALESCE(sum(cost_nanos), 0) FROM usage_events WHERE account_id = $1)::bigint AS used,"
        " (SELECT COALESCE(-sum(amount_nanos), 0) FROM ledger_entries"
        "   WHERE account_id = $1 AND kind = 'usage')::bigint AS debited,"
        " (SELECT sum(charged_nanos) FROM budgets b JOIN keys k ON k.id = b.key_id"
        "   WHERE k.account_id = $1)::bigint AS charged,"
        " (SELECT count(*) FROM usage_events u FULL JOIN"
        "   (SELECT * FROM ledger_entries WHERE kind = 'usage') l ON l.id = u.id"
        "   WHERE u.cost_nanos IS DISTINCT FROM -l.amount_nanos) AS unmatched",
        owner.id,
    )
    assert row is not None
    shown = (await wallet.get_account(pool, owner.id)).balance_nanos
    assert row["ledger"] == row["computed"] == shown
    assert row["used"] == row["debited"] == row["charged"]
    assert row["unmatched"] == 0
    return shown


async def budget(pool: Pool, key: ApiKey) -> tuple[int, int]:
    now = await lifecycle.get_key(pool, key.account_id, key.id)
    return now.spent_nanos, now.held_nanos


async def test_what_was_charged_too_much_goes_back(pool: Pool) -> None:
    """To balance, cap and rollups; the rows stay, an adjustment stands beside each; once."""
    owner, _ = await account(pool, 10_000)
    key = await capped(pool, owner, 2_000)
    rows = [await spend(pool, key, tokens) for tokens in (1_000, 600)]
    before = await pool.fetch("SELECT * FROM usage_events WHERE adjusts IS NULL ORDER BY id")
    cheap = Catalog.load({}, {"p.toml": FILE.replace("PICOS", "500")}).prices
    dry = await rerate(pool, cheap, today(), dry_run=True)
    assert (dry.rows, dry.difference_nanos, dry.charged_nanos) == ({"adjusted": 2}, -800, 0)
    assert await check_books(pool, owner) == 8_400
    done = await rerate(pool, cheap, today(), dry_run=False)
    assert (done.rows, done.difference_nanos, done.charged_nanos) == ({"adjusted": 2}, -800, -800)
    assert await check_books(pool, owner) == 9_200
    assert await budget(pool, key) == (800, 0)
    assert await pool.fetch("SELECT * FROM usage_events WHERE adjusts IS NULL ORDER BY id") == before
    adjusted = await pool.fetch("SELECT * FROM usage_events WHERE adjusts IS NOT NULL ORDER BY adjusts")
    assert [(row["adjusts"], row["cost_nanos"]) for row in adjusted] == list(
        zip(rows, (-500, -300), strict=True)
    )
    (version,) = {row["price_version"] for row in adjusted}
    assert version == cheap.timeline("p", "m")[0].price.version  # type: ignore[index]
    again = await rerate(pool, cheap, today(), dry_run=False)
    assert (again.rows, again.charged_nanos) == ({"right": 2}, 0)
    used = await account_usage(pool, Selection(owner.id, today().span))
    assert (used["total_cost_micros"], used["total_output_tokens"], used["request_count"]) == (1, 1_600, 2)


async def test_what_was_charged_too_little_stays_within_the_limits(pool: Pool) -> None:
    """Cap and wallet are never passed; what they do not afford is the operator's, and told as overrun."""
    owner, _ = await account(pool, 5_000)
    key = await capped(pool, owner, 1_500)
    row = await spend(pool, key, 1_000)
    done = await rerate(pool, book(3), today(), dry_run=False)
    assert (done.difference_nanos, done.charged_nanos) == (2_000, 500)
    assert await budget(pool, key) == (1_500, 0)
    assert await check_books(pool, owner) == 3_500
    overrun = await pool.fetchval("SELECT overrun_nanos FROM usage_events WHERE adjusts = $1", row)
    assert overrun == 1_500
    poor, rich = await account(pool, 1_100)
    await spend(pool, rich, 1_000)
    assert (await rerate(pool, book(3), today(), dry_run=False)).charged_nanos == 100
    assert await check_books(pool, poor) == 0
    free, key = await account(pool, 0, "postpaid")
    await spend(pool, key, 1_000)
    assert (await rerate(pool, book(3), today(), dry_run=False)).charged_nanos == 2_000
    assert await check_books(pool, free) == -3_000


async def test_a_window_that_has_passed_is_charged_no_more(pool: Pool) -> None:
    """Its cap is gone; but what was charged too much there goes back to the balance, and not to this one."""
    owner, _ = await account(pool, 10_000)
    key = await capped(pool, owner, 2_000, "day")
    await spend(pool, key, 1_000)
    await pool.execute("UPDATE usage_events SET created_at = created_at - interval '3 days'")
    await spend(pool, key, 100, book(1).timeline("p", "m")[0].price)  # type: ignore[index]
    wide = Wanted(Span(now_ms() - 5 * 86_400_000, now_ms() - 86_400_000))
    assert (await rerate(pool, book(2), wide, dry_run=False)).charged_nanos == 0
    cheap = Catalog.load({}, {"p.toml": FILE.replace("PICOS", "500")}).prices
    assert (await rerate(pool, cheap, wide, dry_run=False)).charged_nanos == -500
    spent, _ = await budget(pool, key)
    assert spent == 1_100, "the present window counts what was settled in it"
    assert await check_books(pool, owner) == 9_400
    await lifecycle.set_cap_period(pool, key, "month")
    await check_books(pool, owner)


async def test_prices_may_be_corrected_more_than_once(pool: Pool) -> None:
    """Each adjustment is made from what the row is charged by then; the same price never twice."""
    owner, key = await account(pool, 100_000)
    await spend(pool, key, 1_000)
    posted = [(await rerate(pool, book(n), today(), dry_run=False)).charged_nanos for n in (3, 2, 5)]
    assert posted == [2_000, -1_000, 3_000]
    assert await check_books(pool, owner) == 95_000
    back = await rerate(pool, book(2), today(), dry_run=False)
    assert (back.rows, back.charged_nanos) == ({"adjusted_before": 1}, 0)
    assert await check_books(pool, owner) == 95_000


async def test_an_interrupted_run_is_run_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after any row, and with two runs at once: in the end each row is adjusted once."""
    owner, key = await account(pool, 1_000_000)
    for _ in range(12):
        await spend(pool, key, 100)
    monkeypatch.setattr(rating, "PAGE", 5)
    post = rating._post

    async def dies(rows: Any, one: Any) -> int | None:
        charged = await post(rows, one)
        if await pool.fetchval("SELECT count(*) FROM usage_events WHERE adjusts IS NOT NULL") == 7:
            raise KeyboardInterrupt
        return charged

    with monkeypatch.context() as patched:
        patched.setattr(rating, "_post", dies)
        with pytest.raises(KeyboardInterrupt):
            await rerate(pool, book(2), today(), dry_run=False)
    assert await check_books(pool, owner) == 1_000_000 - 1_200 - 700
    both = await asyncio.gather(*(rerate(pool, book(2), today(), dry_run=False) for _ in range(2)))
    assert sum(one.charged_nanos for one in both) == 500
    assert await pool.fetchval("SELECT count(*) FROM usage_events WHERE adjusts IS NOT NULL") == 12
    assert await check_books(pool, owner) == 1_000_000 - 2_400


async def test_each_call_has_the_price_of_its_moment(pool: Pool) -> None:
    """By default; `as_of` takes one moment's. Near a change the price that was charged is right."""
    owner, key = await account(pool, 100_000)
    old, new = book(1).timeline("p", "m"), now_ms()
    assert old is not None
    await spend(pool, key, 1_000, old[0].price)
    changing = FILE.replace("PICOS", "1_000") + "scheduled = [DAY]\n"
    day = (
        '{ from = 2026-01-01, price = { input = 2_000, output = 2_000 }, source = "s", checked = 2026-01-01 }'
    )
    late = Catalog.load({}, {"p.toml": changing.replace("DAY", day)}).prices
    assert (await rerate(pool, late, today(as_of_ms=0), dry_run=True)).rows == {"right": 1}
    assert (await rerate(pool, late, today(), dry_run=True)).difference_nanos == 1_000
    timeline = late.timeline("p", "m")
    assert timeline is not None
    row = {
        **dict(
            (
                await pool.fetch(
                    rating.QUERIES.usage_to_rate, 0, new + 10**9, None, None, uuid.UUID(int=0), new_uuid(), 9
                )
            )[0]
        ),
        "created_at_ms": timeline[1].begins_ms + 30_000,
    }
    assert rating.rate(row, late, None) == "right"  # type: ignore[arg-type]
    assert await check_books(pool, owner) == 99_000


async def test_what_has_no_price_is_left_alone(pool: Pool) -> None:
    """Models that are gone or unpriced, other models and providers: nothing is posted for them."""
    _, key = await account(pool, 0, "postpaid")
    await spend(pool, key, 1_000)
    unpriced = Catalog.load({}, {"p.toml": FILE.replace("price = { input = PICOS, output = PICOS }\n", "")})
    assert (await rerate(pool, unpriced.prices, today(), dry_run=False)).rows == {"no_price": 1}
    assert (await rerate(pool, Catalog.load({}).prices, today(), dry_run=False)).rows == {"no_price": 1}
    for other in (today(model="x"), today(provider="x"), Wanted(Span(0, 1))):
        assert (await rerate(pool, book(2), other, dry_run=False)).rows == {}
    await spend(pool, key, 10, UNPRICED)
    done = await rerate(pool, book(2), today(model="m", provider="p"), dry_run=False)
    assert (done.rows, done.charged_nanos) == ({"adjusted": 2}, 1_020)
