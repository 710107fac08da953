"""The embedded stores: real servers that start from nothing, come back, and cannot be left behind."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis

from qlaud_actors import embedded, program
from qlaud_actors.db.pool import Pool, connect
from qlaud_actors.probe import http_status, wait_until

Run = Callable[[program.Program, Path], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def cluster(servers_folder: Path) -> Iterator[Path]:
    """A folder with a Postgres cluster that the tests of this module start and stop in turn."""
    folder = servers_folder / "cluster"
    embedded.postgres(folder, durable=False).prepare()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder(servers_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder with a short path."""
    path = servers_folder / f"t{abs(hash(request.node.name)) % 10**6}"
    path.mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def test_every_test_has_a_migrated_database_of_its_own(pool: Pool) -> None:
    """The template's tables are there, in a copy, on PostgreSQL 18."""
    assert await pool.fetchval("SELECT count(*) FROM accounts") == 1
    assert await pool.fetchval("SELECT current_database()") != embedded.DATABASE
    assert (await pool.fetchval("SHOW server_version")).startswith("18.")


async def test_postgres_keeps_its_rows_over_a_restart(cluster: Path, folder: Path, run_program: Run) -> None:
    """What was committed is there when the same folder is started again."""
    server = embedded.postgres(cluster, durable=False)
    with run_program(server, folder) as url:
        connection = await connect(url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()
    with run_program(server, folder) as url:
        connection = await connect(url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.execute("DROP TABLE kept")
        await connection.close()


async def test_postgres_comes_back_after_kill_nine(cluster: Path, folder: Path, run_program: Run) -> None:
    """The lock file of a killed server does not block the next one."""
    server = embedded.postgres(cluster, durable=False)
    process = program.start(server, folder / "killed.log")
    assert await wait_until(server.ready, 30)
    process.kill()
    process.wait()
    assert (cluster / "postmaster.pid").exists()
    with run_program(server, folder) as url:
        connection = await connect(url)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


def test_a_reused_process_number_does_not_block_postgres(
    cluster: Path, folder: Path, run_program: Run
) -> None:
    """A lock file whose number now belongs to an unrelated process of ours is put aside."""
    server = embedded.postgres(cluster, durable=False)
    rights = program.as_user(server.user)
    bystander = subprocess.Popen(["/bin/sleep", "60"], cwd="/", **rights)
    try:
        (cluster / "postmaster.pid").write_text(f"{bystander.pid}\n{cluster}\n0\n5432\n{cluster}\n\n")
        with run_program(server, folder):
            pass
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_postgres_that_was_left_running_is_ended_first(
    cluster: Path, folder: Path, run_program: Run
) -> None:
    """Two servers never share one folder: the new one waits until the old one is gone."""
    server = embedded.postgres(cluster, durable=False)
    leftover = program.start(server, folder / "leftover.log")
    assert await wait_until(server.ready, 30)
    reaper = asyncio.create_task(asyncio.to_thread(leftover.wait))
    await asyncio.to_thread(server.prepare)
    assert await reaper == 0
    with run_program(server, folder):
        pass


def test_a_deep_folder_gets_its_socket_elsewhere(servers_folder: Path) -> None:
    """A unix socket's path is limited to about a hundred bytes; the address says where it is."""
    deep = servers_folder / ("d" * 50) / ("e" * 50)
    server = embedded.valkey(deep, durable=False)
    path = Path(server.url.removeprefix("unix://").partition("?")[0])
    assert not path.is_relative_to(deep)
    assert len(os.fsencode(path)) < 100
    process = program.start(server, servers_folder / "deep.log")
    try:
        assert asyncio.run(wait_until(server.ready, 10))
    finally:
        program.stop(server, process)
        shutil.rmtree(path.parent)


def test_valkey_never_evicts_and_keeps_its_data(folder: Path, run_program: Run) -> None:
    """The append-only file brings keys back, and no key is dropped for want of memory."""
    server = embedded.valkey(folder / "valkey")
    with run_program(server, folder) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.set("kept", "yes")
    with run_program(server, folder) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.get("kept") == "yes"


async def test_chroma_answers_within_seconds(folder: Path, run_program: Run) -> None:
    """Chroma's server runs out of its wheel and answers its heartbeat."""
    server = embedded.chroma(folder / "chroma", program.free_port())
    began = time.monotonic()
    with run_program(server, folder) as url:
        assert await http_status(f"{url}/api/v2/heartbeat") == 200
    assert time.monotonic() - began < 20
    assert await http_status(f"{url}/api/v2/heartbeat") is None


def test_the_stores_see_no_secrets(folder: Path) -> None:
    """A store's environment is fixed: no provider's key is handed on to it."""
    for server in (embedded.valkey(folder / "v"), embedded.chroma(folder / "c", 1)):
        assert set(server.env) <= {"PATH", "LANG", "TZ", "HOME", "ANONYMIZED_TELEMETRY", "NO_COLOR"}


def test_stores_do_not_outlive_a_killed_parent(
    cluster: Path, folder: Path, processes_of: Callable[[Path], list[int]]
) -> None:
    """`kill -9` of the process that started them ends Postgres, Valkey and Chroma."""
    code = f"""
        import time
        from pathlib import Path
        from qlaud_actors import embedded, program
        folder = Path({str(folder)!r})
        for server in (
            embedded.postgres(Path({str(cluster)!r}), durable=False),
            embedded.valkey(folder / "valkey"),
            embedded.chroma(folder / "chroma", program.free_port()),
        ):
            program.start(server, folder / f"{{server.name}}.log")
        print("started", flush=True)
        time.sleep(60)
    """
    script = textwrap.dedent(code)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        time.sleep(0.5)
        assert len(processes_of(cluster)) >= 1
        assert len(processes_of(folder / "valkey")) == 1
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (left := processes_of(cluster) + processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
