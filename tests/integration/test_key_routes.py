"""`/v1/keys`, `/v1/usage`, `/v1/account` over HTTP, on a real Postgres."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from front_door import Door, front_door

from qlaud_actors.billing import meter
from qlaud_actors.billing.model import Charge
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_key_secret, new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.usage import Price, Rates, Usage, WorstCase

SHOWN = {
    "id",
    "object",
    "name",
    "prefix",
    "scope",
    "max_spend_usd",
    "cap_period",
    "resets_at",
    "spent_micros",
    "held_micros",
    "end_user_id",
    "thread_access",
    "rpm",
    "tpm",
    "max_concurrent",
    "allowed_models",
    "expires_at",
    "created_at",
    "last_used_at",
    "revoked",
}


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[Door]:
    """The front door on the test's database."""
    async with front_door(pool) as door:
        yield door


async def spend(pool: Pool, secret: str) -> None:
    """One metered call of 1,070 nano-USD: a thousand of price, seven per cent on top."""
    key = await lifecycle.verify(pool, secret)
    price = Price(Rates(1_000, 0, 0, 0, 0), (), "t/m@1")
    hold = await meter.hold(pool, key.id, None, WorstCase(price, 1_000, 1, 700), 1)
    cost = Charge(key.account_id, key.id, None, None, None, "m", "p", Usage(input=1_000), price, 700, 5, 200)
    async with pool.acquire() as connection, connection.transaction():
        assert await meter.settle(connection, hold.id, cost)


async def test_a_key_is_minted_with_defaults(door: Door) -> None:
    """201; the secret is in this answer and in no other."""
    made = await door.mint(name="widget_enduser_" + "x" * 200)
    assert set(made) == SHOWN | {"secret"}
    assert made["prefix"] == made["secret"][:13] + "…" + made["secret"][-4:]
    assert (made["scope"], made["max_spend_usd"], made["revoked"]) == ("standard", None, False)
    status, again = await door.ask("GET", f"/v1/keys/{made['id']}")
    assert status == 200
    assert set(again) == SHOWN
    status, listed = await door.ask("GET", "/v1/keys")
    assert status == 200
    assert set(listed) == {"keys"}
    assert made["id"] in [key["id"] for key in listed["keys"]]
    assert all("secret" not in key for key in listed["keys"])


@pytest.mark.parametrize(
    ("written", "nanos"),
    [
        ("0", 0),
        ("1", 1_000_000_000),
        ("0.1", 100_000_000),
        ("2.50", 2_500_000_000),
        ("0.000000001", 1),
        ("999999.999999999", 999_999_999_999_999),
        ("1e2", 100_000_000_000),
        ("null", None),
    ],
)
async def test_a_cap_is_stored_exactly(door: Door, pool: Pool, written: str, nanos: int | None) -> None:
    """As the JSON number is written, without binary rounding."""
    body = f'{{"name":"k","max_spend_usd":{written}}}'.encode()
    headers = {"x-api-key": door.master, "content-type": "application/json"}
    async with door.client.post("/v1/keys", data=body, headers=headers) as response:
        assert response.status == 201, await response.text()
        made = await response.json()
    stored = await pool.fetchval("SELECT limit_nanos FROM budgets WHERE key_id = $1::uuid", made["id"])
    assert stored == nanos
    assert made["max_spend_usd"] == (None if nanos is None else nanos / 1e9)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 513}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"scope": "root"}, "scope"),
        ({"max_spend_usd": -0.01}, "max_spend_usd"),
        ({"max_spend_usd": 1e10}, "max_spend_usd"),
        ({"max_spend_usd": True}, "max_spend_usd"),
        ({"max_spend_usd": "5"}, "max_spend_usd"),
        ({"max_spend_usd": "NaN"}, "max_spend_usd"),
        ({"end_user_id": "x" * 600}, "end_user_id"),
        ({"end_user_id": "\x00"}, "end_user_id"),
        ({"thread_access": "all"}, "thread_access"),
    ],
)
async def test_a_malformed_key_is_refused(door: Door, fields: dict[str, Any], named: str) -> None:
    """400 with the field's name; nothing is minted."""
    status, answer = await door.ask("POST", "/v1/keys", {"name": "k", **fields})
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert named in answer["error"]["message"]
    assert len((await door.ask("GET", "/v1/keys"))[1]["keys"]) == 1


@pytest.mark.parametrize("name", ["山田　太郎", "👨‍👩‍👧", "chatai:7", "user_1_a@b.example", "Zoë\u00a0K."])
async def test_names_of_people_are_names(door: Door, name: str) -> None:
    """Wide spaces and joined emoji are no control characters."""
    assert (await door.mint(name=name, end_user_id=name))["name"] == name


async def test_a_cap_is_raised_and_lifted(door: Door) -> None:
    """PATCH changes what it names and answers with the key."""
    made = await door.mint(max_spend_usd=2)
    path = f"/v1/keys/{made['id']}"
    status, key = await door.ask("PATCH", path, {"max_spend_usd": 50})
    assert (status, key["max_spend_usd"], key["name"]) == (200, 50, "k")
    assert (await door.ask("PATCH", path, {"name": "n"}))[1]["max_spend_usd"] == 50
    assert (await door.ask("PATCH", path, {}))[1]["name"] == "n"
    assert (await door.ask("PATCH", path, {"max_spend_usd": None}))[1]["max_spend_usd"] is None


async def test_a_refused_change_changes_nothing(door: Door) -> None:
    """One wrong field leaves the others as they were, too."""
    made = await door.mint(max_spend_usd=2)
    path = f"/v1/keys/{made['id']}"
    assert (await door.ask("PATCH", path, {"max_spend_usd": 50, "name": "a\nb"}))[0] == 400
    assert (await door.ask("GET", path))[1]["max_spend_usd"] == 2


async def test_a_revoked_key_is_not_changed(door: Door) -> None:
    """A raised cap on a dead key would be a silent mistake."""
    made = await door.mint(max_spend_usd=2)
    path = f"/v1/keys/{made['id']}"
    await door.ask("DELETE", path)
    assert (await door.ask("PATCH", path, {"max_spend_usd": 50}))[0] in (404, 409)
    assert (await door.ask("GET", path))[1]["max_spend_usd"] == 2


async def test_a_key_is_revoked_once(door: Door) -> None:
    """200, then 404; the next request with it is 401; it stays in the list."""
    made = await door.mint()
    assert (await door.ask("GET", "/v1/account", key=made["secret"]))[0] == 200
    assert await door.ask("DELETE", f"/v1/keys/{made['id']}") == (200, {"ok": True})
    assert (await door.ask("GET", "/v1/account", key=made["secret"]))[0] == 401
    assert (await door.ask("DELETE", f"/v1/keys/{made['id']}"))[0] == 404
    listed = (await door.ask("GET", "/v1/keys"))[1]["keys"]
    assert next(key for key in listed if key["id"] == made["id"])["revoked"] is True


async def test_the_master_key_cannot_revoke_itself(door: Door) -> None:
    """409 in words."""
    master = (await door.ask("GET", "/v1/keys"))[1]["keys"][0]
    status, answer = await door.ask("DELETE", f"/v1/keys/{master['id']}")
    assert status == 409
    assert "QLAUD_MASTER_KEY" in answer["error"]["message"]
    assert (await door.ask("GET", "/v1/keys"))[0] == 200


# Fixed, so that every process of a parallel run collects the same tests.
NOBODYS = "01a20bd4-0000-7000-8000-000000000000"

ADMIN_ROUTES = [
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys"),
    ("GET", f"/v1/keys/{NOBODYS}"),
    ("PATCH", f"/v1/keys/{NOBODYS}"),
    ("DELETE", f"/v1/keys/{NOBODYS}"),
    ("GET", f"/v1/keys/{NOBODYS}/usage"),
    ("GET", "/v1/usage"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
async def test_the_control_plane_is_for_admins(door: Door, method: str, path: str) -> None:
    """403 for a standard key, whatever the body; 401 without a key."""
    key = (await door.mint())["secret"]
    status, answer = await door.ask(method, path, {"nonsense": 1}, key=key)
    assert (status, answer["error"]["type"]) == (403, "permission_error")
    status, answer = await door.ask(method, path, {"nonsense": 1}, key="")
    assert (status, answer["error"]["type"]) == (401, "authentication_error")


async def test_a_minted_admin_key_is_one(door: Door) -> None:
    """It may mint in its turn."""
    admin = await door.mint(scope="admin")
    status, made = await door.ask("POST", "/v1/keys", {"name": "by admin"}, key=admin["secret"])
    assert status == 201
    assert (await door.ask("DELETE", f"/v1/keys/{made['id']}", key=admin["secret"]))[0] == 200


@pytest.mark.parametrize("key_id", ["x", "1", NOBODYS, "%00"])
async def test_an_unknown_key_is_404(door: Door, key_id: str) -> None:
    """Malformed ids too."""
    for method, path in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/usage")]:
        status, answer = await door.ask(method, f"/v1/keys/{key_id}{path}", {"name": "n"})
        assert (status, answer["error"]["type"]) == (404, "not_found_error")


async def test_keys_of_another_account_are_404(door: Door, pool: Pool) -> None:
    """To another account they do not exist."""
    stranger = new_uuid()
    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", stranger)
    theirs, secret = await lifecycle.mint(pool, stranger, lifecycle.NewKey("k", scope="admin"))
    for method, path in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/usage")]:
        assert (await door.ask(method, f"/v1/keys/{theirs.id}{path}", {"max_spend_usd": 1}))[0] == 404
    assert len((await door.ask("GET", "/v1/keys", key=secret.reveal()))[1]["keys"]) == 1


async def test_both_headers_authenticate(door: Door) -> None:
    """`x-api-key` and bearer work alike; when both are sent, `x-api-key` decides."""
    wrong = new_key_secret()
    bearer = {"authorization": f"Bearer {door.master}"}
    assert (await door.ask("GET", "/v1/keys", key="", **bearer))[0] == 200
    assert (await door.ask("GET", "/v1/keys", key="", authorization=f"bearer {door.master}"))[0] == 200
    assert (await door.ask("GET", "/v1/keys", authorization=f"Bearer {wrong}"))[0] == 200
    assert (await door.ask("GET", "/v1/keys", key=wrong, **bearer))[0] == 401
    for nothing in (
        {"authorization": "Basic x"},
        {"authorization": "Bearer"},
        {"authorization": door.master},
    ):
        assert (await door.ask("GET", "/v1/keys", key="", **nothing))[0] == 401


async def test_the_account_of_a_key(door: Door) -> None:
    """Any key may ask; `t` is ignored."""
    key = (await door.mint())["secret"]
    expected = {"user_id": str(BOOTSTRAP_ACCOUNT), "email": None, "first_name": None, "last_name": None}
    assert await door.ask("GET", "/v1/account?t=1", key=key) == (200, expected)


async def test_usage_of_a_key_is_of_its_life(door: Door, pool: Pool) -> None:
    """Current at once, with its cap beside it, and all the fields that clients read."""
    made = await door.mint(max_spend_usd=0.5, name="ada")
    for _ in range(3):
        await spend(pool, made["secret"])
    await pool.execute(
        "UPDATE usage_events SET created_at = now() - interval '400 days' WHERE cost_nanos > 0"
    )
    await spend(pool, made["secret"])
    status, usage = await door.ask("GET", f"/v1/keys/{made['id']}/usage")
    assert status == 200
    assert (usage["cap_micros"], usage["cost_micros"], usage["request_count"]) == (500_000, 5, 4)
    assert (usage["key_id"], usage["key_name"], usage["key_prefix"]) == (made["id"], "ada", made["prefix"])
    assert (usage["input_tokens"], usage["output_tokens"]) == (4_000, 0)
    (model,) = usage["by_model"]
    assert (model["model"], model["model_slug"], model["cost_micros"]) == ("m", "m", 5)
    assert len(usage["events"]) == 4
    event = usage["events"][0]
    assert (event["model_slug"], event["provider_slug"], event["latency_ms"], event["status"]) == (
        "m",
        "p",
        5,
        200,
    )
    assert event["cost_micros"] == 2
    shown = (await door.ask("GET", f"/v1/keys/{made['id']}"))[1]
    assert (shown["spent_micros"], shown["held_micros"]) == (5, 0)


async def test_usage_of_the_account_is_of_this_month(door: Door, pool: Pool) -> None:
    """By default since the month began; any span on request."""
    made = await door.mint()
    await spend(pool, made["secret"])
    await pool.execute("UPDATE usage_events SET created_at = now() - interval '40 days'")
    await spend(pool, made["secret"])
    _, usage = await door.ask("GET", "/v1/usage")
    assert (usage["request_count"], usage["total_cost_micros"], usage["total_input_tokens"]) == (1, 2, 1_000)
    assert [row["key_id"] for row in usage["by_key"]] == [made["id"]]
    assert [row["model_slug"] for row in usage["by_model"]] == ["m"]
    _, whole = await door.ask("GET", "/v1/usage?from_ms=0")
    assert whole["request_count"] == 2
    assert whole["from_ms"] == 0
    _, before = await door.ask("GET", f"/v1/usage?from_ms=0&to_ms={usage['from_ms']}")
    assert before["request_count"] == 1
    _, nothing = await door.ask("GET", "/v1/usage?from_ms=0&to_ms=1")
    assert (nothing["request_count"], nothing["total_cost_micros"], nothing["by_key"]) == (0, 0, [])
    assert (await door.ask("GET", "/v1/usage?from_ms=x"))[0] == 400
