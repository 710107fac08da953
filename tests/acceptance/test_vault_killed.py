"""`qlaud vault rotate` killed with SIGKILL anywhere, beside itself, readers and writers, loses nothing."""

import asyncio
import base64
import contextlib
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from canary import leaks, tables
from fakes.sealed import Ring, SealedHouse

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import OLD_FORM
from qlaud_actors.db.pool import Pool

HERE = Path(__file__).parent
QLAUD = Path(sys.executable).with_name("qlaud")
ROUNDS = 25
SECONDS = 0.15
"""A rotation of the house takes about that long."""


class Rotations:
    """The process that forks rotations."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, keyring: str, deaths: list[Any]) -> list[int]:
        """Run so many at once; their exit statuses."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"keyring": keyring, "deaths": deaths}).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), 30)
        ends: list[int] = json.loads(line)
        return ends


@contextlib.asynccontextmanager
async def running_rotations(database_url: str, output: Path) -> AsyncIterator[Rotations]:
    """As long as the block runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "crashing_rotation.py"),
        database_url,
        str(output),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    yield Rotations(process)
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 15) == 0


@pytest.fixture
async def house(pool: Pool) -> SealedHouse:
    """Three accounts with secrets of every kind, those of the first tables in the old form."""
    made = SealedHouse(pool)
    await made.fill(3)
    await made.age("k1")
    made.ring.grow()
    return made


async def use(house: SealedHouse, chosen: random.Random, done: asyncio.Event) -> int:
    """Write and read as processes do that hold the new ring, or still the old order of it."""
    names, written = tuple(house.ring.keys), 0
    vaults = [Vault(house.ring.of(*order), house.pool) for order in (names, names[::-1])]
    while not done.is_set():
        vault, account = chosen.choice(vaults), chosen.choice(house.accounts)
        match chosen.randrange(4):
            case 0:
                await house.refresh(vault, chosen.choice(house.places("connection")))
            case 1:
                await house.renew(vault, chosen.choice(house.places("webhook")))
            case 2 if len(house.told) < 60:
                add = chosen.choice((house.tool, house.builtin, house.connection, house.link))
                await add(vault, account)
            case _:
                place, sealed = chosen.choice(list((await house.stored()).items()))
                assert (await vault.open(place, sealed, "test")).reveal() == house.told[place]
        written += 1
        await asyncio.sleep(chosen.uniform(0, 0.01))
    for vault in vaults:
        await vault.close()
    return written


def death(chosen: random.Random) -> dict[str, Any] | None:
    """How a rotation ends, most of them too early."""
    if chosen.random() < 0.1:
        return None
    if chosen.random() < 0.4:
        return {"seconds": chosen.uniform(0, SECONDS)}
    return {"statement": chosen.randint(1, 40), "side": chosen.choice(("before", "after"))}


async def test_killed_anywhere_it_loses_and_exposes_nothing(
    house: SealedHouse, database_url: str, tmp_path: Path
) -> None:
    """After each kill all opens where it belongs, at last with the newest key alone; nothing is in clear."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chosen, output = random.Random(seed), tmp_path / "output.txt"
    killed = finished = 0
    async with running_rotations(database_url, output) as rotations:
        for _ in range(ROUNDS):
            done = asyncio.Event()
            busy = asyncio.create_task(use(house, random.Random(chosen.random()), done))
            deaths = [death(chosen) for _ in range(chosen.choice((1, 1, 2)))]
            ends = await rotations.run(house.ring.text(), deaths)
            done.set()
            await busy
            killed += ends.count(-9)
            assert set(ends) <= {0, -9}, ends
            await house.check(house.ring.of())
            if 0 in ends:
                finished += 1
                await under_the_newest(house)
                await house.age(house.ring.newest)
                house.ring.grow()
    assert killed > ROUNDS / 3
    assert finished >= 1
    await the_end(house, database_url, output)


async def under_the_newest(house: SealedHouse) -> None:
    """With the other keys thrown away everything still opens."""
    await house.check(house.ring.of(house.ring.newest))


async def the_end(house: SealedHouse, database_url: str, output: Path) -> None:
    """The real command, to its end; then no place names an old key and no table holds a secret in clear."""
    before = set(house.ring.keys) - {house.ring.newest}
    said = await qlaud(database_url, house.ring, "rotate") + await qlaud(database_url, house.ring, "status")
    for key in before:
        assert f"{key} is used by nothing: remove it" in said
        assert f"{key}: " not in said
    await under_the_newest(house)
    forms = {sealed[0] for sealed in (await house.stored()).values()}
    assert OLD_FORM not in forms
    printed = await asyncio.to_thread(output.read_bytes)
    await in_clear_nowhere(house, {"output": printed, "said": said.encode()})


async def in_clear_nowhere(house: SealedHouse, places: dict[str, bytes]) -> None:
    """Neither a secret, nor a data key, nor a key of the ring."""
    async with house.pool.acquire() as connection:
        places |= await tables(connection)
    assert [found for text in house.told.values() for found in leaks(text, places)] == []
    rows = await house.pool.fetch("SELECT id, account_id, wrapped FROM data_keys")
    ring = house.ring.of()
    keys = [ring.unwrap(row["wrapped"], row["account_id"], row["id"]).key for row in rows]
    assert len(keys) >= len(house.accounts)
    keys += house.ring.keys.values()
    spelled = [text for key in keys for text in (key.hex().encode(), base64.b64encode(key))]
    assert [place for place, content in places.items() for text in spelled if text in content] == []


async def qlaud(database_url: str, ring: Ring, command: str) -> str:
    """What the installed program says; it must end well."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251
    process = await asyncio.create_subprocess_exec(
        QLAUD,
        "vault",
        command,
        env={**environ, "DATABASE_URL": database_url, "QLAUD_KEYRING": ring.text()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
    return said.decode()
