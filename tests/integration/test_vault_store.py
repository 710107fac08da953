"""The vault over Postgres: data keys, moved ciphertexts, and the record of openings."""

import asyncio
import base64
import uuid
from contextlib import suppress

import pytest
from fakes.old_vault import seal_old

from qlaud_actors.connectors import store, trail
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring, Place, VaultError
from qlaud_actors.db.pool import DatabaseError, Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT

OTHER = uuid.UUID("00000000-0000-7000-8000-000000000002")
PLAIN = "whsec_a secret"
PLACE = Place(ACCOUNT, "tool:tool_1")


@pytest.fixture
async def other_account(pool: Pool) -> uuid.UUID:
    """A second account."""
    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", OTHER)
    return OTHER


def another_process(vault: Vault, pool: Pool) -> Vault:
    """A vault with the same ring and no memory."""
    return Vault(vault.keyring, pool)


async def test_every_process_opens_what_one_has_sealed(pool: Pool, vault: Vault) -> None:
    """Data keys are in the database, wrapped: neither they nor the secrets can be read there."""
    sealed = await vault.seal(pool, PLACE, PLAIN)
    opened = await another_process(vault, pool).open(PLACE, sealed, "test")
    assert opened.reveal() == PLAIN
    data_key, _ = vault._remembered[ACCOUNT, store.SEALS]
    row = await pool.fetchrow("SELECT * FROM data_keys")
    assert row is not None
    assert data_key.key not in row["wrapped"]
    assert data_key.key not in sealed


async def test_accounts_have_keys_of_their_own(pool: Pool, vault: Vault, other_account: uuid.UUID) -> None:
    """A secret does not open for another row, field or account, even when its data key is copied along."""
    sealed = await vault.seal(pool, PLACE, PLAIN)
    await vault.seal(pool, Place(other_account, PLACE.owner), PLAIN)
    assert await pool.fetchval("SELECT count(DISTINCT account_id) FROM data_keys") == 2
    for wrong in (
        Place(ACCOUNT, "tool:tool_2"),
        Place(ACCOUNT, "webhook:tool_1"),
        Place(ACCOUNT, PLACE.owner, "token"),
        Place(other_account, PLACE.owner),
    ):
        with pytest.raises(VaultError):
            await another_process(vault, pool).open(wrong, sealed, "test")
    await pool.execute("UPDATE data_keys SET account_id = $1 WHERE account_id = $2", other_account, ACCOUNT)
    with pytest.raises(VaultError, match="does not open here"):
        await another_process(vault, pool).open(Place(other_account, PLACE.owner), sealed, "test")


async def test_a_data_key_of_a_transaction_that_is_undone_is_forgotten(pool: Pool, vault: Vault) -> None:
    """Nothing is ever sealed with a data key that was not committed."""
    with suppress(ZeroDivisionError):
        async with pool.acquire() as connection, connection.transaction():
            await vault.seal(connection, PLACE, PLAIN)
            raise ZeroDivisionError
    assert await pool.fetchval("SELECT count(*) FROM data_keys") == 0
    sealed = await vault.seal(pool, PLACE, PLAIN)
    assert (await another_process(vault, pool).open(PLACE, sealed, "test")).reveal() == PLAIN


async def test_the_first_secrets_of_an_account_may_be_sealed_at_once(pool: Pool, vault: Vault) -> None:
    """Processes that make a first data key at the same moment all seal what all can open."""
    vaults = [another_process(vault, pool) for _ in range(6)]
    places = [Place(ACCOUNT, f"tool:{n}") for n in range(6)]
    sealed = await asyncio.gather(
        *(one.seal(pool, place, PLAIN) for one, place in zip(vaults, places, strict=True))
    )
    for place, value in zip(places, sealed, strict=True):
        assert (await vault.open(place, value, "test")).reveal() == PLAIN


async def test_data_keys_are_remembered_for_a_while(pool: Pool) -> None:
    """Within that time no query is needed; afterwards the database is asked again."""
    now = [0.0]
    vault = Vault(Keyring.parse(Keyring.generate()), pool, clock=lambda: now[0])
    sealed = await vault.seal(pool, PLACE, PLAIN)
    await vault.open(PLACE, sealed, "test")
    await pool.execute("DELETE FROM data_keys")
    assert (await vault.open(PLACE, sealed, "test")).reveal() == PLAIN
    now[0] = store.REMEMBER_SECONDS
    with pytest.raises(VaultError, match="which the account does not have"):
        await vault.open(PLACE, sealed, "test")


async def test_memory_is_bounded(pool: Pool, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data key that was learned first is forgotten first."""
    monkeypatch.setattr(store, "MAX_REMEMBERED", 2)
    for number in range(4):
        account = uuid.UUID(int=100 + number)
        await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'many')", account)
        await vault.seal(pool, Place(account, "tool:1"), PLAIN)
    assert [account.int for account, _ in vault._remembered] == [102, 103]


async def test_a_lost_ring_does_not_keep_an_account_from_new_secrets(pool: Pool, vault: Vault) -> None:
    """What was sealed before is lost until the key is back; what is sealed now opens."""
    lost = await vault.seal(pool, PLACE, PLAIN)
    fresh = Vault(Keyring.parse(Keyring.generate()), pool)
    with pytest.raises(VaultError, match=f"{vault.keyring.newest}.*not in the key ring"):
        await fresh.open(PLACE, lost, "test")
    sealed = await fresh.seal(pool, PLACE, PLAIN)
    assert (await another_process(fresh, pool).open(PLACE, sealed, "test")).reveal() == PLAIN
    assert (await another_process(vault, pool).open(PLACE, lost, "test")).reveal() == PLAIN


async def test_secrets_of_before_data_keys_open(pool: Pool) -> None:
    """A secret in the old form opens with the ring, without any data key."""
    key = bytes(range(32))
    ring = Keyring.parse(f"old:{base64.b64encode(key).decode()}")
    sealed = seal_old("old", key, PLAIN, "tool", ACCOUNT, "tool_1")
    assert (await Vault(ring, pool).open(PLACE, sealed, "test")).reveal() == PLAIN


async def test_every_opening_is_on_record_without_the_secret(pool: Pool, vault: Vault) -> None:
    """Account, row, field, purpose and process stand there, also of an opening that failed."""
    process = uuid.UUID(int=9)
    keeper = Vault(vault.keyring, pool, process)
    sealed = await keeper.seal(pool, PLACE, PLAIN)
    await keeper.closed(PLACE, sealed).open("tool_call:c1")
    with pytest.raises(VaultError):
        await keeper.open(Place(ACCOUNT, "tool:tool_2"), sealed, "tool_call:c2")
    rows = await pool.fetch(
        "SELECT account_id, owner, field, purpose, process, at <= now() AS past FROM vault_audit ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        (ACCOUNT, "tool:tool_1", "secret", "tool_call:c1", process, True),
        (ACCOUNT, "tool:tool_2", "secret", "tool_call:c2", process, True),
    ]
    assert PLAIN not in str(await pool.fetch("SELECT vault_audit::text FROM vault_audit"))


async def test_nothing_is_opened_without_a_record(pool: Pool, vault: Vault) -> None:
    """When the record cannot be written the secret stays closed, for all who wait; later it opens again."""
    sealed = await vault.seal(pool, PLACE, PLAIN)
    await pool.execute("ALTER TABLE vault_audit RENAME TO away")
    failed = await asyncio.gather(
        *(vault.open(PLACE, sealed, "test") for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, DatabaseError) for outcome in failed)
    await pool.execute("ALTER TABLE away RENAME TO vault_audit")
    assert (await vault.open(PLACE, sealed, "test")).reveal() == PLAIN
    assert await pool.fetchval("SELECT count(*) FROM vault_audit") == 1


async def test_openings_share_statements(pool: Pool, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many at once are few commits, and none is lost, also when some of those who wait are cancelled."""
    batches: list[int] = []
    insert = trail.AuditTrail._insert

    async def counted(self: trail.AuditTrail, openings: list[trail.Opening]) -> None:
        batches.append(len(openings))
        await insert(self, openings)

    monkeypatch.setattr(trail.AuditTrail, "_insert", counted)
    sealed = await vault.seal(pool, PLACE, PLAIN)
    tasks = [asyncio.create_task(vault.open(PLACE, sealed, f"test:{n}")) for n in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::10]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await vault.close()
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 20
    assert await pool.fetchval("SELECT count(*) FROM vault_audit") == 200
    assert sum(batches) == 200
    assert len(batches) <= 3


async def test_old_records_are_forgotten(pool: Pool, vault: Vault) -> None:
    """What is older than is kept goes, the rest stays."""
    sealed = await vault.seal(pool, PLACE, PLAIN)
    for purpose in ("old", "new"):
        await vault.open(PLACE, sealed, purpose)
    await pool.execute("UPDATE vault_audit SET at = now() - interval '91 days' WHERE purpose = 'old'")
    await vault.trail.forget(90)
    assert [row["purpose"] for row in await pool.fetch("SELECT purpose FROM vault_audit")] == ["new"]


async def test_no_secret_shows_when_things_are_printed(pool: Pool, vault: Vault) -> None:
    """Neither the vault, a closed secret nor an error of it tells a key or a plain text."""
    sealed = await vault.seal(pool, PLACE, PLAIN)
    closed = vault.closed(PLACE, sealed)
    with pytest.raises(VaultError) as caught:
        await vault.open(Place(ACCOUNT, "tool:tool_2"), sealed, "test")
    data_key, _ = vault._remembered[ACCOUNT, store.SEALS]
    shown = f"{vault!r} {closed!r} {closed} {await closed.open('test')} {caught.value!r}"
    for hidden in (PLAIN, repr(data_key.key), repr(sealed)):
        assert hidden not in shown
