"""Prices set through the API: who may, when they count, that every process knows, and the audit."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from front_door import Door, front_door

from qlaud_actors.db.pool import DatabaseError, Pool
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.accounts import NewAccount, create
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.prices import store
from qlaud_actors.prices.follow import PriceFollower
from qlaud_actors.prices.model import Change
from qlaud_actors.providers.book import now_ms
from qlaud_actors.providers.catalog import Catalog

HAIKU = "/v1/prices/anthropic/claude-haiku-4-5"
PRICE = {"input": 2_000_000, "output": 6_000_000, "cache_read": 200_000}


@dataclass
class Clock:
    """The time of day, set forward."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        """Ours plus what it was set forward."""
        return now_ms() + self.ahead_ms


@dataclass
class Process:
    """What one process knows of prices."""

    pool: Pool
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.catalog = Catalog.load({"ANTHROPIC_API_KEY": "k"}, clock=self.clock)
        self.follower = PriceFollower(self.pool, self.catalog.prices, seconds=60)

    def haiku(self) -> tuple[int, str]:
        """Its input rate and the version of its price."""
        price = self.catalog.resolve("claude-haiku-4-5").price
        return price.rates.input, price.version


@pytest.fixture
async def here(pool: Pool) -> Process:
    """The process whose front door is asked."""
    return Process(pool)


@pytest.fixture
async def door(pool: Pool, here: Process) -> AsyncIterator[Door]:
    """Its front door."""
    async with front_door(pool, catalog=here.catalog, prices=here.follower) as door:
        yield door


async def put(door: Door, path: str = HAIKU, **fields: Any) -> tuple[int, Any]:
    return await door.ask("PUT", path, {"price": PRICE, "reason": "contract", **fields})


async def test_an_override_counts_everywhere_from_its_moment(pool: Pool, here: Process, door: Door) -> None:
    """Two processes that read it in time change over at the same moment, and agree on its name."""
    there = Process(pool)
    await there.follower.read()
    before = here.haiku()
    status, answer = await put(door, source="letter of November")
    assert status == 200
    (coming,) = answer["upcoming"]
    assert now_ms() + 55_000 < coming["effective_from"] <= now_ms() + 60_000
    assert (coming["origin"], coming["source"], answer["origin"]) == (
        "override",
        "letter of November",
        "packaged",
    )
    await there.follower.read()
    assert here.haiku() == there.haiku() == before, "nothing changes before its moment"
    here.clock.ahead_ms = there.clock.ahead_ms = 61_000
    assert here.haiku() == there.haiku() == (2_000_000, coming["version"])
    assert coming["version"].startswith("anthropic/claude-haiku-4-5@")
    late = Process(pool, Clock(61_000))
    await late.follower.read()
    assert late.haiku() == here.haiku(), "a process that starts later knows as well"
    other = here.catalog.resolve("claude-sonnet-4-6").price
    assert other == Catalog.load({"ANTHROPIC_API_KEY": "k"}).resolve("claude-sonnet-4-6").price


async def test_an_override_is_ended(here: Process, door: Door) -> None:
    """The price of the files counts again; those to come are taken back; then there is none to end."""
    packaged = here.haiku()
    assert (await door.ask("DELETE", HAIKU))[0] == 404
    await put(door)
    assert (await put(door, effective_from=now_ms() + 86_400_000))[0] == 200
    here.clock.ahead_ms = 120_000
    assert here.haiku()[0] == 2_000_000
    status, answer = await door.ask("DELETE", f"{HAIKU}?reason=over")
    assert (status, answer["origin"], len(answer["upcoming"])) == (200, "override", 1)
    assert answer["upcoming"][0]["origin"] == "packaged"
    here.clock.ahead_ms = 2 * 86_400_000
    assert here.haiku() == packaged
    assert (await door.ask("DELETE", HAIKU))[0] == 404


async def test_an_override_to_come_is_taken_back(here: Process, door: Door) -> None:
    """It never begins, not even for a moment."""
    packaged = here.haiku()
    _, answer = await put(door)
    begins = answer["upcoming"][0]["effective_from"]
    _, ended = await door.ask("DELETE", HAIKU)
    assert [(one["origin"], one["effective_from"]) for one in ended["upcoming"]] == [("packaged", begins)]
    for ahead_ms in range(0, 120_000, 10_000):
        here.clock.ahead_ms = ahead_ms
        assert here.haiku() == packaged


async def test_the_audit_tells_who_when_what_and_why(pool: Pool, door: Door) -> None:
    """Newest first, page by page, also by model; nobody can change it."""
    await put(door)
    await put(door, "/v1/prices/openai/gpt-5.4", price={"input": 3_000_000, "output": 16_000_000})
    await put(door, price={**PRICE, "output": 7_000_000}, reason="again")
    await door.ask("DELETE", HAIKU)
    status, page = await door.ask("GET", "/v1/prices/audit?limit=2")
    assert status == 200
    assert [(c["model"], c["reason"]) for c in page["changes"]] == [
        ("claude-haiku-4-5", "override ended"),
        ("claude-haiku-4-5", "again"),
    ]
    ended, again = page["changes"]
    assert (ended["after"], ended["version"], ended["before"]["price"]["output"]) == (None, None, 6_000_000)
    assert again["after"]["price"] == {
        **PRICE,
        "output": 7_000_000,
        "cache_write_5m": None,
        "cache_write_1h": None,
    }
    assert again["made_by"]["key_prefix"].startswith("qlk_live_")
    _, rest = await door.ask("GET", f"/v1/prices/audit?before={page['next_before']}")
    assert ([c["model"] for c in rest["changes"]], rest["next_before"]) == (
        ["gpt-5.4", "claude-haiku-4-5"],
        None,
    )
    _, of_one = await door.ask("GET", "/v1/prices/audit?provider=openai&model=gpt-5.4")
    assert [c["model"] for c in of_one["changes"]] == ["gpt-5.4"]
    for statement in ("UPDATE price_overrides SET reason = ''", "DELETE FROM price_overrides"):
        with pytest.raises(DatabaseError, match="append-only"):
            await pool.execute(statement)


async def test_prices_are_listed_with_their_origin(door: Door) -> None:
    """Every host of every model, or those that were asked for, with announced prices."""
    _, everything = await door.ask("GET", "/v1/prices")
    assert len(everything["prices"]) > 120
    assert {one["origin"] for one in everything["prices"]} == {"packaged"}
    _, flash = await door.ask("GET", "/v1/prices?provider=google&model=gemini-3.6-flash")
    (one,) = flash["prices"]
    assert one["price"]["input"] in (750_000, 1_500_000)
    assert [coming["price"]["input"] for coming in one["upcoming"]] in ([1_500_000], [])


async def test_prices_are_the_operators(pool: Pool, door: Door) -> None:
    """An admin key of an account is not the master key."""
    _, _, secret = await create(pool, NewAccount("acme", "prepaid", 0))
    for method, path in (
        ("GET", "/v1/prices"),
        ("GET", "/v1/prices/audit"),
        ("PUT", HAIKU),
        ("DELETE", HAIKU),
    ):
        status, answer = await door.ask(method, path, {"price": PRICE, "reason": "x"}, key=secret.reveal())
        assert (status, answer["error"]["code"]) == (403, "permission_denied")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"price": None}, "`price` is missing"),
    ({"price": {"input": 1}}, "output"),
    ({"price": {**PRICE, "inptu": 1}}, "inptu"),
    ({"price": {**PRICE, "input": 1.5}}, "int"),
    ({"price": {**PRICE, "input": 10**10}}, "<= 1000000000"),
    ({"price": {**PRICE, "input": -1}}, ">= 0"),
    ({"reason": ""}, "reason"),
    ({"reason": "a\0b"}, "NUL"),
    ({"colour": "red"}, "colour"),
    ({"tiers": [{"above_input_tokens": 9, **PRICE}, {"above_input_tokens": 9, **PRICE}]}, "ascend"),
    ({"tiers": [{"above_input_tokens": n, **PRICE} for n in range(1, 30)]}, "tiers"),
    ({"effective_from": 1}, "30 seconds ahead"),
    ({"effective_from": now_ms() + 20_000}, "30 seconds ahead"),
    ({"price": {**PRICE, "output": 100_000}}, "hard to believe"),
    ({"price": {"input": 30_000_000, "output": 60_000_000}}, "ten times"),
]


async def test_a_wrong_price_is_refused(pool: Pool, door: Door) -> None:
    """Slips of spelling, of units and of time get a 400 with words, and nothing is stored."""
    for fields, words in WRONG:
        status, answer = await put(door, **fields)
        assert (status, words in answer["error"]["message"]) == (400, True), (fields, answer)
    assert await pool.fetchval("SELECT count(*) FROM price_overrides") == 0


async def test_somebody_may_insist(here: Process, door: Door) -> None:
    """What is hard to believe is taken with `force`."""
    assert (await put(door, price={"input": 30_000_000, "output": 60_000_000}, force=True))[0] == 200
    here.clock.ahead_ms = 61_000
    assert here.haiku()[0] == 30_000_000


async def test_only_what_a_file_has_is_overridden(door: Door) -> None:
    """A model that the provider does not offer is no override."""
    for path in ("anthropic/nope", "openai/claude-haiku-4-5", "nope/gpt-5.4"):
        assert (await put(door, f"/v1/prices/{path}"))[0] == 404


async def test_an_alias_with_slashes_names_its_model(here: Process, door: Door) -> None:
    """The path may hold any name that the catalogue knows."""
    path = "/v1/prices/openrouter/anthropic/claude-haiku-4.5"
    status, answer = await put(door, path, price={**PRICE, "cache_write_5m": 2_500_000})
    assert (status, answer["model"]) == (200, "claude-haiku-4-5")
    assert here.catalog.prices.timeline("openrouter", "claude-haiku-4-5")


async def test_known_prices_stay_while_the_database_is_away(pool: Pool, here: Process, door: Door) -> None:
    """A poll that fails changes nothing; changes that were known begin all the same."""
    await put(door)
    broken = PriceFollower(pool, here.catalog.prices, seconds=0.3)
    await broken.start()
    await pool.execute("ALTER TABLE price_overrides RENAME TO gone")
    with pytest.raises(DatabaseError):
        await broken.read()
    await broken.close()
    here.clock.ahead_ms = 61_000
    assert here.haiku()[0] == 2_000_000


async def test_ids_follow_the_order_of_commits(pool: Pool, here: Process, door: Door) -> None:
    """A writer waits for the one before, so nobody who reads behind the last id misses a row."""
    master = await lifecycle.verify(pool, door.master)
    model = here.catalog.resolve("claude-haiku-4-5")
    change = Change(model, now_ms() + 60_000, None, model.price, "s", "r", master.id)
    async with pool.acquire() as first, pool.acquire() as second:
        async with first.transaction():
            await store.add(first, change)
            async with second.transaction():
                await second.execute("SET LOCAL lock_timeout = '50ms'")
                with pytest.raises(DatabaseError, match="lock timeout"):
                    await store.add(second, change)
            assert await store.after(second, 0) == []
        assert len(await store.after(second, 0)) == 1
    soon = Change(model, now_ms() + 29_000, None, model.price, "s", "r", master.id)
    async with pool.acquire() as connection:
        with pytest.raises(InvalidRequest, match="30 seconds"):
            await store.add(connection, soon)
    assert master.account_id == BOOTSTRAP_ACCOUNT
