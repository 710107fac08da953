"""The data directory: who owns it, and how other commands find what runs there."""

import stat
from pathlib import Path

import pytest

from qlaud_actors.localstack import (
    LocalStack,
    child_environment,
    held_data_dir,
    local_stack,
    local_url,
    published,
    with_local_stack,
)
from qlaud_actors.program import ProgramError
from qlaud_actors.settings import Secret, Settings

STACK = LocalStack(
    pid=1,
    base_url="https://ai.example.com",
    local_url="http://127.0.0.1:8787",
    database_url="postgresql://a:secret@/qlaud",
    redis_url="unix:///r",
    chroma_url="http://127.0.0.1:1",
)


def test_a_running_stack_is_found_until_it_ends(tmp_path: Path) -> None:
    """Its addresses are there while the owner holds the directory, and gone afterwards."""
    settings = Settings(data_dir=tmp_path)
    with held_data_dir(tmp_path):
        assert local_stack(settings) is None
        with published(tmp_path, STACK):
            assert local_stack(settings) == STACK
        assert local_stack(settings) is None


def test_a_file_that_a_killed_stack_left_does_not_count(tmp_path: Path) -> None:
    """Without the owner's lock the addresses are stale, and the next owner removes them."""
    with held_data_dir(tmp_path), published(tmp_path, STACK):
        left = (tmp_path / "stack.json").read_bytes()
    (tmp_path / "stack.json").write_bytes(left)
    assert local_stack(Settings(data_dir=tmp_path)) is None
    with held_data_dir(tmp_path):
        assert not (tmp_path / "stack.json").exists()


def test_a_second_owner_is_refused_in_words(tmp_path: Path) -> None:
    """The message names the process that is in the way and what to do."""
    with (
        held_data_dir(tmp_path),
        published(tmp_path, STACK),
        pytest.raises(ProgramError, match=r"another qlaud runs on .* \(process 1, .*set QLAUD_DATA_DIR"),
        held_data_dir(tmp_path),
    ):
        pass


def test_a_directory_that_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    """A file in the way is no traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(ProgramError, match="set QLAUD_DATA_DIR"), held_data_dir(tmp_path / "file" / "data"):
        pass


def test_addresses_are_readable_by_the_owner_alone(tmp_path: Path) -> None:
    """The file may hold a database's password; so may no repr."""
    with held_data_dir(tmp_path), published(tmp_path, STACK):
        assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600
    assert "secret" not in repr(STACK)


def test_what_is_set_is_not_replaced(tmp_path: Path) -> None:
    """Only addresses that the environment leaves open come from the running stack."""
    with held_data_dir(tmp_path), published(tmp_path, STACK):
        settings = with_local_stack(Settings(data_dir=tmp_path, redis_url="redis://mine"))
    assert settings.redis_url == "redis://mine"
    assert settings.database_url == STACK.database_url
    assert settings.chroma_url == STACK.chroma_url


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8787"),
        ("0.0.0.0", "http://127.0.0.1:8787"),
        ("::", "http://[::1]:8787"),
        ("localhost", "http://localhost:8787"),
    ],
)
def test_the_front_door_is_reachable_from_here(host: str, expected: str) -> None:
    """An address to listen on becomes one to connect to."""
    assert local_url(Settings(host=host)) == expected


def test_children_get_what_the_settings_know() -> None:
    """Addresses and secrets are added to the environment that we were given; the rest is kept."""
    settings = Settings(data_dir=Path("/data"), redis_url="unix:///r", master_key=Secret("k"))
    environment = child_environment(settings, {"OPENAI_API_KEY": "sk", "REDIS_URL": "old"})
    assert environment["OPENAI_API_KEY"] == "sk"
    assert environment["REDIS_URL"] == "unix:///r"
    assert environment["QLAUD_MASTER_KEY"] == "k"
    assert environment["QLAUD_DATA_DIR"] == "/data"
    assert "DATABASE_URL" not in environment
