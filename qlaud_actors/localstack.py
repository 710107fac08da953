"""What `qlaud up` leaves in the data directory while it runs, so that other commands find it."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from qlaud_actors.program import ProgramError
from qlaud_actors.settings import Secret, Settings

LOCK_FILE = "lock"
STACK_FILE = "stack.json"
PATIENCE_SECONDS = 0.5
"""A command that only looks holds the lock for a moment; that is not a second stack."""


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A running stack: the supervisor's process and the addresses of its parts."""

    pid: int
    base_url: str
    """Where clients reach it."""
    local_url: str
    """Where this machine reaches it."""
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    chroma_url: str = field(repr=False)


@contextlib.contextmanager
def held_data_dir(data_dir: Path) -> Iterator[None]:
    """Make the directory and own it. Raises ProgramError when another process of ours does.

    The kernel drops the lock when we die, however that happens.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ProgramError(f"{data_dir} cannot be used ({error.strerror}); set QLAUD_DATA_DIR") from error
    try:
        if not _lock(descriptor, fcntl.LOCK_EX, PATIENCE_SECONDS):
            raise ProgramError(
                f"another qlaud runs on {data_dir}{_holder(data_dir)}; stop it or set QLAUD_DATA_DIR"
            )
        (data_dir / STACK_FILE).unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def published(data_dir: Path, stack: LocalStack) -> Iterator[None]:
    """Let other commands find this stack while the block runs."""
    path = data_dir / STACK_FILE
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(stack))
    draft.rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def local_stack(settings: Settings) -> LocalStack | None:
    """The stack that runs on this data directory now; a file that a killed one left does not count."""
    try:
        stack = msgspec.json.decode((settings.data_dir / STACK_FILE).read_bytes(), type=LocalStack)
        descriptor = os.open(settings.data_dir / LOCK_FILE, os.O_RDWR)
    except (OSError, msgspec.DecodeError):
        return None
    try:
        return None if _lock(descriptor, fcntl.LOCK_SH, 0) else stack
    finally:
        os.close(descriptor)


def with_local_stack(settings: Settings) -> Settings:
    """The settings, with addresses that are not set taken from the running stack, if there is one."""
    stack = local_stack(settings)
    if stack is None:
        return settings
    return replace(
        settings,
        database_url=settings.database_url or stack.database_url,
        redis_url=settings.redis_url or stack.redis_url,
        chroma_url=settings.chroma_url or stack.chroma_url,
    )


def local_url(settings: Settings) -> str:
    """Where this machine reaches the front door, also when that listens on every address."""
    every = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    host = every.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def child_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Our environment plus what the settings know better: for `python -m api` and `-m workers`."""
    known: dict[str, str | Secret | None] = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "CHROMA_URL": settings.chroma_url,
        "QLAUD_MASTER_KEY": settings.master_key,
        "QLAUD_KEYRING": settings.keyring,
        "QLAUD_DATA_DIR": str(settings.data_dir),
        "QLAUD_HOST": settings.host,
        "QLAUD_PORT": str(settings.port),
        "PYTHONUNBUFFERED": "1",
    }
    plain = {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in known.items()
        if value is not None
    }
    return dict(environ) | plain


def _lock(descriptor: int, kind: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _holder(data_dir: Path) -> str:
    try:
        stack = msgspec.json.decode((data_dir / STACK_FILE).read_bytes(), type=LocalStack)
    except (OSError, msgspec.DecodeError):
        return ""
    return f" (process {stack.pid}, {stack.base_url})"
