"""`qlaud doctor`: looks at everything the service stands on, and says in words what is wrong."""

import os
import stat
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from qlaud_actors import embedded
from qlaud_actors.connectors import rotation
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.migrate import missing_migrations
from qlaud_actors.db.pool import ConnectionLost, DatabaseError, connect
from qlaud_actors.localstack import LocalStack, local_stack, local_url, with_local_stack
from qlaud_actors.masterkey import KEYRING_FILE, MASTER_KEY_FILE, with_stored_secrets
from qlaud_actors.probe import http_status
from qlaud_actors.program import ProgramError
from qlaud_actors.providers.catalog import Catalog, CatalogError
from qlaud_actors.settings import Settings, SettingsError

OLDEST_POSTGRES = 14


class Verdict(Enum):
    """How a check ended; only WRONG fails the command."""

    FINE = "ok"
    NOTE = "note"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw, and what to do about it."""

    subject: str
    verdict: Verdict
    words: str
    remedy: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks, on the running local stack where no address is set. Changes nothing."""
    stack = local_stack(settings)
    reached = with_local_stack(settings)
    findings = [_python(), _data_dir(settings)]
    findings += [_secret(settings, name) for name in (MASTER_KEY_FILE, KEYRING_FILE)]
    findings += [await _store(store, reached) for store in STORES]
    findings += await _old_keys(with_stored_secrets(reached))
    findings += [await _front_door(stack, settings), _providers(settings)]
    return findings


def table(findings: list[Finding]) -> str:
    """The findings as aligned text; remedies stand under what they are for."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict.value:<6} {finding.subject:<{width}}  {finding.words}")
        if finding.remedy:
            lines.append(f"{'':<6} {'':<{width}}  → {finding.remedy}")
    return "\n".join(lines)


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(finding.verdict is not Verdict.WRONG for finding in findings)


def _python() -> Finding:
    return Finding("Python", Verdict.FINE, ".".join(map(str, sys.version_info[:3])))


def _data_dir(settings: Settings) -> Finding:
    path = settings.data_dir
    if path.is_dir():
        if os.access(path, os.W_OK | os.X_OK):
            return Finding("data directory", Verdict.FINE, str(path))
        return Finding(
            "data directory",
            Verdict.WRONG,
            f"{path} is not writable",
            "change its owner or set QLAUD_DATA_DIR",
        )
    above = next(parent for parent in path.parents if parent.exists())
    if path.exists() or not os.access(above, os.W_OK | os.X_OK):
        return Finding("data directory", Verdict.WRONG, f"{path} cannot be made", "set QLAUD_DATA_DIR")
    return Finding("data directory", Verdict.NOTE, f"{path} will be made by `qlaud up`")


def _secret(settings: Settings, name: str) -> Finding:
    """The master key or the keyring: by environment, or in a file that nobody else may read."""
    subject, variable, given = {
        MASTER_KEY_FILE: ("master key", "QLAUD_MASTER_KEY", settings.master_key),
        KEYRING_FILE: ("keyring", "QLAUD_KEYRING", settings.keyring),
    }[name]
    path = settings.data_dir / name
    if given is not None:
        return Finding(subject, Verdict.FINE, f"from {variable}")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return Finding(subject, Verdict.NOTE, "will be made by `qlaud up`", f"or set {variable}")
    if mode & 0o077:
        return Finding(subject, Verdict.WRONG, f"{path} is open to others ({mode:o})", f"chmod 600 {path}")
    return Finding(subject, Verdict.FINE, str(path))


@dataclass(frozen=True, slots=True)
class Store:
    """A store to look at: its address, its question, and whether the embedded one can be started."""

    subject: str
    variable: str
    url: Callable[[Settings], str | None]
    look: Callable[[str], Awaitable[Finding]]
    embedded: Callable[[], Path]


async def _store(store: Store, settings: Settings) -> Finding:
    url = store.url(settings)
    if url is not None:
        return await store.look(url)
    try:
        program = store.embedded()
    except ProgramError as error:
        return Finding(store.subject, Verdict.WRONG, str(error), f"set {store.variable}")
    if not os.access(program, os.X_OK):
        words = f"the embedded server {program} cannot be run"
        return Finding(
            store.subject, Verdict.WRONG, words, f"run `make install` again or set {store.variable}"
        )
    return Finding(store.subject, Verdict.NOTE, "embedded, not running now; `qlaud up` starts it")


async def _postgres(url: str) -> Finding:
    subject = "Postgres"
    try:
        connection = await connect(url)
    except (*ConnectionLost, DatabaseError, ValueError) as error:
        words = f"{_place(url)} refuses: {_one_line(error)}"
        return Finding(subject, Verdict.WRONG, words, "start it, or correct DATABASE_URL")
    try:
        version = connection.get_server_version()
        missing = await missing_migrations(connection)
    finally:
        await connection.close()
    words = f"{_place(url)}, version {version.major}.{version.micro}"
    if version.major < OLDEST_POSTGRES:
        return Finding(subject, Verdict.WRONG, words, f"PostgreSQL {OLDEST_POSTGRES} or newer is needed")
    if missing:
        words += f", {len(missing)} migration{'' if len(missing) == 1 else 's'} missing"
        return Finding(subject, Verdict.WRONG, words, "run `qlaud migrate`")
    return Finding(subject, Verdict.FINE, f"{words}, migrated")


async def _old_keys(settings: Settings) -> list[Finding]:
    """Keys of the ring that must stay, or that are missing; nothing where the database cannot tell."""
    if settings.database_url is None or settings.keyring is None:
        return []
    subject = "encryption keys"
    try:
        keyring = Keyring.parse(settings.keyring.reveal())
    except SettingsError as error:
        return [Finding(subject, Verdict.WRONG, str(error), "correct QLAUD_KEYRING")]
    try:
        connection = await connect(settings.database_url)
        try:
            found = await rotation.status(connection, keyring)
        finally:
            await connection.close()
    except (*ConnectionLost, DatabaseError, ValueError):
        return []  # the check of Postgres says why
    findings = [
        Finding(subject, Verdict.WRONG, f"{use.key_id} is not in the ring: {use.words()}", "put it back")
        for use in found.missing
    ]
    findings += [
        Finding(subject, Verdict.NOTE, f"{use.key_id} must stay: {use.words()}", "run `qlaud vault rotate`")
        for use in found.old
        if use not in found.missing
    ]
    return findings or [Finding(subject, Verdict.FINE, f"all under {found.newest}")]


async def _redis(url: str) -> Finding:
    subject = "Redis"
    try:
        async with Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3) as client:
            memory = await client.info("memory")
    except (RedisError, OSError, ValueError) as error:
        words = f"{_place(url)} refuses: {_one_line(error)}"
        return Finding(subject, Verdict.WRONG, words, "start it, or correct REDIS_URL")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return Finding(subject, Verdict.FINE, f"{_place(url)}, never evicts")
    words = f"{_place(url)} may evict queued wake-ups and live events ({policy})"
    return Finding(subject, Verdict.NOTE, words, "set maxmemory-policy noeviction")


async def _chroma(url: str) -> Finding:
    status = await http_status(f"{url}/api/v2/heartbeat", 5.0)
    if status == 200:
        return Finding("Chroma", Verdict.FINE, _place(url))
    words = f"{_place(url)} " + ("does not answer" if status is None else f"answers {status}")
    return Finding("Chroma", Verdict.WRONG, words, "search needs it: start it, or correct CHROMA_URL")


async def _front_door(stack: LocalStack | None, settings: Settings) -> Finding:
    url = stack.local_url if stack else local_url(settings)
    status = await http_status(f"{url}/readyz", 5.0)
    if status == 200:
        return Finding("front door", Verdict.FINE, f"{url} is ready")
    if status is not None:
        words = f"{url}/readyz answers {status}"
        return Finding(
            "front door", Verdict.WRONG, words, "see its log, or set QLAUD_PORT if it is another's"
        )
    if stack:
        log = settings.data_dir / "logs" / "api.log"
        return Finding("front door", Verdict.WRONG, f"{url} does not answer", f"see {log}")
    return Finding("front door", Verdict.NOTE, "not running", "start it with `qlaud up`")


def _providers(settings: Settings) -> Finding:
    try:
        catalog = Catalog.load(settings.environ, directory=settings.catalog_dir)
    except CatalogError as error:
        return Finding("providers", Verdict.WRONG, str(error), "correct the variable or the file")
    ready = [provider.slug for provider in catalog.providers() if catalog.configured(provider)]
    if ready:
        return Finding("providers", Verdict.FINE, ", ".join(ready))
    words = "none is configured, so no model can be called"
    return Finding("providers", Verdict.NOTE, words, "set ANTHROPIC_API_KEY or OPENAI_API_KEY")


def _place(url: str) -> str:
    """Where a URL points, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the local socket"


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


STORES = (
    Store(
        "Postgres",
        "DATABASE_URL",
        lambda s: s.database_url,
        _postgres,
        lambda: embedded.postgres_bin() / "postgres",
    ),
    Store("Redis", "REDIS_URL", lambda s: s.redis_url, _redis, embedded.valkey_server),
    Store("Chroma", "CHROMA_URL", lambda s: s.chroma_url, _chroma, lambda: Path(sys.executable)),
)
