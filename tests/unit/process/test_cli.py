"""The command line: what it says, and that operators' mistakes end in words."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from qlaud_actors.cli import main
from qlaud_actors.doctor import Finding, Verdict, healthy, table
from qlaud_actors.localstack import LocalStack
from qlaud_actors.settings import Secret, Settings
from qlaud_actors.up import own_programs, welcome

STACK = LocalStack(1, "http://127.0.0.1:8787", "http://127.0.0.1:8787", "d", "r", "c")


def test_the_commands_are_those_of_the_run_contract() -> None:
    """Scripts rely on these names."""
    assert {"up", "demo", "api", "worker", "migrate", "doctor"} <= set(main.commands)


def test_help_and_version() -> None:
    """Every command says what it does."""
    runner = CliRunner()
    assert runner.invoke(main, ["--version"]).output.startswith("qlaud, version ")
    text = runner.invoke(main, ["--help"]).output
    for name, command in main.commands.items():
        assert name in text
        assert command.help


def test_bad_settings_end_in_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """All malformed variables are named at once, without a traceback."""
    monkeypatch.setenv("QLAUD_PORT", "none")
    monkeypatch.setenv("REDIS_URL", "nowhere")
    result = CliRunner().invoke(main, ["up"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "qlaud: QLAUD_PORT must be a whole number from 1 to 65535",
        "qlaud: REDIS_URL must be a URL beginning with redis:// or rediss:// or unix://",
    ]


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_part_alone_needs_addresses(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a running stack and without URLs it says which are missing."""
    monkeypatch.setenv("QLAUD_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(main, [command])
    assert result.exit_code == 2
    assert "DATABASE_URL is not set, and no `qlaud up` runs on" in result.stderr
    assert "REDIS_URL is not set" in result.stderr


def test_the_welcome_never_shows_the_key(tmp_path: Path) -> None:
    """It says where the key is."""
    minted = welcome(Settings(data_dir=tmp_path), STACK)
    assert str(tmp_path / "master.key") in minted
    assert STACK.base_url in minted
    given = welcome(Settings(data_dir=tmp_path, master_key=Secret("qlk_live_secret")), STACK)
    assert "qlk_live_secret" not in given
    assert "$QLAUD_MASTER_KEY" in given


def test_as_many_workers_as_asked_each_with_a_port() -> None:
    """Processes on one machine cannot share one port."""
    api, workers = own_programs(Settings(workers=3, worker_port=9000), {})
    assert api.argv[-2:] == ("-m", "api")
    assert [worker.name for worker in workers] == ["worker-1", "worker-2", "worker-3"]
    assert [worker.env["QLAUD_WORKER_PORT"] for worker in workers] == ["9000", "9001", "9002"]


def test_findings_become_a_table_and_a_verdict() -> None:
    """Only what is wrong fails; each remedy stands under its finding."""
    fine = [Finding("Python", Verdict.FINE, "3.11.7"), Finding("keys", Verdict.NOTE, "not yet", "wait")]
    assert healthy(fine)
    assert not healthy([*fine, Finding("Redis", Verdict.WRONG, "away", "start it")])
    assert table(fine) == ("ok     Python  3.11.7\nnote   keys    not yet\n               → wait")
