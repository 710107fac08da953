"""Real servers for tests: one embedded Postgres and Valkey per session, a database per test."""

import asyncio
import contextlib
import gc
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from qlaud_actors import embedded, program
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.migrate import migrate
from qlaud_actors.db.pool import Pool, connect, open_pool
from qlaud_actors.probe import wait_until

LOGICAL_DATABASES = 256
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30
OURS = re.compile(
    r"^QLAUD_|^(DATABASE|REDIS|CHROMA)_URL$|^STRIPE_|_API_KEY$|_BASE_URL(_|$)|_PROXY$", re.IGNORECASE
)

FreshServers = contextlib.AbstractAsyncContextManager[tuple[str, str]]

_numbers = itertools.count()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, in their random order: all cores are then busy to the end."""
    items.sort(key=lambda item: not ({"acceptance", "test_message_search.py"} & {*item.path.parts}))


def pytest_collection_finish() -> None:
    """What is loaded now stays to the end: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the shell that it runs in."""
    for name in list(os.environ):  # noqa: TID251 - it is being emptied, not read
        if OURS.search(name):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where servers keep their files: in memory, if it has 4 GB to spare for files.

    A database is copied in 40 ms there, and in up to 800 on the disk of a CI machine.
    """
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES
    return MEMORY if roomy else Path(tempfile.gettempdir())


@pytest.fixture(scope="session")
def servers_folder(data_root: Path) -> Iterator[Path]:
    """A short folder (unix sockets live in it), removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="qlaud-test-", dir=data_root))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(servers_folder: Path) -> Iterator[str]:
    """URL of the session's Postgres, without fsync, with a migrated database `qlaud` to copy from."""
    with running(embedded.postgres(servers_folder / "postgres", durable=False), servers_folder) as url:
        run_apart(migrate(url))
        yield url


@pytest.fixture(scope="session")
def valkey_server(servers_folder: Path) -> Iterator[str]:
    """URL of the session's Valkey."""
    server = embedded.valkey(servers_folder / "valkey", durable=False, databases=LOGICAL_DATABASES)
    with running(server, servers_folder) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_server: str) -> AsyncIterator[str]:
    """URL of a fresh database without any table, dropped after the test."""
    async with fresh_database(postgres_server, "template0") as url:
        yield url


@pytest.fixture
async def database_url(postgres_server: str) -> AsyncIterator[str]:
    """URL of a fresh migrated database, dropped after the test."""
    async with fresh_database(postgres_server, embedded.DATABASE) as url:
        yield url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """An open pool on the test's database."""
    pool = await open_pool(database_url, max_size=16)
    yield pool
    try:
        await asyncio.wait_for(pool.close(), 5)
    except TimeoutError:
        pool.terminate()
        pytest.fail("the test left a connection of its pool in use")


@pytest.fixture
def redis_url(valkey_server: str) -> str:
    """URL of an empty logical database. Channels are shared by all of them: use fresh names."""
    return empty_redis(valkey_server)


@pytest.fixture(scope="session")
def fresh_redis(valkey_server: str) -> Callable[[], str]:
    """Makes an empty Redis, for tests that share a cluster: its URL."""
    return lambda: empty_redis(valkey_server)


@pytest.fixture(scope="session")
def fresh_servers(postgres_server: str, valkey_server: str) -> Callable[[], FreshServers]:
    """Makes a fresh database and an empty Redis, for tests that share a cluster: their two URLs."""

    @contextlib.asynccontextmanager
    async def fresh() -> AsyncIterator[tuple[str, str]]:
        async with fresh_database(postgres_server, embedded.DATABASE) as url:
            yield url, empty_redis(valkey_server)

    return fresh


@pytest.fixture
def vault(pool: Pool) -> Vault:
    """A vault with a key of its own."""
    return Vault(Keyring.parse(Keyring.generate()), pool)


@pytest.fixture
def processes_of() -> Callable[[Path], list[int]]:
    """Finds every process that works in a folder: by command line, environment or working directory."""
    return _processes_of


@pytest.fixture
def run_program() -> Callable[[program.Program, Path], contextlib.AbstractContextManager[str]]:
    """Runs a server as long as a block: takes the server and a folder for its log, gives the URL."""
    return running


@contextlib.contextmanager
def running(server: program.Program, folder: Path) -> Iterator[str]:
    """Start a server as our child, wait for it, and stop it by its process at the end."""
    log = folder / f"{server.name}.log"
    process = program.start(server, log)
    try:
        ready = run_apart(wait_until(server.ready, 60, lambda: process.poll() is None))
        assert ready, f"{server.name} did not start:\n{log.read_text(errors='replace')[-3000:]}"
        yield server.url
    finally:
        program.stop(server, process)


@contextlib.asynccontextmanager
async def fresh_database(server_url: str, template: str) -> AsyncIterator[str]:
    """A copy of a template database on the server; whoever is still connected at the end is cut off."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    # Copying files takes half as long as writing their pages to the log.
    await _execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield server_url.replace(f"/{embedded.DATABASE}?", f"/{name}?")
    finally:
        await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def empty_redis(server_url: str) -> str:
    """URL of a logical database of the server, emptied."""
    url = server_url.replace("db=0", f"db={next(_numbers) % LOGICAL_DATABASES}")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on an event loop of its own, in a thread, away from the tests' loops."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _execute(server_url: str, statement: str) -> None:
    """Run a statement from outside the databases that it copies or drops."""
    connection = await connect(server_url.replace(f"/{embedded.DATABASE}?", "/postgres?"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _processes_of(folder: Path) -> list[int]:
    return [
        pid for path in Path("/proc").glob("[0-9]*") if (pid := int(path.name)) and _works_in(path, folder)
    ]


def _works_in(process: Path, folder: Path) -> bool:
    name = os.fsencode(folder)
    try:
        if process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
            return False  # already dead, only not yet reaped
        if process.joinpath("cwd").readlink().is_relative_to(folder):
            return True
        return any(name in process.joinpath(part).read_bytes() for part in ("cmdline", "environ"))
    except OSError:
        return False
