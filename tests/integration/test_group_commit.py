"""Group commit on a real Postgres: many calls in one statement come to the same as one after the other."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlaud_actors.billing import meter
from qlaud_actors.billing.group_commit import GroupCommit
from qlaud_actors.billing.model import Charge, Hold, KeyChanged, Settlement
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import ConnectionLost, Pool, array, open_pool
from qlaud_actors.errors import BudgetRefused
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import accounts, lifecycle
from qlaud_actors.keys.accounts import NewAccount
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.memory import KnownKeys
from qlaud_actors.keys.model import ApiKey, KeyLimits
from qlaud_actors.usage import Price, Rates, Usage, WorstCase

PRICE = Price(Rates(1_000, 1_000, 1_000, 1_000, 1_000), (), "test/m@2026-11-24")
"""One nano-USD per token, without markup: what a call may cost is its tokens."""


def call(nanos: int) -> WorstCase:
    return WorstCase(PRICE, 0, nanos, markup_bps=0)


def charge(key: ApiKey, nanos: int) -> Charge:
    used = Usage(output=nanos)
    return Charge(key.account_id, key.id, None, None, None, "m", "p", used, PRICE, 0, 1, 200)


async def new_key(pool: Pool, limit: int | None, wallet: int | None = None) -> ApiKey:
    """A capped key of an account of its own, which is prepaid if it has a wallet."""
    account = NewAccount("a", "postpaid" if wallet is None else "prepaid", wallet or 0)
    made, _, _ = await accounts.create(pool, account)
    key, _ = await lifecycle.mint(pool, made.id, NewKey("k", limit_nanos=limit))
    return key


async def budget(pool: Pool, key: ApiKey) -> tuple[int, int]:
    """Spent and held."""
    now = await lifecycle.get_key(pool, key.account_id, key.id)
    return now.spent_nanos, now.held_nanos


async def until_budget(pool: Pool, key: ApiKey, expected: tuple[int, int]) -> None:
    """Wait for a spent and held."""
    async with asyncio.timeout(10):
        while True:
            if await budget(pool, key) == expected:
                return
            await asyncio.sleep(0.01)


async def hold(money: GroupCommit, key: ApiKey, nanos: int, floor: int | None = None) -> Hold:
    return await money.hold(new_uuid(), key.id, call(nanos), nanos if floor is None else floor)


@pytest.fixture
def money(pool: Pool) -> GroupCommit:
    """As one process has it."""
    return GroupCommit(pool, new_uuid())


async def test_a_race_of_holds_is_exact(pool: Pool, money: GroupCommit) -> None:
    """300 holds at once on caps and wallets for a few: exactly so many are granted as fit, key by key."""
    keys = [await new_key(pool, 10 * number, 55 if number == 7 else None) for number in range(10)]
    results = await asyncio.gather(
        *(hold(money, keys[number % 10], 10) for number in range(300)), return_exceptions=True
    )
    granted = [[r for r in results[number::10] if isinstance(r, Hold)] for number in range(10)]
    refused = [result for result in results if isinstance(result, BudgetRefused)]
    fits = [0, 1, 2, 3, 4, 5, 6, 5, 8, 9]
    assert [len(group) for group in granted] == fits
    assert len(refused) == 300 - sum(fits)
    assert [(await budget(pool, key))[1] for key in keys] == [10 * fit for fit in fits]
    assert await pool.fetchval("SELECT count(*) FROM holds") == sum(fits)


async def test_settlements_at_once_add_up(pool: Pool, money: GroupCommit) -> None:
    """Calls of many keys that hold and settle together: spend, usage and ledger agree to the nano-dollar."""
    keys = [await new_key(pool, None, 10**6 if number % 2 else None) for number in range(6)]

    async def run(number: int) -> int:
        key = keys[number % 6]
        held = await hold(money, key, 100)
        settled = await money.settle(held.id, charge(key, number % 100))
        assert settled is not None
        assert settled.overrun_nanos == 0
        return settled.charged_nanos

    charged = await asyncio.gather(*(run(number) for number in range(240)))
    assert charged == [number % 100 for number in range(240)]
    for number, key in enumerate(keys):
        assert await budget(pool, key) == (sum(charged[number::6]), 0)
    assert await pool.fetchval("SELECT sum(cost_nanos)::bigint FROM usage_events") == sum(charged)
    assert await pool.fetchval(
        "SELECT -sum(amount_nanos)::bigint FROM ledger_entries WHERE kind = 'usage'"
    ) == sum(charged)
    for row in await pool.fetch(
        "SELECT balance_nanos, held_nanos, account_balance_v1(account_id) AS sum FROM wallets"
    ):
        assert (row["held_nanos"], row["balance_nanos"]) == (0, row["sum"])


async def test_those_who_come_together_share_a_statement(
    pool: Pool, money: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred holds at once are one statement; who comes alone has one of its own at once."""
    sizes: list[int] = []
    place = meter.place_holds

    async def counted(rows: Any, owner: Any, wanted: Sequence[Any]) -> Any:
        sizes.append(len(wanted))
        return await place(rows, owner, wanted)

    monkeypatch.setattr(meter, "place_holds", counted)
    key = await new_key(pool, None)
    await hold(money, key, 1)
    await asyncio.gather(*(hold(money, key, 1) for _ in range(100)))
    assert sizes == [1, 100]


async def test_one_bad_member_hurts_nobody_else(pool: Pool, money: GroupCommit) -> None:
    """A member that the database refuses fails alone; the others of its statement are written."""
    key, stranger = await new_key(pool, None), new_uuid()
    wanted = [key.id] * 5 + [stranger] + [key.id] * 5
    results = await asyncio.gather(
        *(money.hold(new_uuid(), key_id, call(3), 3) for key_id in wanted), return_exceptions=True
    )
    assert [isinstance(result, Hold) for result in results] == [key_id == key.id for key_id in wanted]
    assert await budget(pool, key) == (0, 30)
    used = [charge(key, 2)] * 10
    used.insert(4, Charge(key.account_id, stranger, None, None, None, "m", "p", Usage(), PRICE, 0, 1, 200))
    ids = [result.id for result in results if isinstance(result, Hold)]
    ids.insert(4, new_uuid())
    settled = await asyncio.gather(*map(money.settle, ids, used), return_exceptions=True)
    assert sum(isinstance(result, Settlement) for result in settled) == 10
    assert await budget(pool, key) == (20, 0)


async def cut(pool: Pool, function: str) -> None:
    """End the connection on which this function waits for a lock."""
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(10):
        while True:
            if await pool.fetchval(query, function):
                return
            await asyncio.sleep(0.01)


async def test_who_waits_for_a_row_holds_nobody_up(pool: Pool, money: GroupCommit) -> None:
    """A key's row is locked by somebody: the other keys of the statement get their holds all the same."""
    stuck, free = await new_key(pool, None), await new_key(pool, None)
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM budgets WHERE key_id = $1 FOR UPDATE", stuck.id)
        waiting = asyncio.create_task(hold(money, stuck, 1))
        held = await asyncio.gather(*(hold(money, free, 1) for _ in range(5)))
        assert [one.amount_nanos for one in held] == [1] * 5
        assert not waiting.done()
        await transaction.rollback()
    assert (await waiting).amount_nanos == 1


async def test_a_connection_that_dies_in_a_batch_leaves_no_hold(pool: Pool, money: GroupCommit) -> None:
    """The connection is cut while forty holds are being placed: all are refused, and none is left."""
    key = await new_key(pool, None)
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM budgets WHERE key_id = $1 FOR UPDATE", key.id)
        asked = asyncio.gather(*(hold(money, key, 1) for _ in range(40)), return_exceptions=True)
        await cut(pool, "place_holds_v1")
        results = await asked
        await transaction.rollback()
    assert all(isinstance(result, ConnectionLost) for result in results)
    assert await budget(pool, key) == (0, 0)
    assert (await hold(money, key, 1)).amount_nanos == 1
    await money.close()


async def test_a_settlement_is_repeated_after_a_cut_and_charges_once(pool: Pool, money: GroupCommit) -> None:
    """The connection is cut while twenty calls are being settled: tried again, each is charged once."""
    key = await new_key(pool, None)
    held = await asyncio.gather(*(hold(money, key, 10) for _ in range(20)))

    async def settle(one: Hold) -> Settlement | None:
        return await persistently(lambda: money.settle(one.id, charge(key, 7)))

    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM budgets WHERE key_id = $1 FOR UPDATE", key.id)
        asked = asyncio.gather(*map(settle, held))
        await cut(pool, "settle_calls_v2")
        await transaction.rollback()
        assert await asked == [Settlement(7, 0)] * 20
    assert await budget(pool, key) == (140, 0)
    assert await pool.fetchval("SELECT count(*) FROM usage_events") == 20


class LosesAnswers:
    """A pool whose next statement is carried out, and then its answer is lost."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.lose = True

    async def fetch(self, query: str, *arguments: Any) -> Any:
        """Lose one answer."""
        rows = await self._pool.fetch(query, *arguments)
        if self.lose:
            self.lose = False
            raise ConnectionResetError
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


async def test_lost_answers_are_neither_holds_nor_second_charges(pool: Pool) -> None:
    """Committed, but nobody heard: the holds are given back, and a settlement gets its figures again."""
    losing = LosesAnswers(pool)
    money = GroupCommit(losing, new_uuid())  # type: ignore[arg-type]
    key = await new_key(pool, 1_000)
    results = await asyncio.gather(*(hold(money, key, 9) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, ConnectionResetError) for result in results)
    await until_budget(pool, key, (0, 0))
    held = await hold(money, key, 9)
    losing.lose = True
    assert await persistently(lambda: money.settle(held.id, charge(key, 4))) == Settlement(4, 0)
    assert await budget(pool, key) == (4, 0)
    await money.close()


async def test_a_caller_that_is_cancelled_holds_nothing(pool: Pool, money: GroupCommit) -> None:
    """Its hold is placed by then, or is on its way: it is given back."""
    key = await new_key(pool, None)
    tasks = [asyncio.create_task(hold(money, key, 5)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[:9]:
        task.cancel()
    await asyncio.wait(tasks)
    await until_budget(pool, key, (0, 5))
    await money.close()


CHANGES = {
    "revoked": "UPDATE keys SET revoked_at = now() WHERE id = $1",
    "expired": "UPDATE keys SET expires_at = now() - interval '1 second' WHERE id = $1",
    "replaced": "UPDATE key_secrets SET expires_at = now() - interval '1 second' WHERE key_id = $1",
    "limited": "UPDATE keys SET rpm = 1 WHERE id = $1",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_remembered_key_that_was_changed_holds_nothing(
    pool: Pool, money: GroupCommit, change: str
) -> None:
    """From memory it is what it was; its next hold is refused as changed, and others are not."""
    account = await new_key(pool, None)
    minted, secret = await lifecycle.mint(pool, account.account_id, NewKey("k", limit_nanos=100))
    known = KnownKeys(pool)
    for _ in range(3):  # the first look notes that the key is in use, which changes it
        key = await known.verify(secret.reveal())
    assert key.remembered is not None

    async def held() -> Hold:
        return await money.hold(new_uuid(), key.id, call(5), 5, key.remembered)

    assert (await held()).left_nanos == 100
    await pool.execute(CHANGES[change], minted.id)
    assert await known.verify(secret.reveal()) is key
    results = await asyncio.gather(held(), hold(money, account, 5), return_exceptions=True)
    assert isinstance(results[0], KeyChanged)
    assert isinstance(results[1], Hold)
    assert (await budget(pool, minted))[1] == 5


async def test_limited_keys_are_not_remembered(pool: Pool) -> None:
    """A pace and a list of models are looked at before the hold, so such keys are verified each time."""
    account = await new_key(pool, None)
    for limits in (KeyLimits(rpm=5), KeyLimits(allowed_models=("m",)), KeyLimits(max_concurrent=2)):
        _, secret = await lifecycle.mint(pool, account.account_id, NewKey("k", limits=limits))
        known = KnownKeys(pool)
        for _ in range(3):
            assert (await known.verify(secret.reveal())).remembered is None


async def test_memory_ends_and_is_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remembered key is looked up again after its time, and many keys do not fill the memory."""
    now = 100.0
    known = KnownKeys(pool, clock=lambda: now)
    account = await new_key(pool, None)
    _, secret = await lifecycle.mint(pool, account.account_id, NewKey("k"))
    for _ in range(3):
        key = await known.verify(secret.reveal())
    assert await known.verify(secret.reveal()) is key
    now += 11
    assert await known.verify(secret.reveal()) is not key
    monkeypatch.setattr("qlaud_actors.keys.memory.MOST", 3)
    for _ in range(5):
        _, other = await lifecycle.mint(pool, account.account_id, NewKey("k"))
        await known.verify(other.reveal())
        await known.verify(other.reveal())
    assert len(known._known) <= 3


@dataclass
class Money:
    """What a key and its wallet should have, by the rules in words."""

    limit: int | None
    balance: int | None
    spent: int = 0
    held: int = 0
    holds: dict[uuid.UUID, int] = field(default_factory=dict)

    def room(self) -> int | None:
        """What can still be set aside; None for any amount."""
        rooms = []
        if self.limit is not None:
            rooms.append(self.limit - self.spent - self.held)
        if self.balance is not None:
            rooms.append(self.balance - self.held)
        return min(rooms, default=None)

    def hold(self, call_id: uuid.UUID, want: int, least: int) -> int | None:
        """As much as there is, if that is enough; nothing for who has nothing at all."""
        room = self.room()
        empty = (self.limit is not None and self.spent >= self.limit) or (
            self.balance is not None and self.balance <= 0
        )
        if empty or (room is not None and room < least):
            return None
        amount = want if room is None else min(want, room)
        self.held += amount
        self.holds[call_id] = amount
        return amount

    def settle(self, call_id: uuid.UUID, rated: int) -> int:
        """The cost, past the hold only what is left."""
        held = self.holds.pop(call_id, 0)
        room = self.room()
        charged = rated if room is None else min(rated, held + max(0, room))
        self.held -= held
        self.spent += charged
        if self.balance is not None:
            self.balance -= charged
        return charged


Step = tuple[str, int, int, int]
MEMBERS = st.tuples(
    st.sampled_from(["hold", "settle"]), st.integers(0, 3), st.integers(0, 60), st.integers(0, 60)
)
BATCHES = st.lists(st.lists(MEMBERS, min_size=1, max_size=8), min_size=1, max_size=6)
LIMITS = st.tuples(
    st.lists(st.one_of(st.none(), st.integers(0, 150)), min_size=4, max_size=4),
    st.one_of(st.none(), st.integers(0, 200)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=LIMITS, batches=BATCHES)
def test_batches_do_what_the_rules_say(
    database_url: str, limits: tuple[list[int | None], int | None], batches: list[list[Step]]
) -> None:
    """Any batches of holds and settlements, on keys with and without caps, two of them with one wallet:
    each member gets what it would get alone, in the order given within its key.
    """
    asyncio.run(compare(database_url, *limits, batches))


async def compare(url: str, caps: list[int | None], wallet: int | None, batches: list[list[Step]]) -> None:
    """Carry the batches out, and compare with the rules."""
    pool = await open_pool(url, max_size=2)
    try:
        keys = [await new_key(pool, cap, wallet if n == 3 else None) for n, cap in enumerate(caps)]
        should = [Money(cap, wallet if n == 3 else None) for n, cap in enumerate(caps)]
        for batch in batches:
            await compare_batch(pool, keys, should, batch)
            for key, one in zip(keys, should, strict=True):
                assert await budget(pool, key) == (one.spent, one.held)
        if wallet is not None:
            row = await pool.fetchrow("SELECT * FROM wallets WHERE account_id = $1", keys[3].account_id)
            assert row is not None
            assert (row["balance_nanos"], row["held_nanos"]) == (should[3].balance, should[3].held)
    finally:
        await pool.close()


async def compare_batch(pool: Pool, keys: list[ApiKey], should: list[Money], batch: list[Step]) -> None:
    """One statement for all holds, then one for all settlements: of calls that hold, or lost their hold."""
    holds = [
        (new_uuid(), number, max(low, high), min(low, high))
        for kind, number, low, high in batch
        if kind == "hold"
    ]
    money = GroupCommit(pool, new_uuid())
    results = await asyncio.gather(
        *(money.hold(i, keys[n].id, call(want), least) for i, n, want, least in holds), return_exceptions=True
    )
    for (call_id, number, want, least), result in zip(holds, results, strict=True):
        amount = should[number].hold(call_id, want, least)
        if amount is None:
            assert isinstance(result, BudgetRefused)
        else:
            assert isinstance(result, Hold)
            assert result.amount_nanos == amount
    settled = []
    for kind, number, rated, _ in batch:
        if kind == "settle":
            open_calls = sorted(should[number].holds)
            used = {call_id for call_id, *_ in settled}
            call_id = next((one for one in open_calls if one not in used), new_uuid())
            settled.append((call_id, number, rated))
    found = await asyncio.gather(*(money.settle(i, charge(keys[n], rated)) for i, n, rated in settled))
    for (call_id, number, rated), one in zip(settled, found, strict=True):
        charged = should[number].settle(call_id, rated)
        assert one == Settlement(charged, rated - charged)


async def test_arrays_as_text_are_read_as_they_were_meant(pool: Pool) -> None:
    """Ids, the ends of the range of numbers, booleans, NULLs and nothing at all."""
    for kind, values in (
        ("uuid", [new_uuid(), None, uuid.UUID(int=0)]),
        ("bigint", [-(2**63), None, 0, 2**63 - 1]),
        ("boolean", [True, None, False]),
        ("integer", []),
    ):
        assert await pool.fetchval(f"SELECT $1::text::{kind}[]", array(values)) == values
