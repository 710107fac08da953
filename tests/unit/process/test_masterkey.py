"""The secrets of a fresh data directory."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from qlaud_actors.masterkey import keyring, master_key, with_stored_secrets
from qlaud_actors.settings import KEY_PATTERN, Secret, Settings, SettingsError


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    """The file is private, whole, and the same at every start."""
    settings = Settings(data_dir=tmp_path)
    key = master_key(settings).reveal()
    assert KEY_PATTERN.match(key)
    assert (tmp_path / "master.key").read_text() == f"{key}\n"
    assert stat.S_IMODE((tmp_path / "master.key").stat().st_mode) == 0o600
    assert master_key(settings).reveal() == key
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


def test_the_environment_wins_and_nothing_is_written(tmp_path: Path) -> None:
    """A key that is given is not copied to disk."""
    settings = Settings(data_dir=tmp_path, master_key=Secret("given"), keyring=Secret("ring"))
    assert master_key(settings).reveal() == "given"
    assert keyring(settings).reveal() == "ring"
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_key_is_refused_without_being_shown(tmp_path: Path) -> None:
    """The message names the file, not what stands in it."""
    (tmp_path / "master.key").write_text("qlk_live_short\n")
    with pytest.raises(SettingsError, match=r"master\.key does not hold a key") as caught:
        master_key(Settings(data_dir=tmp_path))
    assert "qlk_live_short" not in str(caught.value)


def test_stored_secrets_fill_what_is_not_set(tmp_path: Path) -> None:
    """`qlaud api` alone reads what `qlaud up` made, and makes nothing itself."""
    settings = Settings(data_dir=tmp_path)
    assert with_stored_secrets(settings) == settings
    key = master_key(settings).reveal()
    stored = with_stored_secrets(settings).master_key
    assert stored is not None
    assert stored.reveal() == key
    given = with_stored_secrets(replace(settings, master_key=Secret("mine"))).master_key
    assert given is not None
    assert given.reveal() == "mine"


def test_a_keyring_is_made_once_and_works(tmp_path: Path) -> None:
    """What one start wrote, the next one reads."""
    from qlaud_actors.connectors.vault import Keyring

    settings = Settings(data_dir=tmp_path)
    text = keyring(settings).reveal()
    assert Keyring.parse(text)
    assert keyring(settings).reveal() == text
    assert stat.S_IMODE((tmp_path / "keyring").stat().st_mode) == 0o600
