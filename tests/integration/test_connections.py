"""Connected accounts: verified live, then kept, sealed, each owner's apart from all others'."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from qlaud_actors.connectors import connection_store
from qlaud_actors.connectors.answer import Received
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connections import Connections, ConnectRefused, Owner
from qlaud_actors.connectors.request import Request
from qlaud_actors.connectors.sending import SendFailed
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT

CATALOG = ConnectorCatalog.load({})
KEY = "lin_api_" + "a1B2c3D4e5" * 4
ALICE, BOB, OURS = Owner(ACCOUNT, "alice"), Owner(ACCOUNT, "bob"), Owner(ACCOUNT)


class Vendor:
    """Answers verifications for Linear: who a key belongs to."""

    def __init__(self, who: Mapping[str, str]) -> None:
        self.who = who
        self.asked: list[Request] = []
        self.down = False

    async def send(self, request: Request, *, trusted: bool = False, seconds: float = 1) -> Received:
        """As the vendor answers it."""
        self.asked.append(request)
        if self.down:
            raise SendFailed("it cannot be reached", sent=False)
        name = self.who.get(request.headers.get("Authorization", ""))
        if name is None:
            body: Any = {"errors": [{"message": "Authentication required", "extensions": {"code": "X"}}]}
            return Received(401, {}, msgspec.json.encode(body), time.time())
        viewer = {"id": f"id-{name}", "name": name, "email": name, "organization": {"name": "Acme"}}
        return Received(200, {}, msgspec.json.encode({"data": {"viewer": viewer}}), time.time())


@pytest.fixture
def vendor() -> Vendor:
    """Knows two keys."""
    return Vendor({KEY: "Ada", KEY.replace("a1", "z9"): "Zoe"})


@pytest.fixture
def connections(pool: Pool, vault: Vault, vendor: Vendor) -> Connections:
    """The service, with a vendor that is not really there."""
    return Connections(pool, vault, CATALOG, vendor)


async def test_a_credential_is_verified_then_kept_sealed(
    connections: Connections, pool: Pool, vault: Vault
) -> None:
    """It says whose account it is, opens for its own row, and stands nowhere in plain text."""
    made = await connections.connect(ALICE, "linear", 0, {"api_key": f" {KEY}\n"})
    assert (made.connected_as, made.vendor_account_id, made.status) == ("Ada (Acme)", "id-Ada", "connected")
    opened = await connection_store.open_secrets(pool, vault, made, "test")
    assert {name: secret.reveal() for name, secret in opened.items()} == {"api_key": KEY}
    stored = await pool.fetch("SELECT c::text AS c, s::text AS s FROM connections c, connection_secrets s")
    assert KEY not in str([dict(row) for row in stored])
    assert KEY.encode().hex() not in str([dict(row) for row in stored])


@pytest.mark.parametrize(
    ("scheme", "values", "field"),
    [
        (0, {}, "api_key"),
        (0, {"api_key": "   "}, "api_key"),
        (0, {"api_key": "not a key"}, "api_key"),
        (0, {"api_key": KEY, "other": "x"}, None),
        (0, {"api_key": KEY[:-1] + "\x00"}, "api_key"),
        (0, {"api_key": "lin_api_" + "x" * 5000}, "api_key"),
        (0, {"api_key": "lin_api_" + "q" * 40}, None),
        (7, {"api_key": KEY}, None),
        (1, {}, None),
    ],
)
async def test_what_does_not_connect_keeps_nothing(
    connections: Connections, pool: Pool, scheme: int, values: dict[str, str], field: str | None
) -> None:
    """Bad fields, unknown ways and refused keys are told in words, and no row is left."""
    with pytest.raises(ConnectRefused) as refused:
        await connections.connect(ALICE, "linear", scheme, values)
    assert refused.value.field == field
    assert KEY not in refused.value.words
    assert await pool.fetchval("SELECT count(*) FROM connections") == 0


async def test_the_older_connection_stays_until_the_new_one_is_verified(
    connections: Connections, pool: Pool, vendor: Vendor
) -> None:
    """A refused or failed reconnection changes nothing; an accepted one replaces, and forgets the old key."""
    first = await connections.connect(ALICE, "linear", 0, {"api_key": KEY})
    vendor.down = True
    with pytest.raises(ConnectRefused, match="could not be asked"):
        await connections.connect(ALICE, "linear", 0, {"api_key": KEY.replace("a1", "z9")})
    vendor.down = False
    assert await connections.find(ALICE, "linear") == first
    second = await connections.connect(ALICE, "linear", 0, {"api_key": KEY.replace("a1", "z9")})
    assert second.connected_as == "Zoe (Acme)"
    assert second.id != first.id
    kept = await pool.fetch("SELECT DISTINCT connection_id FROM connection_secrets")
    assert [row["connection_id"] for row in kept] == [second.id]


async def test_two_who_connect_at_once_leave_one_connection(connections: Connections, pool: Pool) -> None:
    """Whoever comes last is kept; there is never a second living row, and nobody gets an error."""
    await asyncio.gather(*(connections.connect(ALICE, "linear", 0, {"api_key": KEY}) for _ in range(6)))
    assert await pool.fetchval("SELECT count(*) FROM connections WHERE status = 'connected'") == 1
    assert await pool.fetchval("SELECT count(*) FROM connection_secrets") == 1


async def test_whose_connection_a_call_uses(connections: Connections, pool: Pool) -> None:
    """An end user's own before the account's; never another end user's, never another account's."""
    other = uuid.uuid4()
    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", other)
    await connections.connect(ALICE, "linear", 0, {"api_key": KEY})
    assert await connections.find(BOB, "linear") is None
    assert await connections.find(OURS, "linear") is None
    await connections.connect(OURS, "linear", 0, {"api_key": KEY.replace("a1", "z9")})
    whose: dict[Owner, Owner | None] = {}
    for owner in (ALICE, BOB, OURS, Owner(other), Owner(other, "alice")):
        found = await connections.find(owner, "linear")
        whose[owner] = found.owner if found else None
        assert [one.owner for one in await connections.list_(owner)] == [o for o in [whose[owner]] if o]
    assert whose == {ALICE: ALICE, BOB: OURS, OURS: OURS, Owner(other): None, Owner(other, "alice"): None}
    assert not await connections.disconnect(BOB, "linear")
    assert not await connections.disconnect(Owner(other, "alice"), "linear")
    assert await connections.disconnect(ALICE, "linear")
    found = await connections.find(ALICE, "linear")
    assert found is not None
    assert found.owner == OURS
