"""`qlaud reconcile`: books that the meter wrote hold; each way to falsify one row is named."""

import asyncio
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from spending import hold, spend

from qlaud_actors.billing import ledger, wallet
from qlaud_actors.billing.ledger import Entry
from qlaud_actors.cli import main
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import accounts, lifecycle
from qlaud_actors.keys.accounts import NewAccount
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT, ApiKey
from qlaud_actors.reconcile.books import check_books
from qlaud_actors.reconcile.model import Check
from qlaud_actors.usage import Usage

UNGUARDED = "ALTER TABLE ledger_entries DISABLE TRIGGER ledger_is_append_only"


async def found(pool: Pool, account_id: uuid.UUID | None = None) -> dict[str, Check]:
    """The rules that are broken, by name."""
    async with pool.acquire() as connection:
        checks = [check async for check in check_books(connection, account_id)]
    assert len(checks) == 11
    return {check.name: check for check in checks if check.wrong}


async def with_turn(pool: Pool, key: ApiKey) -> uuid.UUID:
    """A finished turn of two steps, metered and journaled as the loop does it."""
    thread, turn = new_uuid(), new_uuid()
    await pool.execute(
        "INSERT INTO threads (id, account_id, key_id) VALUES ($1, $2, $3)", thread, key.account_id, key.id
    )
    await pool.execute(
        "INSERT INTO turns (id, thread_id, account_id, key_id, number, status, request, content, request_id,"
        " fingerprint) VALUES ($1, $2, $3, $4, 1, 'running', '{}', '[]', 'r', '')",
        turn,
        thread,
        key.account_id,
        key.id,
    )
    for step in (1, 2):
        settled = await spend(pool, key, turn=(turn, step))
        await pool.execute(
            "INSERT INTO steps (turn_id, number, state, epoch, model_slug, max_tokens, cost_nanos)"
            " VALUES ($1, $2, 'done', 1, 'm', 1, $3)",
            turn,
            step,
            settled.charged_nanos,
        )
        await pool.execute(
            "UPDATE turns SET cost_nanos = cost_nanos + $2 WHERE id = $1", turn, settled.charged_nanos
        )
    await pool.execute("UPDATE turns SET status = 'completed' WHERE id = $1", turn)
    return turn


@pytest.fixture
async def key(pool: Pool) -> ApiKey:
    """A key of a prepaid account with a life behind it: calls, a turn, a top-up, a hold in flight."""
    account, _, _ = await accounts.create(pool, NewAccount("acme", "prepaid", 10**9))
    await ledger.post(pool, Entry(account.id, "topup", 10**9, "t1", "pi_1"))
    await ledger.post(pool, Entry(account.id, "refund", -(10**8), "t2", "pi_1"))
    key, _ = await lifecycle.mint(
        pool, account.id, NewKey("k", limit_nanos=10**9, cap_period="day", end_user_id="ada")
    )
    for number in range(5):
        await spend(pool, key, Usage(input=number, output=3 * number))
    await with_turn(pool, key)
    await hold(pool, key)
    other, _ = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("other"))
    await spend(pool, other)
    return key


@pytest.mark.usefixtures("key")
async def test_what_the_meter_wrote_holds(pool: Pool) -> None:
    """Prepaid and postpaid, capped by the day and not, in a turn and not, with a hold in flight."""
    assert await found(pool) == {}
    async with pool.acquire() as connection:
        checked = {check.name: check.checked async for check in check_books(connection)}
    assert checked == {
        "balance": 3,
        "charged": 3,
        "spent": 3,
        "held": 4,
        "ledger": 8,
        "opening": 0,
        "cost": 8,
        "owner": 8,
        "turn": 1,
        "step": 2,
        "orphan": 1,
    }


USAGE = "(SELECT id FROM usage_events WHERE key_id = $1 AND turn_id IS NULL ORDER BY id DESC LIMIT 1)"
SET_USAGE = f"UPDATE usage_events SET %s WHERE id = {USAGE}"
COPY_USAGE = (
    "INSERT INTO usage_events SELECT (jsonb_populate_record(u,"
    f" jsonb_build_object('id', gen_random_uuid()))).* FROM usage_events u WHERE id = {USAGE}"
)
ADD_ENTRY = (
    "INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, reference)"
    " SELECT gen_random_uuid(), account_id, 'usage', -7, id::text FROM keys WHERE id = $1"
)
OF_KEY = "key_id = $1"
OF_ACCOUNT = "account_id = (SELECT account_id FROM keys WHERE id = $1)"
SECOND_STEP = "number = 2 AND turn_id IN (SELECT id FROM turns WHERE key_id = $1)"
FALSIFIED = [
    (SET_USAGE % "cost_nanos = cost_nanos + 1", {"charged", "spent", "ledger", "cost"}),
    (SET_USAGE % "provider_cost_picos = provider_cost_picos + 1000", {"cost"}),
    (SET_USAGE % "markup_bps = markup_bps + 400", {"cost"}),
    (SET_USAGE % "overrun_nanos = 1", {"cost"}),
    (SET_USAGE % "key_id = (SELECT id FROM keys WHERE name = 'other')", {"charged", "spent", "owner"}),
    (SET_USAGE % f"account_id = '{BOOTSTRAP_ACCOUNT}'", {"ledger", "owner"}),
    (f"DELETE FROM usage_events WHERE id = {USAGE}", {"charged", "spent", "ledger"}),
    (COPY_USAGE, {"charged", "spent", "ledger"}),
    (f"UPDATE ledger_entries SET amount_nanos = amount_nanos - 1 WHERE id = {USAGE}", {"balance", "ledger"}),
    (f"DELETE FROM ledger_entries WHERE id = {USAGE}", {"balance", "ledger"}),
    (ADD_ENTRY, {"balance", "ledger"}),
    (f"UPDATE ledger_entries SET amount_nanos = 1 WHERE kind = 'topup' AND {OF_ACCOUNT}", {"balance"}),
    (f"UPDATE budgets SET charged_nanos = charged_nanos + 1 WHERE {OF_KEY}", {"balance", "charged"}),
    (f"UPDATE budgets SET spent_nanos = spent_nanos - 1 WHERE {OF_KEY}", {"spent"}),
    (f"UPDATE budgets SET held_nanos = held_nanos + 1 WHERE {OF_KEY}", {"held"}),
    (f"UPDATE wallets SET balance_nanos = balance_nanos + 1 WHERE {OF_ACCOUNT}", {"balance"}),
    (f"UPDATE wallets SET held_nanos = held_nanos + 1 WHERE {OF_ACCOUNT}", {"held"}),
    (f"DELETE FROM holds WHERE {OF_KEY}", {"held"}),
    (f"UPDATE holds SET amount_nanos = amount_nanos + 1 WHERE {OF_KEY}", {"held"}),
    (f"UPDATE holds SET created_at = now() - interval '1 hour' WHERE {OF_KEY}", {"orphan"}),
    (f"UPDATE turns SET cost_nanos = cost_nanos + 1 WHERE {OF_KEY}", {"turn"}),
    (f"UPDATE steps SET cost_nanos = cost_nanos + 1 WHERE {SECOND_STEP}", {"step"}),
    (f"DELETE FROM steps WHERE {SECOND_STEP}", {"step"}),
]


@pytest.mark.parametrize(("falsify", "rules"), FALSIFIED)
async def test_each_falsified_row_is_named(pool: Pool, key: ApiKey, falsify: str, rules: set[str]) -> None:
    """One row changed behind the meter's back breaks exactly the rules that speak of it."""
    await pool.execute(UNGUARDED)
    assert (await pool.execute(falsify, key.id)).split()[-1] != "0"
    broken = await found(pool)
    assert set(broken) == rules
    for check in broken.values():
        assert check.offenders
        assert all(pair.what and pair.expected != pair.found for pair in check.offenders)


async def test_an_account_alone(pool: Pool, key: ApiKey) -> None:
    """Another account's trouble is not told of this one."""
    await pool.execute("UPDATE budgets SET charged_nanos = charged_nanos + 1 WHERE key_id = $1", key.id)
    assert set(await found(pool, key.account_id)) == {"balance", "charged"}
    assert await found(pool, BOOTSTRAP_ACCOUNT) == {}


async def test_a_call_that_straddles_midnight_counts_where_its_hold_was(pool: Pool, key: ApiKey) -> None:
    """Spent may leave such a call out; it may leave out no other."""
    await spend(pool, key)
    last = await pool.fetchrow("SELECT id, cost_nanos FROM usage_events ORDER BY id DESC LIMIT 1")
    assert last is not None
    await pool.execute(
        "UPDATE budgets SET spent_nanos = spent_nanos - $2 WHERE key_id = $1", key.id, last["cost_nanos"]
    )
    assert set(await found(pool)) == {"spent"}
    await pool.execute("UPDATE usage_events SET latency_ms = 86400000 WHERE id = $1", last["id"])
    assert await found(pool) == {}


async def test_spend_from_before_the_ledger(pool: Pool, key: ApiKey) -> None:
    """A key's first entry stands for the rows that are older than it, and for no others."""
    await pool.execute(UNGUARDED)
    await pool.execute(
        "WITH gone AS (DELETE FROM ledger_entries WHERE reference = $2 AND kind = 'usage' RETURNING *)"
        " INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, reference)"
        " SELECT $1, account_id, 'usage', sum(amount_nanos), $2 FROM gone GROUP BY account_id",
        key.id,
        str(key.id),
    )
    assert await found(pool) == {}
    await spend(pool, key)
    assert await found(pool) == {}
    await pool.execute("UPDATE ledger_entries SET amount_nanos = amount_nanos - 1 WHERE id = $1", key.id)
    assert set(await found(pool)) == {"balance", "opening"}


async def test_a_row_that_was_rated_anew(pool: Pool, key: ApiKey) -> None:
    """An adjustment is a row of its own with its entry; with the row that it adjusts it is the new price."""
    await pool.execute("ALTER TABLE usage_events DROP CONSTRAINT IF EXISTS usage_events_cost_nanos_check")
    row = await pool.fetchrow("SELECT * FROM usage_events WHERE id = " + USAGE, key.id)
    assert row is not None
    adjustment, cost = new_uuid(), row["cost_nanos"]
    await pool.execute(
        "INSERT INTO usage_events SELECT (jsonb_populate_record(u, jsonb_build_object('id', $2::uuid,"
        " 'adjusts', u.id, 'cost_nanos', -u.cost_nanos, 'provider_cost_picos', -u.provider_cost_picos,"
        " 'latency_ms', 0))).* FROM usage_events u WHERE u.id = $1",
        row["id"],
        adjustment,
    )
    await pool.execute(
        "INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, reference)"
        " VALUES ($1, $2, 'usage', $3, 'k')",
        adjustment,
        key.account_id,
        cost,
    )
    await pool.execute(
        "UPDATE budgets SET charged_nanos = charged_nanos - $2, spent_nanos = spent_nanos - $2"
        " WHERE key_id = $1",
        key.id,
        cost,
    )
    await pool.execute(
        "UPDATE wallets SET balance_nanos = balance_nanos + $2 WHERE account_id = $1", key.account_id, cost
    )
    assert await found(pool) == {}
    await pool.execute("UPDATE usage_events SET provider_cost_picos = 1 WHERE id = $1", adjustment)
    assert set(await found(pool)) == {"cost"}


async def test_it_looks_at_one_moment(pool: Pool, key: ApiKey) -> None:
    """Calls that are settled while it runs are not half seen."""
    async with pool.acquire() as connection:
        checks = check_books(connection)
        first = await anext(checks)
        for _ in range(3):
            await spend(pool, key)
        await wallet.set_billing(pool, key.account_id, "postpaid")
        rest = [check async for check in checks]
    assert not any(check.wrong for check in (first, *rest))


async def qlaud(database_url: str, *arguments: str) -> Result:
    """The command, on an event loop of its own."""
    runner = CliRunner(env={"DATABASE_URL": database_url})
    return await asyncio.to_thread(runner.invoke, main, arguments)


async def test_the_command_says_what_it_found(pool: Pool, database_url: str, key: ApiKey) -> None:
    """0 and a table when all holds; 1 and the offender when not, also as JSON."""
    fine = await qlaud(database_url, "reconcile")
    assert (fine.exit_code, fine.output.splitlines()[-1]) == (0, "the books agree")
    await pool.execute("UPDATE budgets SET spent_nanos = spent_nanos + 1 WHERE key_id = $1", key.id)
    wrong = await qlaud(database_url, "reconcile")
    assert wrong.exit_code == 1
    assert f"key {key.id}: " in wrong.output
    told = await qlaud(database_url, "reconcile", "--json", "--account", str(key.account_id))
    report = json.loads(told.output)
    assert (told.exit_code, report["ok"]) == (1, False)
    (check,) = [check for check in report["checks"] if check["wrong"]]
    assert check["name"] == "spent"
    assert check["offenders"][0]["found"] == check["offenders"][0]["expected"] + 1
    unknown = await qlaud(database_url, "reconcile", "--account", str(new_uuid()))
    assert unknown.exit_code == 1
    assert "there is no account" in unknown.stderr
    for wrong_use in ("--provider openai", "--map day=d", "--tolerance NaN", "--account x"):
        assert (await qlaud(database_url, "reconcile", *wrong_use.split())).exit_code == 2


async def test_a_providers_export_is_compared(pool: Pool, database_url: str, tmp_path: Path) -> None:
    """Equal within the tolerance is 0; a bucket that differs is shown with its percentage and is 1."""
    key, _ = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("k"))
    used = Usage(input=1_000, output=200, cache_read=300)
    for _ in range(2):
        await spend(pool, key, used, model="gpt-5.4", provider="openai")
    await spend(pool, key, used, model="claude-haiku-4-5", provider="anthropic")
    await pool.execute("UPDATE usage_events SET created_at = '2026-11-20T12:00:00Z'")
    start = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp())
    result: dict[str, Any] = {
        "object": "organization.usage.completions.result",
        "input_tokens": 2_600,
        "input_cached_tokens": 600,
        "output_tokens": 400,
        "num_model_requests": 2,
        "model": "gpt-5.4-2026-03-05",
    }
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": [result]}
    page = {"object": "page", "data": [bucket], "has_more": False, "next_page": None}
    path = tmp_path / "usage.json"
    path.write_text(json.dumps(page))
    command = ("reconcile", "--provider", "openai", "--export", str(path))
    same = await qlaud(database_url, *command)
    assert (same.exit_code, same.output) == (
        0,
        "5 figures compared: 5 equal, 0 within the tolerance, 0 beyond it\n",
    )
    result["output_tokens"] = 500
    path.write_text(json.dumps(page))
    apart = await qlaud(database_url, *command)
    assert apart.exit_code == 1
    assert "!  2026-11-20  gpt-5.4  output   400     500  -20.00" in apart.output
    assert (await qlaud(database_url, *command, "--tolerance", "25")).exit_code == 0
    told = json.loads((await qlaud(database_url, *command, "--json")).output)
    (beyond,) = [figure for figure in told["figures"] if figure["beyond"]]
    assert (beyond["figure"], beyond["ours"], beyond["theirs"]) == ("output", 400, 500)
    assert beyond["percent"] == -20.0
    path.write_text("{")
    broken = await qlaud(database_url, *command)
    assert broken.exit_code == 1
    assert "is not valid JSON" in broken.stderr


async def test_the_command_exports(pool: Pool, database_url: str, key: ApiKey, tmp_path: Path) -> None:
    """Of all accounts or one, to a file or not, continued behind a row."""
    everything = await qlaud(database_url, "usage", "export", "--format", "jsonl")
    assert everything.exit_code == 0
    ids = [json.loads(line)["id"] for line in everything.output.splitlines()]
    assert len(ids) == await pool.fetchval("SELECT count(*) FROM usage_events") == 8
    rest = await qlaud(database_url, "usage", "export", "--format", "jsonl", "--after", ids[4])
    assert [json.loads(line)["id"] for line in rest.output.splitlines()] == ids[5:]
    path = tmp_path / "usage.csv"
    one = await qlaud(database_url, "usage", "export", "--account", str(key.account_id), "-o", str(path))
    assert (one.exit_code, one.output) == (0, "")
    assert len(path.read_text().splitlines()) == 1 + 7
    nowhere = await qlaud(database_url, "usage", "export", "-o", str(tmp_path / "no" / "usage.csv"))
    assert (nowhere.exit_code, "cannot be written" in nowhere.stderr) == (1, True)
    lost = await qlaud(database_url, "usage", "export", "--after", str(new_uuid()))
    assert lost.exit_code == 1
    assert "`after`" in lost.stderr


async def test_a_command_without_a_database_says_so(tmp_path: Path) -> None:
    """One line, no traceback."""
    runner = CliRunner(env={"QLAUD_DATA_DIR": str(tmp_path)})
    result = await asyncio.to_thread(runner.invoke, main, ["reconcile"])
    assert result.exit_code == 2
    assert "DATABASE_URL is not set" in result.stderr
    away = await qlaud("postgresql:///qlaud?host=/nowhere", "reconcile")
    assert away.exit_code == 1
    assert "the database refuses" in away.stderr
