"""`qlaud up`: the whole service on one machine, from an empty directory to an answering front door."""

import asyncio
import contextlib
import errno
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

from qlaud_actors import embedded, masterkey
from qlaud_actors.db.migrate import migrate
from qlaud_actors.db.pool import ConnectionLost, DatabaseError
from qlaud_actors.localstack import (
    LocalStack,
    child_environment,
    held_data_dir,
    local_url,
    published,
    with_local_stack,
)
from qlaud_actors.probe import http_status, redis_answers
from qlaud_actors.program import Program, ProgramError, free_port
from qlaud_actors.settings import Settings
from qlaud_actors.supervisor import Say, Supervisor

STOP_GRACE_SECONDS = 10.0
"""On top of what QLAUD_DRAIN_SECONDS grants to turns."""

INSISTENCE_SECONDS = 2.0
"""A second signal before that is an echo of the first: of make, of a shell, of a process group."""

CONNECTIONS_TO_SPARE = 20


async def up(settings: Settings, environ: Mapping[str, str], say: Say, *, verbose: bool = False) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; a second signal kills what is slow to end."""
    stopped_at: float | None = None
    supervisor = Supervisor(settings.data_dir / "logs", say, echo=verbose)
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        nonlocal stopped_at
        if stopped_at is None:
            stopped_at = time.monotonic()
            say("stopping …")
            task.cancel()
        elif time.monotonic() - stopped_at > INSISTENCE_SECONDS:
            supervisor.kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        async with open_stack(settings, environ, say, supervisor) as stack:
            say(welcome(settings, stack))
            await asyncio.Future()
    except asyncio.CancelledError:
        if stopped_at is None:
            raise
    say("stopped")


@contextlib.asynccontextmanager
async def open_stack(
    settings: Settings, environ: Mapping[str, str], say: Say, supervisor: Supervisor
) -> AsyncIterator[LocalStack]:
    """Start everything, yield its addresses once the front door is ready, stop everything.

    Raises ProgramError, SettingsError or MigrationError when it cannot be started.
    """
    with held_data_dir(settings.data_dir):
        require_free(settings.host, settings.port)
        try:
            settings = await start_stores(settings, say, supervisor)
            assert settings.database_url is not None
            if applied := await migrate_or_explain(settings.database_url):
                say(f"migrated the database: {', '.join(applied)}")
            settings = replace(
                settings, master_key=masterkey.master_key(settings), keyring=masterkey.keyring(settings)
            )
            await _start_own(settings, environ, say, supervisor)
            stack = _stack_of(settings)
            with published(settings.data_dir, stack):
                yield stack
        finally:
            await supervisor.stop(STOP_GRACE_SECONDS + settings.drain_seconds)


async def start_stores(settings: Settings, say: Say, supervisor: Supervisor) -> Settings:
    """Start the stores that no URL names; the settings come back with every address filled in.

    Postgres and Valkey are awaited. Chroma is not: search works once it is there.
    """
    if settings.redis_url is not None and not await redis_answers(settings.redis_url):
        raise ProgramError("Redis does not answer; start it, or correct REDIS_URL")
    connections = (settings.workers + 1) * settings.database_pool_size + CONNECTIONS_TO_SPARE
    needed: list[Program] = []
    if settings.database_url is None:
        database = embedded.postgres(settings.data_dir / "postgres", connections=connections)
        settings = replace(settings, database_url=database.url)
        needed.append(database)
    if settings.redis_url is None:
        queue = embedded.valkey(settings.data_dir / "valkey")
        settings = replace(settings, redis_url=queue.url)
        needed.append(queue)
    if settings.chroma_url is None:
        index = embedded.chroma(settings.data_dir / "chroma", free_port())
        settings = replace(settings, chroma_url=index.url)
        await supervisor.start(replace(index, ready=_now), quiet=True)
    began = time.monotonic()
    await supervisor.start(*needed, quiet=True)
    for program in needed:
        say(f"{program.name} is ready ({time.monotonic() - began:.1f} s)")
    return settings


async def migrate_alone(settings: Settings, say: Say) -> list[str]:
    """Migrate the database that is named, that runs here, or that is started just for this."""
    url = with_local_stack(settings).database_url
    if url is not None:
        return await migrate_or_explain(url)
    with held_data_dir(settings.data_dir):
        supervisor = Supervisor(settings.data_dir / "logs", say)
        try:
            program = embedded.postgres(settings.data_dir / "postgres")
            await supervisor.start(program)
            return await migrate_or_explain(program.url)
        finally:
            await supervisor.stop(STOP_GRACE_SECONDS)


async def migrate_or_explain(url: str) -> list[str]:
    """Migrate; a database that is away or refuses is a ProgramError in words."""
    try:
        return await migrate(url)
    except (*ConnectionLost, DatabaseError, ValueError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ProgramError(f"the database refuses ({reason}); start it, or correct DATABASE_URL") from error


def welcome(settings: Settings, stack: LocalStack) -> str:
    """What a user needs next: the address, the key's place (never the key), a first call."""
    if settings.master_key is None:
        path = settings.data_dir / masterkey.MASTER_KEY_FILE
        place, spelled = str(path), f"$(cat {shlex.quote(_short(path))})"
    else:
        place, spelled = "the value of QLAUD_MASTER_KEY", "$QLAUD_MASTER_KEY"
    return "\n".join(
        [
            "",
            f"qlaud is ready on {stack.base_url}",
            f"  master key   {place}",
            f"  logs         {settings.data_dir / 'logs'}",
            "  try          " + f"curl {stack.base_url}/v1/keys -H 'content-type: application/json' \\",
            f'                 -H "x-api-key: {spelled}" \\',
            """                 -d '{"name": "first", "max_spend_usd": 1}'""",
            "  stop         Ctrl-C",
        ]
    )


def own_programs(settings: Settings, environ: Mapping[str, str]) -> tuple[Program, list[Program]]:
    """The front door and the workers, as child processes of this Python.

    They are killed when we die without a word: both survive `kill -9` without losing anything,
    and neither may go on without its stores.
    """
    environment = child_environment(settings, environ)

    async def front_door_ready() -> bool:
        return await http_status(f"{local_url(settings)}/readyz") == 200

    def program(name: str, module: str, extra: Mapping[str, str]) -> Program:
        return Program(
            name=name,
            # -P: a folder named `api` in the user's directory must not stand in for ours.
            argv=(sys.executable, "-P", "-m", module),
            cwd=Path.cwd(),
            env=environment | dict(extra),
            orphan_signal=signal.SIGKILL,
        )

    def worker(index: int) -> Program:
        port = settings.worker_port + index if settings.worker_port else 0
        return program(f"worker-{index + 1}", "workers", {"QLAUD_WORKER_PORT": str(port)})

    api = replace(program("api", "api", {}), ready=front_door_ready)
    return api, [worker(index) for index in range(settings.workers)]


def require_free(host: str, port: int) -> None:
    """Raise ProgramError unless the front door can listen there."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address[:2], family=family):
            return
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            words = f"port {port} on {host} is taken; stop that program or set QLAUD_PORT"
        else:
            words = f"cannot listen on {host}:{port} ({error.strerror}); set QLAUD_HOST and QLAUD_PORT"
        raise ProgramError(words) from error


async def _start_own(
    settings: Settings, environ: Mapping[str, str], say: Say, supervisor: Supervisor
) -> None:
    """Workers first, so that they are stopped last: the front door lets its callers finish."""
    api, workers = own_programs(settings, environ)
    await supervisor.start(*workers)
    await supervisor.start(api)
    say(f"api and {len(workers)} worker{'' if len(workers) == 1 else 's'} are ready")


def _stack_of(settings: Settings) -> LocalStack:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.chroma_url is not None
    return LocalStack(
        pid=os.getpid(),
        base_url=settings.public_url or local_url(settings),
        local_url=local_url(settings),
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        chroma_url=settings.chroma_url,
    )


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter to type."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


async def _now() -> bool:
    return True
