"""`qlaud prices`: listing, comparing and taking over without any server."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qlaud_actors.cli import main
from qlaud_actors.providers.catalog import Catalog

EXTRACT = Path(__file__).parents[2] / "data" / "genai_prices.json"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data directory of another stack, and an operator's folder."""
    (tmp_path / "catalog").mkdir()
    monkeypatch.setenv("QLAUD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("QLAUD_CATALOG_DIR", str(tmp_path / "catalog"))


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["prices", *arguments], input=answer)


def changed(folder: Path, model: str, **figures: float) -> str:
    """The extract with other figures for one of Anthropic's models."""
    providers = json.loads(EXTRACT.read_text("utf-8"))
    for provider in providers:
        for entry in provider["models"]:
            if (provider["id"], entry["id"]) == ("anthropic", model):
                entry["prices"] = [{"prices": {**entry["prices"][-1]["prices"], **figures}}]
    path = folder / "data.json"
    path.write_text(json.dumps(providers))
    return str(path)


def test_prices_are_listed() -> None:
    """For people a line each, for programs all figures; what is missing without a database is said."""
    lines = run("list", "--provider", "anthropic", "--model", "claude-haiku-4-5")
    assert lines.exit_code == 0
    assert "no database is known" in lines.stderr
    head, line = lines.stdout.splitlines()
    assert "input" in head
    assert line.split()[:4] == ["anthropic/claude-haiku-4-5", "1,000,000", "5,000,000", "100,000"]
    (one,) = json.loads(
        run("list", "--provider", "anthropic", "--model", "claude-haiku-4-5", "--json").stdout
    )
    assert (one["price"]["cache_write_1h"], one["version"].partition("@")[0]) == (
        2_000_000,
        "anthropic/claude-haiku-4-5",
    )


def test_a_difference_is_shown_and_told_by_the_status(tmp_path: Path) -> None:
    """1 when something differs, for people and for programs; 0 when nothing does."""
    other = changed(tmp_path, "claude-haiku-4-5", output_mtok=6)
    told = run("diff", "--against", other, "--provider", "anthropic")
    assert told.exit_code == 1
    assert told.stdout.splitlines()[0].startswith("anthropic/claude-haiku-4-5  (genai-prices data.json: ")
    assert told.stdout.splitlines()[1].split() == ["price.output", "5,000,000", "→", "6,000,000"]
    assert len(told.stdout.splitlines()) == 2
    (one,) = json.loads(run("diff", "--against", other, "--provider", "anthropic", "--json").stdout)
    assert one["theirs"]["price"]["output"] == 6_000_000
    same = run("diff", "--against", str(EXTRACT), "--provider", "anthropic")
    assert (same.exit_code, same.stdout) == (0, "no price differs\n")


def test_taking_over_asks_first(tmp_path: Path) -> None:
    """After a no nothing is written; after a yes the folder has the price, with its source."""
    other = changed(tmp_path, "claude-haiku-4-5", output_mtok=6)
    folder = tmp_path / "catalog"
    assert run("apply", "--against", other, answer="n\n").exit_code == 0
    assert list(folder.iterdir()) == []
    done = run("apply", "--against", other, answer="y\n")
    assert done.exit_code == 0, done.output
    catalog = Catalog.load({"ANTHROPIC_API_KEY": "k"}, directory=folder)
    model = catalog.resolve("claude-haiku-4-5")
    assert (model.price.rates.output, model.source) == (
        6_000_000,
        "genai-prices data.json: anthropic/claude-haiku-4-5",
    )
    again = run("diff", "--against", other, "--provider", "anthropic")
    assert (again.exit_code, again.stdout) == (0, "no price differs\n"), "logs are not among the answer"


def test_what_is_hard_to_believe_is_left_out(tmp_path: Path) -> None:
    """Unless somebody insists."""
    other = changed(tmp_path, "claude-haiku-4-5", output_mtok=0.01)
    left = run("apply", "--against", other, "--yes")
    assert left.exit_code == 1
    assert "left out as hard to believe: 1" in left.stderr
    assert list((tmp_path / "catalog").iterdir()) == []
    assert run("apply", "--against", other, "--yes", "--force").exit_code == 0
    assert [path.name for path in (tmp_path / "catalog").iterdir()] == ["prices-anthropic.toml"]


def test_another_folder_of_files_is_a_table_too(tmp_path: Path) -> None:
    """Catalogue files of somewhere else are compared row by row."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = Path(__file__).parents[3] / "qlaud_actors/providers/catalog/anthropic.toml"
    folder.joinpath("a.toml").write_text(path.read_text().replace("input = 1_000_000", "input = 1_100_000"))
    told = run("diff", "--against", str(folder), "--model", "claude-haiku-4-5")
    assert (told.exit_code, "1,100,000" in told.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("diff",), "genai-prices is not installed"),
        (("diff", "--against", "/nowhere"), "neither a file nor a folder"),
        (("diff", "--against", __file__), "not in the form of genai-prices"),
        (("rerate", "--from", "2026-11-01", "--to", "2026-11-02"), "DATABASE_URL is not set"),
    ],
)
def test_mistakes_end_in_words(arguments: tuple[str, ...], words: str) -> None:
    """One line and a status, never a traceback."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_overrides_need_a_database_and_the_operator(tmp_path: Path) -> None:
    """Without them nothing is set."""
    other = changed(tmp_path, "claude-haiku-4-5", output_mtok=6)
    result = run("apply", "--against", other, "--to", "api", "--yes")
    assert result.exit_code == 1
    assert "QLAUD_MASTER_KEY" in result.stderr
