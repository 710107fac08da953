"""Each sealed value has one place where it opens, and rotation knows each column that has sealed values."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from acme import ALICE, BOB, KEY, OTHER_KEY, running_bench
from fakes.sealed import PREDATING, SEALED, SealedHouse

from qlaud_actors.connectors import rotation
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import OLD_FORM, SECRET_FORM, VaultError
from qlaud_actors.db.pool import Pool

QUERIES = Path(rotation.__file__).with_name("queries.sql").read_text("utf-8")
WRAPPED = {("data_keys", "wrapped")}
DIGESTS = {"hash", "token_hash", "state_hash", "fingerprint"}
"""Names of columns that hold one."""

KEPT = {
    *(("artifacts", "content"), ("search_vectors", "vector"), ("tool_results", "content")),
    ("steps", "view_digest"),
}
"""What users keep and what is made of it, which is no credential."""


@pytest.fixture
async def house(pool: Pool) -> SealedHouse:
    """Two accounts with two secrets of each kind."""
    made = SealedHouse(pool)
    await made.fill(2)
    vault = Vault(made.ring.of(), pool)
    for account in made.accounts:
        for add in (made.tool, made.builtin, made.webhook, made.mcp_server, made.connection, made.link):
            await add(vault, account)
    return made


async def columns_of_bytes(pool: Pool) -> set[tuple[str, str]]:
    """All of the database, by table and name."""
    rows = await pool.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND udt_name IN ('bytea', '_bytea')"
    )
    return {(row[0], row[1]) for row in rows}


async def test_every_column_of_bytes_is_known_to_rotation(house: SealedHouse) -> None:
    """A migration that adds one says here what it holds; what is sealed has a form that is rotated."""
    columns = await columns_of_bytes(house.pool)
    digests = {(table, column) for table, column in columns if column in DIGESTS}
    assert columns - digests == SEALED.keys() | WRAPPED | KEPT
    for table, column in SEALED.keys() - PREDATING:
        forms = await house.pool.fetch(
            f"SELECT DISTINCT get_byte({column}, 0) FROM {table} WHERE {column} <> ''"
        )
        assert [row[0] for row in forms] == [SECRET_FORM], (table, column)
    passes = {(table, column) for table, column in re.findall(r"UPDATE (\w+) SET (\w+) = \$3 WHERE", QUERIES)}
    counted = set(re.findall(r"sealed_key_v1\((\w+)\).*? FROM (\w+)", QUERIES))
    assert passes == PREDATING | WRAPPED
    assert {(table, column) for column, table in counted} >= PREDATING | WRAPPED


def opens(results: Sequence[Any]) -> list[int]:
    """The positions where something was opened."""
    assert all(isinstance(result, VaultError) for result in results if isinstance(result, BaseException))
    return [at for at, result in enumerate(results) if not isinstance(result, BaseException)]


async def test_a_sealed_value_opens_in_its_own_place_alone(house: SealedHouse) -> None:
    """Not in another row, field, account or table: each of them tried in each place of all the others."""
    stored, vault = await house.stored(), Vault(house.ring.of(), house.pool)
    assert {place.owner.partition(":")[0] for place in stored} >= {"connection", "connect_link", "mcp_server"}
    places = list(stored)
    for number, sealed in enumerate(stored.values()):
        tries = await asyncio.gather(
            *(vault.open(place, sealed, "test") for place in places), return_exceptions=True
        )
        assert opens(tries) == [number], places[number]


async def test_secrets_in_the_old_form_do_not_open_elsewhere_either(house: SealedHouse) -> None:
    """They name their row too."""
    await house.age("k1")
    vault = Vault(house.ring.of(), house.pool)
    old = {place: sealed for place, sealed in (await house.stored()).items() if sealed[0] == OLD_FORM}
    assert len(old) == 8
    places = list(old)
    for number, sealed in enumerate(old.values()):
        tries = await asyncio.gather(
            *(vault.open(place, sealed, "test") for place in places), return_exceptions=True
        )
        assert opens(tries) == [number]


async def test_swapped_rows_are_not_used(pool: Pool, vault: Vault) -> None:
    """Whoever can write to the database cannot make one user's calls go out with another's credential."""
    async with running_bench(pool, vault) as bench:
        await bench.connect(ALICE, KEY)
        await bench.connect(BOB, OTHER_KEY)
        await pool.execute(
            "UPDATE connection_secrets AS mine SET sealed = other.sealed FROM connection_secrets AS other"
            " WHERE mine.connection_id <> other.connection_id"
        )
        for owner in (ALICE, BOB):
            assert (await bench.run("create_item", owner)).code == "connection_expired"
        assert bench.acme.asked == []
