"""The two secrets that a fresh data directory gets: the first admin key and the encryption keys."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from qlaud_actors.ids import new_key_secret
from qlaud_actors.program import ProgramError
from qlaud_actors.settings import KEY_PATTERN, Secret, Settings, SettingsError

MASTER_KEY_FILE = "master.key"
KEYRING_FILE = "keyring"


def master_key(settings: Settings) -> Secret:
    """QLAUD_MASTER_KEY, else the data directory's, made on the first call."""
    if settings.master_key is not None:
        return settings.master_key
    path = settings.data_dir / MASTER_KEY_FILE
    text = read_secret(path) or _mint(path, new_key_secret())
    if not KEY_PATTERN.match(text):
        raise SettingsError(f"{path} does not hold a key (qlk_live_ followed by 64 hex characters)")
    return Secret(text)


def keyring(settings: Settings) -> Secret:
    """QLAUD_KEYRING, else the data directory's, made on the first call."""
    if settings.keyring is not None:
        return settings.keyring
    from qlaud_actors.connectors.vault import Keyring  # cryptography is slow to import

    path = settings.data_dir / KEYRING_FILE
    return Secret(read_secret(path) or _mint(path, Keyring.generate()))


def with_stored_secrets(settings: Settings) -> Settings:
    """The settings, with secrets that are not set read from the data directory; makes none."""
    key, ring = (read_secret(settings.data_dir / name) for name in (MASTER_KEY_FILE, KEYRING_FILE))
    return replace(
        settings,
        master_key=settings.master_key or (Secret(key) if key else None),
        keyring=settings.keyring or (Secret(ring) if ring else None),
    )


def read_secret(path: Path) -> str | None:
    """A secret file's text without the line's end, None when there is none."""
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from error


def _mint(path: Path, text: str) -> str:
    """Write a secret once, whole or not at all, readable by us alone; the first writer wins."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
    return read_secret(path) or text
