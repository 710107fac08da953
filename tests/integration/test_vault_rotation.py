"""Rotation of the key ring: interrupted anywhere, beside writers and beside itself, it loses nothing."""

import asyncio
import base64
import contextlib
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fakes.old_vault import seal_old

from qlaud_actors import doctor, vault_tasks
from qlaud_actors.connectors import rotation
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring, Place
from qlaud_actors.db.pool import Pool
from qlaud_actors.deliveries import store as webhooks
from qlaud_actors.ids import new_tool_id, new_uuid, new_webhook_secret
from qlaud_actors.settings import Secret, Settings
from qlaud_actors.tools import store as tools
from qlaud_actors.tools.model import Tool

BYTES = {name: bytes([n]) * 32 for n, name in enumerate(("k1", "k2", "k3"), 1)}
ACCOUNTS = [uuid.UUID(int=1000 + n) for n in range(4)]


def ring_text(*names: str) -> str:
    return ",".join(f"{name}:{base64.b64encode(BYTES[name]).decode()}" for name in names)


def ring(*names: str) -> Keyring:
    """A key ring, newest first."""
    return Keyring.parse(ring_text(*names))


def quiet(_: str) -> None:
    pass


@dataclass
class House:
    """Accounts with secrets of both forms, and what each secret must still be."""

    pool: Pool
    secrets: dict[Place, str] = field(default_factory=dict)

    async def fill(self) -> None:
        """For each account a tool and a webhook in the old form under k1, and a tool in the new form."""
        vault = Vault(ring("k1"), self.pool)
        for account in ACCOUNTS:
            await self.pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'a')", account)
            old_tool = await self.add_tool(vault, account, "old")
            await self.add_tool(vault, account, "new")
            webhook, plain = await webhooks.insert_webhook(
                self.pool, vault, account, "https://x.example", ["job.completed"]
            )
            place = Place(account, f"webhook:{webhook.id}")
            self.secrets[place] = plain.reveal()
            sealed = seal_old("k1", BYTES["k1"], plain.reveal(), "webhook", account, webhook.id)
            await self.pool.execute("UPDATE webhooks SET secret = $1 WHERE id = $2", sealed, webhook.id)
            text = self.secrets[Place(account, f"tool:{old_tool}")]
            sealed = seal_old("k1", BYTES["k1"], text, "tool", account, old_tool)
            await self.pool.execute("UPDATE tools SET secret = $1 WHERE id = $2", sealed, old_tool)

    async def add_tool(self, vault: Vault, account: uuid.UUID, name: str) -> str:
        """Another tool, its secret sealed by this vault."""
        made = Tool(
            new_tool_id(), name, "Does.", {"type": "object"}, "webhook", webhook_url="https://x.example"
        )
        secret = Secret(new_webhook_secret())
        await tools.insert_tool(self.pool, vault, account, replace(made, secret=secret))
        self.secrets[Place(account, f"tool:{made.id}")] = secret.reveal()
        return made.id

    async def check(self, keyring: Keyring) -> None:
        """Every secret opens with this ring alone, in a process that remembers nothing."""
        vault = Vault(keyring, self.pool)
        rows = await self.pool.fetch(
            "SELECT account_id, 'tool:' || id AS owner, secret FROM tools"
            " UNION ALL SELECT account_id, 'webhook:' || id, secret FROM webhooks"
        )
        found = {Place(row["account_id"], row["owner"]): row["secret"] for row in rows}
        opened = {place: await vault.open(place, sealed, "test") for place, sealed in found.items()}
        assert {place: secret.reveal() for place, secret in opened.items()} == self.secrets


class Killed(BaseException):
    """Stands for the end of the process."""


class MortalPool:
    """A pool that dies at its n-th statement, before or after it took effect."""

    def __init__(
        self, pool: Pool, at: int, *, after: bool, die: Callable[[], Awaitable[None] | None]
    ) -> None:
        self._pool, self._left, self._after, self._die = pool, at, after, die

    def is_in_transaction(self) -> bool:
        """A pool never is."""
        return False

    def __getattr__(self, name: str) -> Any:
        run = getattr(self._pool, name)

        async def statement(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                await self._end()
            result = await run(*arguments)
            if self._left == 0 and self._after:
                await self._end()
            return result

        return statement

    async def _end(self) -> None:
        waited = self._die()
        if waited is not None:
            await waited


def die() -> None:
    raise Killed


@pytest.fixture
async def house(pool: Pool) -> House:
    """A database with secrets of before and after data keys."""
    made = House(pool)
    await made.fill()
    return made


def vault_over(pool: Any, keyring: Keyring) -> Vault:
    return Vault(keyring, pool)


async def test_everything_moves_under_the_newest_key(house: House) -> None:
    """Afterwards the newest key alone opens every secret, the old form is gone, and the old key may go."""
    both, said = ring("k2", "k1"), list[str]()
    outcome = await rotation.rotate(house.pool, vault_over(house.pool, both), said.append)
    assert (outcome.changed, outcome.lost) == (len(ACCOUNTS) * 3, {})
    assert "tools: 4 renewed" in said
    await house.check(ring("k2"))
    found = await rotation.status(house.pool, both)
    assert (found.old, found.removable, found.missing) == ([], ["k1"], [])
    again = await rotation.rotate(house.pool, vault_over(house.pool, both), quiet)
    assert again.changed == 0
    purposes = await house.pool.fetchval("SELECT count(*) FROM vault_audit WHERE purpose = 'rotation'")
    assert purposes == len(ACCOUNTS) * 2


async def test_killed_at_any_statement_it_loses_nothing(house: House) -> None:
    """Ended before or after any of its statements, every secret still opens, and a later run completes."""
    both, deaths = ring("k2", "k1"), 0
    while True:
        chosen = random.Random(deaths)
        mortal: Any = MortalPool(house.pool, chosen.randint(1, 7), after=chosen.random() < 0.5, die=die)
        vault = Vault(both, mortal)
        vault.trail._pool = house.pool  # its task is of another life
        try:
            await rotation.rotate(mortal, vault, quiet)
        except Killed:
            deaths += 1
            await house.check(both)
            continue
        break
    assert deaths >= 3
    await house.check(ring("k2"))


async def test_every_point_of_death_is_safe(house: House) -> None:
    """One after the other, at each single statement of a whole rotation."""
    rings = [ring("k2", "k3", "k1"), ring("k3", "k2", "k1")]
    for after in (False, True):
        for at in range(1, 40):
            mortal: Any = MortalPool(house.pool, at, after=after, die=die)
            vault = Vault(rings[at % 2], mortal)
            vault.trail._pool = house.pool
            with contextlib.suppress(Killed):
                await rotation.rotate(mortal, vault, quiet)
    await house.check(rings[1])
    await rotation.rotate(house.pool, vault_over(house.pool, rings[1]), quiet)
    await house.check(ring("k3"))


async def test_cancelled_in_a_statement_it_loses_nothing(house: House) -> None:
    """A task that is cancelled while Postgres works on its statement may have changed the row or not."""
    both = ring("k2", "k1")
    running: asyncio.Task[Any]

    def cancel() -> None:
        running.cancel()

    for at in range(1, 30, 3):
        mortal: Any = MortalPool(house.pool, at, after=False, die=cancel)
        vault = vault_over(mortal, both)
        vault.trail._pool = house.pool
        running = asyncio.create_task(rotation.rotate(mortal, vault, quiet))
        await asyncio.gather(running, return_exceptions=True)
        await vault.close()
        await house.check(both)
    await rotation.rotate(house.pool, vault_over(house.pool, both), quiet)
    await house.check(ring("k2"))


async def test_a_secret_that_is_replaced_meanwhile_stays(house: House) -> None:
    """A writer between the reading of a row and its replacement wins; the rotation takes the next state."""
    both = ring("k2", "k1")
    writer = vault_over(house.pool, ring("k1", "k2"))  # a process that was not yet restarted
    hooks = [place for place in house.secrets if place.owner.startswith("webhook:")]

    async def write() -> None:
        for place in hooks:
            webhook_id = uuid.UUID(place.owner.partition(":")[2])
            told = await webhooks.rotate_secret(house.pool, writer, place.account_id, webhook_id)
            house.secrets[place] = told.reveal()
        await house.add_tool(writer, ACCOUNTS[0], f"t{new_uuid().hex}")

    for at in range(1, 30, 2):
        mortal: Any = MortalPool(house.pool, at, after=True, die=write)
        await rotation.rotate(mortal, vault_over(mortal, both), quiet)
        await house.check(both)
        assert (await rotation.status(house.pool, both)).removable == ["k1"]
    await house.check(ring("k2"))


async def test_several_at_once_and_writers_beside_them(house: House) -> None:
    """Rotations at the same time agree, while tools are registered by processes of both rings."""
    both = ring("k2", "k1")
    writers = [vault_over(house.pool, ring("k1", "k2")), vault_over(house.pool, both)]

    async def write() -> None:
        for number in range(10):
            account = ACCOUNTS[number % len(ACCOUNTS)]
            await house.add_tool(writers[number % 2], account, f"extra{number}")

    runs = [rotation.rotate(house.pool, vault_over(house.pool, both), quiet) for _ in range(4)]
    await asyncio.gather(write(), *runs)
    await house.check(both)
    await rotation.rotate(house.pool, vault_over(house.pool, both), quiet)
    await house.check(ring("k2"))


async def test_batches_cover_all_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than are read at once are renewed in one go."""
    monkeypatch.setattr(rotation, "BATCH", 2)
    both = ring("k2", "k1")
    outcome = await rotation.rotate(house.pool, vault_over(house.pool, both), quiet)
    assert outcome.changed == len(ACCOUNTS) * 3
    await house.check(ring("k2"))


async def test_a_row_that_does_not_open_does_not_stop_the_others(house: House) -> None:
    """It is named with its reason and stays as it is; its key counts as in use."""
    victim = next(place for place in house.secrets if place.owner.startswith("webhook:"))
    webhook_id = uuid.UUID(victim.owner.partition(":")[2])
    lost = seal_old("gone", bytes(32), "x", "webhook", victim.account_id, webhook_id)
    await house.pool.execute("UPDATE webhooks SET secret = $1 WHERE id = $2", lost, webhook_id)
    both = ring("k2", "k1")
    outcome = await rotation.rotate(house.pool, vault_over(house.pool, both), quiet)
    assert list(outcome.lost) == [f"webhooks {webhook_id}"]
    assert "'gone'" in outcome.lost[f"webhooks {webhook_id}"]
    found = await rotation.status(house.pool, both)
    assert [use.key_id for use in found.missing] == ["gone"]
    assert found.removable == ["k1"]
    assert await house.pool.fetchval("SELECT secret FROM webhooks WHERE id = $1", webhook_id) == lost


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """An operator with a new key in front of the old one."""
    keyring = Secret(ring_text("k2", "k1"))
    return Settings(data_dir=tmp_path, database_url=database_url, keyring=keyring)


async def test_the_commands_say_what_may_be_removed(
    house: House, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status` names what needs the old key; `rotate` says done, and then that the key may go."""
    assert await vault_tasks.show_status(settings) == 0
    told = capsys.readouterr().out
    assert "k1: 4 data keys, 4 secrets of tools in the old form, 4 secrets of webhooks" in told
    assert "k1 is still in use: do not remove it yet" in told
    assert await vault_tasks.rotate(settings) == 0
    told = capsys.readouterr().out
    assert "k2: 4 data keys" in told
    assert "k1 is used by nothing" in told
    assert told.endswith("done\n")
    assert not any(secret in told for secret in house.secrets.values())


async def test_a_rotation_that_could_not_finish_does_not_say_done(
    house: House, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a key missing from the ring it ends with 1 and names the key."""
    settings = replace(settings, keyring=Secret(ring_text("k2")))
    assert await vault_tasks.rotate(settings) == 1
    told = capsys.readouterr()
    assert "done" not in told.out
    assert "NOT done" in told.err
    assert "k1 IS NOT IN THE RING" in told.err
    assert await vault_tasks.show_status(settings) == 1
    await house.check(ring("k1"))


async def test_doctor_names_keys_that_must_stay(house: House, settings: Settings) -> None:
    """Before: the old key must stay; with a ring that lost it: wrong; after a rotation: fine."""

    async def told(names: str) -> list[tuple[doctor.Verdict, str]]:
        keyring = Secret(ring_text(*names.split()))
        return [(f.verdict, f.words) for f in await doctor._old_keys(replace(settings, keyring=keyring))]

    ((verdict, words),) = await told("k2 k1")
    assert verdict is doctor.Verdict.NOTE
    assert words.startswith("k1 must stay: 4 data keys")
    ((verdict, words),) = await told("k2")
    assert verdict is doctor.Verdict.WRONG
    await rotation.rotate(house.pool, vault_over(house.pool, ring("k2", "k1")), quiet)
    assert await told("k2 k1") == [(doctor.Verdict.FINE, "all under k2")]
    assert await doctor._old_keys(replace(settings, database_url=None)) == []
