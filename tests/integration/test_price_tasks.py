"""`qlaud prices` with a database: overrides in the list, taking over through the API's table, re-rating."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qlaud_actors import price_tasks as tasks
from qlaud_actors.billing.report import Span
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_key_secret
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.prices import store
from qlaud_actors.prices.rerate import Wanted
from qlaud_actors.program import ProgramError
from qlaud_actors.settings import Secret, Settings

EXTRACT = Path(__file__).parents[1] / "data" / "genai_prices.json"


@pytest.fixture
async def settings(pool: Pool, database_url: str, tmp_path: Path) -> Settings:
    """Those of an operator at the machine."""
    master = Secret(new_key_secret())
    await lifecycle.ensure_master_key(pool, master)
    return Settings(data_dir=tmp_path, database_url=database_url, master_key=master)


async def test_another_table_becomes_overrides(
    pool: Pool, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All differences in one transaction, with source and reason; what the other table lacks stays."""
    providers = json.loads(EXTRACT.read_text("utf-8"))
    for provider in providers:
        for model in provider["models"]:
            if model["id"] in ("claude-haiku-4-5", "claude-sonnet-4-5") and provider["id"] == "anthropic":
                figures = model["prices"][-1]["prices"]
                model["prices"] = [{"prices": {**figures, "output_mtok": 20}}]
    other = tmp_path / "data.json"
    other.write_text(json.dumps(providers))
    choice = tasks.Choice("anthropic", None, str(other))
    how = tasks.TakeOver("api", "news", yes=True, force=False)
    assert await tasks.take_over(settings, choice, how) == 0
    assert "overrides that were set: 2;" in capsys.readouterr().out
    found = [override for _, override in await store.after(pool, 0)]
    assert {override.model for override in found} == {"claude-haiku-4-5", "claude-sonnet-4-5"}
    sonnet = next(o.price for o in found if o.model == "claude-sonnet-4-5" and o.price)
    assert (sonnet.rates.output, sonnet.rates.cache_write_1h) == (20_000_000, 6_000_000)
    changes = (await store.audit(pool, None, None, None, 9))["changes"]
    assert {change["reason"] for change in changes} == {"news"}
    assert changes[0]["source"].startswith("genai-prices data.json: anthropic/")
    await pool.execute("ALTER TABLE price_overrides DISABLE TRIGGER ALL")
    await pool.execute("UPDATE price_overrides SET effective_from = now() - interval '1 hour'")
    assert await tasks.show(settings, tasks.Choice("anthropic", "claude-haiku-4-5"), as_json=True) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["price"]["output"] == 20_000_000
    assert await tasks.diff(settings, choice, as_json=False) == 0


async def test_only_the_operator_sets_overrides(pool: Pool, settings: Settings, tmp_path: Path) -> None:
    """Another key's secret in the place of the master key is refused."""
    _, secret = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("admin", scope="admin"))
    table = tmp_path / "own.toml"
    packaged = Path(__file__).parents[2] / "qlaud_actors/providers/catalog/groq.toml"
    table.write_text(packaged.read_text("utf-8").replace("output = ", "output = 1"))
    choice, how = tasks.Choice("groq", None, str(tmp_path)), tasks.TakeOver("api", "x", yes=True, force=True)
    with pytest.raises(ProgramError, match="not the master key"):
        await tasks.take_over(replace(settings, master_key=secret), choice, how)
    assert await store.after(pool, 0) == []


async def test_rating_anew_tells_what_was_posted(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each outcome and the sums; a dry run posts nothing and has no such sum."""
    wanted = Wanted(Span(0, 2**42))
    assert await tasks.rate_anew(settings, wanted, dry_run=True) == 0
    assert capsys.readouterr().out.split() == ["difference", "$0.000000"]
    assert await tasks.rate_anew(settings, wanted, dry_run=False) == 0
    assert "charged" in capsys.readouterr().out
