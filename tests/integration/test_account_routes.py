"""`/v1/accounts`, `/v1/billing` and cap periods over HTTP, on a real Postgres."""

from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import pytest
from front_door import Door, front_door

from qlaud_actors.db.pool import Pool, connect


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[Door]:
    """The front door on the test's database."""
    async with front_door(pool) as door:
        yield door


async def create(door: Door, **fields: Any) -> Any:
    status, made = await door.ask("POST", "/v1/accounts", {"name": "acme", **fields})
    assert status == 201, made
    return made


async def test_an_account_comes_with_its_admin_key(door: Door) -> None:
    """Prepaid with its starter credit; its key is an admin of that account and of no other."""
    made = await create(door, starter_credit_usd=5)
    assert (made["object"], made["name"], made["billing"]) == ("account", "acme", "prepaid")
    assert (made["balance_usd"], made["balance_micros"], made["held_micros"]) == (5.0, 5_000_000, 0)
    assert (made["key"]["scope"], made["key"]["revoked"]) == ("admin", False)
    secret = made["secret"]
    assert (await door.ask("GET", "/v1/account", key=secret))[1]["user_id"] == made["id"]
    keys = (await door.ask("GET", "/v1/keys", key=secret))[1]["keys"]
    assert [key["id"] for key in keys] == [made["key"]["id"]]
    assert "secret" not in str((await door.ask("GET", "/v1/accounts"))[1])
    _, page = await door.ask("GET", "/v1/billing/ledger", key=secret)
    assert [(entry["kind"], entry["amount_micros"]) for entry in page["entries"]] == [("credit", 5_000_000)]


async def test_accounts_are_the_operators(door: Door) -> None:
    """An admin key of an account is not the master key."""
    made = await create(door)
    for method, path in (
        ("POST", "/v1/accounts"),
        ("GET", "/v1/accounts"),
        ("GET", f"/v1/accounts/{made['id']}"),
        ("PATCH", f"/v1/accounts/{made['id']}"),
    ):
        status, answer = await door.ask(method, path, {"name": "x"}, key=made["secret"])
        assert (status, answer["error"]["type"]) == (403, "permission_error")
    status, listed = await door.ask("GET", "/v1/accounts")
    assert [account["name"] for account in listed["accounts"]] == ["default", "acme"]


async def test_an_account_is_changed(door: Door) -> None:
    """Name and billing; an absent field stays, the balance does too."""
    made = await create(door, starter_credit_usd=3)
    path = f"/v1/accounts/{made['id']}"
    status, changed = await door.ask("PATCH", path, {"billing": "postpaid"})
    assert status == 200
    assert (changed["name"], changed["billing"], changed["balance_usd"]) == ("acme", "postpaid", 3.0)
    status, changed = await door.ask("PATCH", path, {"name": "Acme Ltd", "billing": "prepaid"})
    assert (changed["name"], changed["billing"], changed["balance_usd"]) == ("Acme Ltd", "prepaid", 3.0)
    assert (await door.ask("GET", path))[1] == changed
    nobody = "/v1/accounts/00000000-0000-7000-8000-0000000000ff"
    assert (await door.ask("PATCH", nobody, {"name": "x"}))[0] == 404


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"billing": "free"}, "billing"),
        ({"starter_credit_usd": -1}, "starter_credit_usd"),
        ({"starter_credit_usd": "5"}, "starter_credit_usd"),
    ],
)
async def test_a_malformed_account_is_refused(door: Door, fields: dict[str, Any], named: str) -> None:
    """400 with the field's name, and no account."""
    status, answer = await door.ask("POST", "/v1/accounts", {"name": "k", **fields})
    assert status == 400
    assert named in answer["error"]["message"]
    assert len((await door.ask("GET", "/v1/accounts"))[1]["accounts"]) == 1


async def test_any_key_sees_the_balance_and_only_admins_the_ledger(door: Door) -> None:
    """With a throw-away query parameter, as a client sends it."""
    made = await create(door, starter_credit_usd=2.5)
    _, key = await door.ask("POST", "/v1/keys", {"name": "k"}, key=made["secret"])
    status, balance = await door.ask("GET", "/v1/billing/balance?t=1", key=key["secret"])
    assert status == 200
    assert balance == {
        "balance_usd": 2.5,
        "balance_micros": 2_500_000,
        "held_micros": 0,
        "currency": "usd",
        "billing": "prepaid",
    }
    for method, path in (("GET", "/v1/billing/ledger"), ("POST", "/v1/billing/topups")):
        assert (await door.ask(method, path, {"amount_usd": 5}, key=key["secret"]))[0] == 403
    assert (await door.ask("GET", "/v1/billing/balance"))[1]["billing"] == "postpaid"


@pytest.mark.parametrize("query", ["before=x", "limit=0", "limit=501"])
async def test_a_malformed_page_is_refused(door: Door, query: str) -> None:
    """400, not the first page."""
    assert (await door.ask("GET", f"/v1/billing/ledger?{query}"))[0] == 400


async def test_a_cap_has_a_period(door: Door) -> None:
    """Given, changed and shown, with the moment at which it begins anew."""
    plain = await door.mint()
    assert (plain["cap_period"], plain["resets_at"]) == ("lifetime", None)
    daily = await door.mint(cap_period="day", max_spend_usd=1)
    assert daily["cap_period"] == "day"
    assert daily["resets_at"] % 86_400_000 == 0
    path = f"/v1/keys/{daily['id']}"
    status, weekly = await door.ask("PATCH", path, {"cap_period": "week"})
    assert (status, weekly["cap_period"], weekly["max_spend_usd"]) == (200, "week", 1.0)
    # The first of January 1970 was a Thursday, so weeks begin four days into the epoch.
    assert weekly["resets_at"] % (7 * 86_400_000) == 4 * 86_400_000
    assert (await door.ask("GET", path))[1] == weekly
    status, answer = await door.ask("PATCH", path, {"cap_period": "year"})
    assert status == 400
    assert "cap_period" in answer["error"]["message"]


async def test_spend_of_before_the_ledger_is_in_it(empty_database_url: str) -> None:
    """A database of the first version is carried over with one entry per key that had spent."""
    connection = await connect(empty_database_url)
    try:
        first, second = (
            files("qlaud_actors.db").joinpath("migrations", name).read_text()
            for name in ("0001_initial.sql", "0002_wallet.sql")
        )
        await connection.execute(first)
        await connection.execute(
            "INSERT INTO keys (id, account_id, name, scope, hash, prefix)"
            " SELECT gen_random_uuid(), id, 'k', 'standard', n::text::bytea, 'p'"
            "   FROM accounts, generate_series(1, 3) n"
        )
        await connection.execute(
            "INSERT INTO budgets (key_id, limit_nanos, spent_nanos)"
            " SELECT id, 1000, CASE WHEN hash = '1' THEN 0 ELSE 300 END FROM keys"
        )
        await connection.execute(second)
        row = await connection.fetchrow(
            "SELECT count(*) AS entries, sum(amount_nanos)::bigint AS total,"
            " account_balance_v1(min(account_id::text)::uuid) AS balance FROM ledger_entries"
        )
        assert row is not None
        assert tuple(row) == (2, -600, -600)
    finally:
        await connection.close()
