"""How well and how fast messages are found: `python -m benchmarks.search [messages]` (100,000).

Real servers, a front door of its own process, and the queue worked off as a worker does. What is asked is
different each time, so that no remembered vector helps.
"""

import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import click

from benchmarks.search import corpus, messages
from qlaud_actors import embedded, program
from qlaud_actors.bootstrap import Services, open_services
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.migrate import migrate
from qlaud_actors.ids import new_key_secret
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.probe import http_status, wait_until
from qlaud_actors.search import store
from qlaud_actors.settings import Settings

CLIENTS = 10
QUESTIONS = 1_000
LABELLED = 2_000
OF_ONE_KEY = 1_000
SENTENCES = 4
INDEXERS = 2
"""A worker, and `qlaud search reindex` beside it: one core each."""


async def main(count: int) -> None:
    """Index, then ask."""
    with tempfile.TemporaryDirectory(prefix="bench-search-", ignore_cleanup_errors=True) as name:
        async with _stack(Path(name)) as (services, url, pids):
            await _run(services, url, pids, count)


async def _run(services: Services, url: str, pids: dict[str, int], count: int) -> None:
    pool, settings = services.pool, services.settings
    assert settings.master_key is not None
    master = await lifecycle.verify(pool, settings.master_key.reveal())
    key, secret = await lifecycle.mint(pool, master.account_id, NewKey("one of many"))
    labelled = await corpus.write(pool, master.id, messages.messages(LABELLED))
    rest = [one for one in messages.messages(count, SENTENCES) if one.situation is None][: count - LABELLED]
    await corpus.write(pool, key.id, rest[:OF_ONE_KEY])
    await corpus.write(pool, master.id, rest[OF_ONE_KEY:])
    await _index(services)
    await _quality(url, settings.master_key.reveal(), labelled)
    for who, sent in (("all of the account", settings.master_key.reveal()), ("one key's", secret.reveal())):
        for mode in ("semantic", "text", "hybrid"):
            await _load(url, sent, mode, who)
    print(f"memory: {', '.join(f'{name} {_rss(pid)} MB' for name, pid in pids.items())}")


async def _index(services: Services) -> None:
    model = services.searcher.models.wanted()
    await store.begin_index(services.pool, model.name, model.dimensions)
    index = next(one for one in await store.living(services.pool) if one.kind == "vectors")
    left = total = await store.queue_length(services.pool, index.id)
    began = time.monotonic()
    working = [asyncio.create_task(services.indexer().start()) for _ in range(INDEXERS)]
    with click.progressbar(length=total, label="indexing", show_pos=True, file=sys.stderr) as bar:
        while not all(one.done() for one in working):
            await asyncio.wait(working, timeout=1)
            now = await store.queue_length(services.pool, index.id)
            bar.update(left - now)
            left = now
    seconds = time.monotonic() - began
    print(f"indexed {total:,} messages in {seconds:.0f} s ({total / seconds:.0f}/s), {left} left")


async def _quality(url: str, secret: str, labelled: dict[corpus.Place, messages.Message]) -> None:
    figures = {}
    async with aiohttp.ClientSession(headers={"x-api-key": secret}) as session:
        for mode in ("semantic", "text", "hybrid"):

            async def find(query: str, mode: str = mode) -> list[corpus.Place]:
                data = (await _ask(session, url, query, mode))["data"]
                return [(one["thread_id"], one["seq"]) for one in data]

            figures[mode] = await corpus.recall(messages.queries(), labelled, find)
    print(corpus.table(figures))


async def _load(url: str, secret: str, mode: str, who: str) -> None:
    """Ten clients, each of whom asks again as soon as it is answered."""
    questions = iter([f"{one.text} {uuid.uuid4().hex[:4]}" for one in messages.queries() * 5][:QUESTIONS])
    times: list[float] = []
    async with aiohttp.ClientSession(headers={"x-api-key": secret}) as session:

        async def client() -> None:
            for question in questions:
                began = time.perf_counter()
                await _ask(session, url, question, mode)
                times.append((time.perf_counter() - began) * 1000)

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    times.sort()
    rate = len(times) / (time.monotonic() - began)
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(f"{who:<20}{mode:<10} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   {rate:5.0f}/s at {CLIENTS} clients")


async def _ask(session: aiohttp.ClientSession, url: str, query: str, mode: str) -> Any:
    async with session.get(f"{url}/v1/search", params={"q": query, "mode": mode}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


@asynccontextmanager
async def _stack(folder: Path) -> AsyncIterator[tuple[Services, str, dict[str, int]]]:
    stores = [
        embedded.postgres(folder / "postgres"),
        embedded.valkey(folder / "valkey"),
        embedded.chroma(folder / "chroma", program.free_port()),
    ]
    started = []
    try:
        for one in stores:
            started.append((one, program.start(one, folder / f"{one.name}.log")))
            assert await wait_until(one.ready, 60)
        environ = {
            "DATABASE_URL": stores[0].url,
            "REDIS_URL": stores[1].url,
            "CHROMA_URL": stores[2].url,
            "QLAUD_MASTER_KEY": new_key_secret(),
            "QLAUD_KEYRING": Keyring.generate(),
            "QLAUD_PORT": str(program.free_port()),
            "QLAUD_LOG_LEVEL": "error",
        }
        await migrate(stores[0].url)
        url = f"http://127.0.0.1:{environ['QLAUD_PORT']}"

        async def ready() -> bool:
            return await http_status(f"{url}/readyz") == 200

        door = replace(
            stores[2],
            name="front door",
            argv=(sys.executable, "-P", "-m", "api"),
            cwd=Path.cwd(),
            env={"PATH": os.defpath, **environ},
            ready=ready,
            prepare=lambda: None,
        )
        started.append((door, program.start(door, folder / "api.log")))
        assert await wait_until(ready, 60), (folder / "api.log").read_text()
        pids = {one.name: process.pid for one, process in started if one.name in ("chroma", "front door")}
        async with open_services(Settings.from_env(environ)) as services:
            yield services, url, {**pids, "indexing process": os.getpid()}
    finally:
        for one, process in reversed(started):
            program.stop(one, process)


def _rss(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) // 1024


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
