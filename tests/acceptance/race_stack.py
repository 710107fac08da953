"""A stack that can be hurt: front doors and workers that die by `kill -9`, a Postgres that restarts.

It keeps what a proof needs of the past: which calls were in flight in a process when it died, and every
hold that there ever was (a trigger writes them down, the product knows nothing of it).
"""

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cluster import Api, free_port, process, until_ready
from forked import Child

from qlaud_actors import embedded, program
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.migrate import migrate
from qlaud_actors.db.pool import ConnectionLost, connect
from qlaud_actors.ids import new_key_secret
from qlaud_actors.probe import wait_until
from qlaud_actors.scripted.server import ScriptedServer

OBSERVER = """
    CREATE TABLE seen_holds (call uuid, key_id uuid, turn_id uuid, owner uuid, amount bigint);
    CREATE TABLE doors (owner uuid);
    CREATE FUNCTION note_hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO seen_holds VALUES (NEW.id, NEW.key_id, NEW.turn_id, NEW.owner, NEW.amount_nanos);
        RETURN NULL;
    END $$;
    CREATE TRIGGER observer AFTER INSERT ON holds FOR EACH ROW EXECUTE FUNCTION note_hold();
"""
HOSTS = {"anthropic": "sk-ant-anth", "openai": "sk-open", "azure": "sk-azur"}
"""The scripted cloud is three vendors; the end of the key tells it which one is asked."""


@dataclass
class Door:
    """A front door, and the name under which it holds money."""

    api: Api
    port: int
    child: Child
    presence: uuid.UUID


@dataclass
class Carrier:
    """A worker, and the name under which it holds money for jobs."""

    child: Child
    presence: uuid.UUID


@dataclass
class Postgres:
    """A Postgres of the race's own."""

    program: program.Program
    log: Path
    child: Any = None

    async def start(self) -> None:
        """Start it and wait for it."""
        self.child = program.start(self.program, self.log)  # in the main thread, see `popen_options`
        assert await wait_until(self.program.ready, 60, lambda: self.child.poll() is None)

    async def stop(self) -> None:
        """Stop it: sessions are cut off, as in an upgrade."""
        await asyncio.to_thread(program.stop, self.program, self.child)


@dataclass(repr=False)
class RaceStack:
    """The processes, the scripted cloud, and what became of them."""

    postgres: Postgres
    scripted: ScriptedServer
    session: aiohttp.ClientSession
    environ: dict[str, str]
    resources: AsyncExitStack
    doors: list[Door] = field(default_factory=list)
    workers: list[Carrier] = field(default_factory=list)
    victims: set[str] = field(default_factory=set)
    """Calls that held money in a process when it was killed."""
    dead: set[uuid.UUID] = field(default_factory=set)
    blows: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return "RaceStack"

    @property
    def admin(self) -> Api:
        """A front door with the master key."""
        return self.doors[0].api

    async def query(self, statement: str, *values: Any) -> list[Any]:
        """Rows of the database."""
        connection = await connect(self.postgres.program.url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def start_door(self, port: int = 0) -> Door:
        """One more front door; the row that its process leaves in Postgres tells its name."""
        port = port or free_port()
        known = await self._present()
        child = await self._start("api", QLAUD_PORT=str(port))
        api = Api(self.session, f"http://127.0.0.1:{port}", self.environ["QLAUD_MASTER_KEY"])
        await until_ready(api)
        (presence,) = await self._present() - known
        await self.query("INSERT INTO doors VALUES ($1)", presence)
        return Door(api, port, child, presence)

    async def start_worker(self) -> Carrier:
        """One more worker; ready once it has told Postgres."""
        known = await self._present()
        child = await self._start("workers")
        async with asyncio.timeout(60):
            while not (new := await self._present() - known):  # noqa: ASYNC110 - a database tells nobody
                await asyncio.sleep(0.05)
        return Carrier(child, new.pop())

    async def _present(self) -> set[uuid.UUID]:
        return {row["id"] for row in await self.query("SELECT id FROM processes")}

    async def strike(self, target: str, number: int) -> None:
        """Kill a front door or a worker and start another, or restart Postgres."""
        self.blows.append(target)
        if target == "postgres":
            await self.postgres.stop()
            await self.postgres.start()
        elif target == "api":
            door = self.doors[number % len(self.doors)]
            await _kill(door.child)
            held = await self._patiently("SELECT id FROM holds WHERE owner = $1", door.presence)
            self.victims |= {str(row["id"]) for row in held}
            self.dead.add(door.presence)
            self.doors[number % len(self.doors)] = await self.start_door(door.port)
        else:
            worker = self.workers[number % len(self.workers)]
            await _kill(worker.child)
            in_it = "SELECT id FROM holds WHERE turn_id IS NOT NULL OR owner = $1"
            self.victims |= {str(row["id"]) for row in await self._patiently(in_it, worker.presence)}
            self.dead.add(worker.presence)
            self.workers[number % len(self.workers)] = await self.start_worker()

    async def settled(self) -> None:
        """Wait until nothing is on its way any more and no hold is left.

        The dead are taken for dead after half a minute: here that time passes at once. A worker that
        starts sweeps at once, too.
        """
        if self.dead:
            past = "UPDATE processes SET alive_until = now() - interval '1 s' WHERE id = ANY ($1)"
            await self.query(past, list(self.dead))
            self.dead.clear()
            await _stop(self.workers[0].child)
            self.workers[0] = await self.start_worker()
        unfinished = """
            SELECT id FROM turns WHERE status IN ('queued', 'running')
            UNION ALL SELECT id FROM jobs WHERE status IN ('queued', 'running')
        """
        async with asyncio.timeout(90):
            while self.scripted.bill()["in_flight"] or await self.query(unfinished):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while await self.query("SELECT id FROM holds"):  # noqa: ASYNC110 - a database tells nobody
                await asyncio.sleep(0.05)

    async def _patiently(self, statement: str, *values: Any) -> list[Any]:
        """A query that waits for a Postgres which is restarting at this moment."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(*ConnectionLost):
                    return await self.query(statement, *values)
                await asyncio.sleep(0.05)

    async def _start(self, module: str, **environ: str) -> Child:
        return await self.resources.enter_async_context(process(module, {**self.environ, **environ}))


async def _kill(child: Child) -> None:
    child.send_signal(signal.SIGKILL)
    await child.wait()


async def _stop(child: Child) -> None:
    child.send_signal(signal.SIGTERM)
    await child.wait()


@contextlib.asynccontextmanager
async def race_stack(
    folder: Path, redis_url: str, *, doors: int = 2, workers: int = 2
) -> AsyncIterator[RaceStack]:
    """Two front doors and two workers on a Postgres of their own, against three vendors in one server."""
    async with AsyncExitStack() as resources:
        postgres = Postgres(embedded.postgres(folder, durable=False), folder.with_name(f"{folder.name}.log"))
        await postgres.start()
        resources.push_async_callback(postgres.stop)
        await migrate(postgres.program.url)
        scripted = await resources.enter_async_context(ScriptedServer())
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=120), connector=aiohttp.TCPConnector(limit=0)
        )
        resources.push_async_callback(session.close)
        environ = {
            "PATH": "/usr/bin:/bin",
            "DATABASE_URL": postgres.program.url,
            "REDIS_URL": redis_url,
            "QLAUD_MASTER_KEY": new_key_secret(),
            "QLAUD_KEYRING": Keyring.generate(),
            "QLAUD_LOG_LEVEL": "error",
            "QLAUD_LEASE_SECONDS": "5",
            "ANTHROPIC_API_KEY": HOSTS["anthropic"],
            "ANTHROPIC_BASE_URL": scripted.url,
            "OPENAI_API_KEY": HOSTS["openai"],
            "OPENAI_BASE_URL": f"{scripted.url}/v1",
            "AZURE_OPENAI_API_KEY": HOSTS["azure"],
            "AZURE_OPENAI_BASE_URL": f"{scripted.url}/v1",
        }
        stack = RaceStack(postgres, scripted, session, environ, resources)
        connection = await connect(postgres.program.url)
        await connection.execute(OBSERVER)
        await connection.close()
        for _ in range(doors):
            stack.doors.append(await stack.start_door())
        for _ in range(workers):
            stack.workers.append(await stack.start_worker())
        yield stack
