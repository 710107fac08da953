"""`GET /v1/usage` by any dimension and `GET /v1/usage/export`, on a real Postgres."""

import csv
import gzip
import io
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from front_door import Door, front_door
from spending import spend

from qlaud_actors.billing import export
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT, ApiKey
from qlaud_actors.usage import Usage

FORMULAS = ['=HYPERLINK("http://evil.example")', "+1", "-1", "@x", "\tx", "'quoted", 'a,"b"\nc', "ünïcode"]
DAY_ONE, DAY_TWO = (datetime(2026, 11, day, 23, 59, 59, 999_999, tzinfo=UTC) for day in (3, 4))


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[Door]:
    """The front door on the test's database."""
    async with front_door(pool) as door:
        yield door


@pytest.fixture
async def keys(pool: Pool) -> list[ApiKey]:
    """Two keys with a few calls: two models at two hosts, three end users, two days."""
    made = [(await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey(name)))[0] for name in ("one", "two")]
    for number in range(12):
        await spend(
            pool,
            made[number % 2],
            Usage(input=100 + number, output=number, cache_read=5, cache_write_5m=3, cache_write_1h=2),
            model=("m", "n")[number // 2 % 2],
            provider=("p", "q")[number // 4 % 2],
            end_user=("ada", "bob", None)[number % 3],
        )
    await pool.execute(
        "UPDATE usage_events SET created_at ="
        " CASE WHEN input_tokens < 106 THEN $1::timestamptz ELSE $2::timestamptz END",
        DAY_ONE,
        DAY_TWO,
    )
    stranger = new_uuid()
    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", stranger)
    await spend(pool, (await lifecycle.mint(pool, stranger, NewKey("k")))[0], end_user="ada")
    return made


async def get(door: Door, query: str = "") -> Any:
    status, answer = await door.ask("GET", f"/v1/usage?from_ms=0&{query}")
    assert status == 200, answer
    return answer


@pytest.mark.parametrize(
    ("dimensions", "groups"),
    [
        ("key", 2),
        ("model", 2),
        ("provider", 2),
        ("end_user", 3),
        ("day", 2),
        ("hour", 2),
        ("key,model", 4),
        ("day,end_user", 6),
        ("key,model,provider,end_user,day,hour", 12),
    ],
)
@pytest.mark.usefixtures("keys")
async def test_groups_add_up_to_the_rows(door: Door, pool: Pool, dimensions: str, groups: int) -> None:
    """Whatever the grouping, the groups and the totals are the rows of this account, to the nano."""
    answer = await get(door, f"group_by={dimensions}")
    assert len(answer["groups"]) == answer["group_count"] == groups
    row = await pool.fetchrow(
        "SELECT sum(cost_nanos)::bigint AS cost, sum(output_tokens)::bigint AS output,"
        " sum(input_tokens + 10)::bigint AS input FROM usage_events WHERE account_id = $1",
        BOOTSTRAP_ACCOUNT,
    )
    assert row is not None
    assert answer["total_cost_nanos"] == row["cost"] == sum(g["cost_nanos"] for g in answer["groups"])
    assert answer["total_input_tokens"] == row["input"] == sum(g["input_tokens"] for g in answer["groups"])
    assert answer["total_output_tokens"] == row["output"]
    assert answer["total_cache_read_input_tokens"] == 60
    assert answer["total_cache_creation_input_tokens"] == 60
    assert answer["request_count"] == 12 == sum(g["request_count"] for g in answer["groups"])
    assert answer["total_cost_micros"] == -(-answer["total_cost_nanos"] // 1_000)
    assert (answer["has_more"], answer["next_after"]) == (False, None)


async def test_groups_say_what_they_are(door: Door, keys: list[ApiKey]) -> None:
    """Days and hours are of UTC, models have both spellings, nobody's usage has no end user."""
    days = await get(door, "group_by=day")
    assert [group["day"] for group in days["groups"]] == ["2026-11-03", "2026-11-04"]
    hours = await get(door, "group_by=hour")
    assert hours["groups"][0]["hour"] == "2026-11-03T23:00:00Z"
    by_key = (await get(door, "group_by=key,model"))["groups"][0]
    assert (by_key["key_name"], by_key["model"], by_key["model_slug"]) == ("one", "m", "m")
    assert by_key["key_id"] == str(keys[0].id)
    assert by_key["key_prefix"] == keys[0].prefix
    users = await get(door, "group_by=end_user")
    assert [group["end_user_id"] for group in users["groups"]] == ["ada", "bob", None]


async def test_units_are_summed_by_name(door: Door, pool: Pool, keys: list[ApiKey]) -> None:
    """Pictures, seconds, characters: in all, by key, by model, in every grouping; where there is none, {}."""
    told: list[dict[str, int]] = [{"images/high/1024x1024": 2, "image_input": 70}, {"characters": 2**40}]
    told += [{"characters": 7, "image_input": 5}]
    for number, units in enumerate(told):
        await spend(pool, keys[number % 2], model=f"u{number // 2}", provider=f"at-{number}")
        told_of = "UPDATE usage_events SET units = $1 WHERE provider_slug = $2"
        await pool.execute(told_of, units, f"at-{number}")
    in_all = {"images/high/1024x1024": 2, "image_input": 75, "characters": 2**40 + 7}
    whole = await get(door)
    assert whole["total_units"] == in_all
    by_key = {row["key_id"]: row["units"] for row in whole["by_key"]}
    assert by_key[str(keys[1].id)] == told[1]
    assert {row["model"]: row["units"] for row in whole["by_model"]}["u1"] == told[2]
    assert {row["model"]: row["units"] for row in whole["by_model"]}["m"] == {}
    grouped = await get(door, "group_by=model,key&limit=1")
    assert (grouped["total_units"], grouped["groups"][0]["units"]) == (in_all, {})
    assert (await get(door, "model=m&group_by=day"))["total_units"] == {}
    _, one = await door.ask("GET", f"/v1/keys/{keys[1].id}/usage")
    assert one["units"] == told[1]


async def test_filters_choose_the_rows(door: Door, keys: list[ApiKey]) -> None:
    """Key, model and end user, together and apart, with and without groups; another account's are none."""
    for query, count in (
        (f"key_id={keys[0].id}", 6),
        ("model=m", 6),
        ("end_user_id=ada", 4),
        (f"key_id={keys[0].id}&model=m&end_user_id=ada", 1),
        (f"key_id={new_uuid()}", 0),
        ("model=none", 0),
    ):
        whole = await get(door, query)
        grouped = await get(door, f"group_by=key,end_user&{query}")
        assert whole["request_count"] == grouped["request_count"] == count, query
        assert whole["total_cost_nanos"] == grouped["total_cost_nanos"]
    march = await get(door, "from_ms=1&to_ms=2&group_by=day")
    assert (march["groups"], march["group_count"], march["total_cost_micros"]) == ([], 0, 0)


@pytest.mark.usefixtures("keys")
async def test_many_groups_come_page_by_page(door: Door) -> None:
    """Every group once, in one order; each page has the totals of all."""
    everything = await get(door, "group_by=end_user,key,day")
    seen, after = [], ""
    while True:
        page = await get(door, f"group_by=end_user,key,day&limit=5{after}")
        seen += page["groups"]
        assert page["total_cost_nanos"] == everything["total_cost_nanos"]
        assert page["group_count"] == len(everything["groups"])
        if not page["has_more"]:
            break
        after = f"&after={page['next_after']}"
    assert seen == everything["groups"]
    assert len(seen) == 12


@pytest.mark.usefixtures("keys")
async def test_the_plain_report_shows_the_dearest_keys(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """`by_key` ends at a limit and says so; the totals are of all keys."""
    monkeypatch.setattr("qlaud_actors.billing.report.KEYS_SHOWN", 1)
    answer = await get(door)
    assert answer["by_key_has_more"] is True
    (dearest,) = answer["by_key"]
    assert dearest["cost_nanos"] * 2 > answer["total_cost_nanos"] > dearest["cost_nanos"]
    assert sum(row["cost_nanos"] for row in answer["by_model"]) == answer["total_cost_nanos"]


async def fetch(door: Door, query: str, **headers: str) -> tuple[Any, bytes]:
    """The response and its body as it came over the wire."""
    client = door.client.session
    url = door.client.make_url(f"/v1/usage/export?from_ms=0&{query}")
    sent = {"x-api-key": door.master, "accept-encoding": "identity", **headers}
    async with client.get(url, headers=sent, auto_decompress=False) as response:
        assert response.status == 200, await response.text()
        return response, await response.read()


def from_csv(body: bytes) -> list[dict[str, str]]:
    """The rows, without the apostrophes that keep spreadsheets from running them."""
    rows = csv.DictReader(io.StringIO(body.decode(), newline=""))
    return [{name: value.removeprefix("'") for name, value in row.items()} for row in rows]


async def table(pool: Pool) -> list[dict[str, Any]]:
    """The rows as JSON has them."""
    rows = await pool.fetch(
        "SELECT * FROM usage_events WHERE account_id = $1 ORDER BY created_at, id", BOOTSTRAP_ACCOUNT
    )
    return [{name: export.plain(value) for name, value in row.items()} for row in rows]


async def test_an_export_is_the_rows(
    door: Door, pool: Pool, keys: list[ApiKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row and column of the account, in both formats, whatever the texts are, over several pages."""
    monkeypatch.setattr(export, "PAGE_ROWS", 7)
    for text in FORMULAS:
        await spend(pool, keys[0], end_user=text)
    expected = await table(pool)
    assert len(expected) == 12 + len(FORMULAS)
    response, body = await fetch(door, "format=jsonl")
    assert response.content_type == "application/x-ndjson"
    assert [json.loads(line) for line in body.decode().splitlines()] == expected
    response, body = await fetch(door, "")
    assert response.content_type == "text/csv"
    assert response.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    assert from_csv(body) == [
        {
            name: "" if value is None else json.dumps(value) if isinstance(value, bool) else str(value)
            for name, value in row.items()
        }
        for row in expected
    ]
    cells = [cell for row in csv.reader(io.StringIO(body.decode(), newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}]


@pytest.mark.usefixtures("keys")
async def test_an_export_is_filtered_and_resumed(door: Door, pool: Pool) -> None:
    """`after` the last row that arrived the rest follows, and nothing twice."""
    every = [row["id"] for row in await table(pool)]
    for query, names in (("&model=m", "m"), ("&model=n", "n")):
        _, body = await fetch(door, f"format=jsonl{query}")
        assert {json.loads(line)["model_slug"] for line in body.splitlines()} == {names}
    for cut in (0, 5, 11):
        _, body = await fetch(door, f"format=jsonl&after={every[cut]}")
        assert [json.loads(line)["id"] for line in body.splitlines()] == every[cut + 1 :]
    foreign = await pool.fetchval("SELECT id FROM usage_events WHERE account_id <> $1", BOOTSTRAP_ACCOUNT)
    for after in (foreign, uuid.uuid4(), "x"):
        assert (await door.ask("GET", f"/v1/usage/export?after={after}"))[0] == 400


async def test_an_empty_export_has_its_header(door: Door) -> None:
    """A CSV without rows still says what its columns would be."""
    _, body = await fetch(door, "to_ms=1")
    assert body.startswith(b"id,account_id,key_id,")
    assert body.count(b"\n") == 1
    assert (await fetch(door, "to_ms=1&format=jsonl"))[1] == b""


@pytest.mark.parametrize(
    ("accepted", "zipped"), [("gzip", True), ("br, *", True), ("gzip;q=0", False), ("deflate", False)]
)
@pytest.mark.usefixtures("keys")
async def test_an_export_is_zipped_for_who_takes_it(door: Door, accepted: str, zipped: bool) -> None:
    """Gzip when accepted, and the same bytes inside."""
    _, plain = await fetch(door, "")
    response, body = await fetch(door, "", **{"accept-encoding": accepted})
    assert (response.headers.get("content-encoding") == "gzip") is zipped
    assert (gzip.decompress(body) if zipped else body) == plain
