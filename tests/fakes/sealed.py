"""A database in which secrets of every kind are sealed for several accounts, and what each must still be."""

import base64
import re
import secrets
import uuid
from dataclasses import dataclass, field, replace

from fakes.old_vault import seal_old

from qlaud_actors.connectors import connection_store, links
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import REFRESH_TOKEN, Owner
from qlaud_actors.connectors.connection_store import Verified, put_secrets
from qlaud_actors.connectors.connections import check_given
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring, Place
from qlaud_actors.db.pool import Pool
from qlaud_actors.deliveries import store as webhooks
from qlaud_actors.ids import new_tool_id, new_uuid
from qlaud_actors.settings import Secret
from qlaud_actors.tools import mcp_store
from qlaud_actors.tools import store as tools
from qlaud_actors.tools.model import McpServer, Tool

SEALED = {
    ("tools", "secret"): "SELECT account_id, 'tool:' || id, 'secret' FROM tools",
    ("tools", "config"): "SELECT account_id, 'tool:' || id, 'config' FROM tools",
    ("webhooks", "secret"): "SELECT account_id, 'webhook:' || id, 'secret' FROM webhooks",
    ("mcp_servers", "auth_headers"): "SELECT account_id, 'mcp_server:' || id, 'headers' FROM mcp_servers",
    ("connection_secrets", "sealed"): (
        "SELECT account_id, 'connection:' || id, field"
        " FROM connection_secrets JOIN connections ON id = connection_id"
    ),
    ("connect_links", "verifier"): (
        "SELECT account_id, 'connect_link:' || encode(token_hash, 'hex'), 'verifier' FROM connect_links"
    ),
}
"""Every column that holds secrets of accounts, and where each of its values belongs."""

PREDATING = {("tools", "secret"), ("webhooks", "secret")}
"""Columns from before there were data keys, which may hold secrets in the old form."""


def canary() -> str:
    """A secret that cannot be taken for anything else."""
    return f"canary-{secrets.token_hex(20)}"


@dataclass
class Ring:
    """The operator's key ring as it grows: keys by name, in the order in which they were made."""

    keys: dict[str, bytes] = field(default_factory=lambda: {"k1": secrets.token_bytes(32)})

    @property
    def newest(self) -> str:
        """The name of the last key."""
        return list(self.keys)[-1]

    def grow(self) -> None:
        """One more key."""
        self.keys[f"k{len(self.keys) + 1}"] = secrets.token_bytes(32)

    def text(self, *names: str) -> str:
        """QLAUD_KEYRING with these keys; with all of them, newest first, when none is named."""
        named = names or tuple(reversed(self.keys))
        return ",".join(f"{name}:{base64.b64encode(self.keys[name]).decode()}" for name in named)

    def of(self, *names: str) -> Keyring:
        """The same, read."""
        return Keyring.parse(self.text(*names))


@dataclass
class SealedHouse:
    """Secrets of several accounts in a database; `told` is what each place holds."""

    pool: Pool
    ring: Ring = field(default_factory=Ring)
    told: dict[Place, str] = field(default_factory=dict)
    catalog: ConnectorCatalog = field(default_factory=lambda: ConnectorCatalog.load({}))
    accounts: list[uuid.UUID] = field(default_factory=list)

    async def fill(self, accounts: int) -> None:
        """One secret of each kind for each account."""
        vault = Vault(self.ring.of(), self.pool)
        for _ in range(accounts):
            account = new_uuid()
            await self.pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'a')", account)
            self.accounts.append(account)
            for add in (self.tool, self.builtin, self.webhook, self.mcp_server, self.connection, self.link):
                await add(vault, account)
        await vault.close()

    async def tool(self, vault: Vault, account: uuid.UUID) -> None:
        """A webhook tool with its secret."""
        made = self._tool(kind="webhook", webhook_url="https://x.example", secret=Secret(text := canary()))
        await tools.insert_tool(self.pool, vault, account, made)
        self.told[Place(account, f"tool:{made.id}")] = text

    async def builtin(self, vault: Vault, account: uuid.UUID) -> None:
        """A built-in with its configuration."""
        provider, text = "qlaud-builtin/http-call", canary()
        made = self._tool(kind="builtin", provider=provider, auth_mode="tenant", config=Secret(text))
        await tools.insert_tool(self.pool, vault, account, made)
        self.told[Place(account, f"tool:{made.id}", "config")] = text

    async def webhook(self, vault: Vault, account: uuid.UUID) -> None:
        """An endpoint for events with its secret."""
        made, secret = await webhooks.insert_webhook(
            self.pool, vault, account, "https://x.example", ["job.completed"]
        )
        self.told[Place(account, f"webhook:{made.id}")] = secret.reveal()

    async def mcp_server(self, vault: Vault, account: uuid.UUID) -> None:
        """A server with headers."""
        server_id, text = new_uuid(), canary()
        name = f"s{server_id.hex}"
        made = McpServer(server_id, name, "https://x.example", Secret(text), has_auth_headers=True)
        await mcp_store.insert_server(self.pool, vault, account, made, [])
        self.told[Place(account, f"mcp_server:{server_id}", "headers")] = text

    async def connection(self, vault: Vault, account: uuid.UUID) -> None:
        """An account at a vendor, signed in by OAuth: two secrets."""
        linear = self.catalog.connectors["linear"]
        values = {"access_token": canary(), REFRESH_TOKEN: canary()}
        owner = Owner(account, canary())
        new = Verified(owner, "linear", 1, check_given(linear, 1, values), "Ada", "ada")
        async with self.pool.acquire() as rows, rows.transaction():
            made = await connection_store.replace(rows, vault, new)
        for name, text in values.items():
            self.told[Place(account, f"connection:{made}", name)] = text

    async def link(self, vault: Vault, account: uuid.UUID) -> None:
        """A link from which somebody has left for a vendor."""
        made = await links.create(self.pool, Owner(account), "linear", "https://q.example")
        link = await links.find(self.pool, made.url.rpartition("/")[2])
        await links.leave(self.pool, vault, link, 1, {})
        place = Place(account, f"connect_link:{link.token_hash.hex()}", "verifier")
        sealed = await self.pool.fetchval(
            "SELECT verifier FROM connect_links WHERE token_hash = $1", link.token_hash
        )
        self.told[place] = (await vault.open(place, sealed, "test")).reveal()

    async def refresh(self, vault: Vault, place: Place) -> None:
        """Another access token for a connection, as a renewal keeps it."""
        text, connection_id = canary(), uuid.UUID(place.owner.removeprefix("connection:"))
        async with self.pool.acquire() as rows, rows.transaction():
            secret = {place.field: Secret(text)}
            await put_secrets(rows, vault, Owner(place.account_id), connection_id, secret)
        self.told[place] = text

    async def renew(self, vault: Vault, place: Place) -> None:
        """Another secret for a webhook."""
        webhook_id = uuid.UUID(place.owner.removeprefix("webhook:"))
        told = await webhooks.rotate_secret(self.pool, vault, place.account_id, webhook_id)
        self.told[place] = told.reveal()

    async def age(self, key: str) -> None:
        """Bring the secrets of the first tables back into the form that they had before data keys."""
        for place in [place for place in self.told if re.match("(tool|webhook):", place.owner)]:
            if place.field != "secret":
                continue
            kind, _, row_id = place.owner.partition(":")
            old = seal_old(key, self.ring.keys[key], self.told[place], kind, place.account_id, row_id)
            change = f"UPDATE {kind}s SET secret = $1 WHERE id::text = $2"
            await self.pool.execute(change, old, row_id)

    async def stored(self) -> dict[Place, bytes]:
        """Every sealed value, by its place."""
        found = {}
        for (_, column), query in SEALED.items():
            head, _, tail = query.partition(" FROM ")
            rows = await self.pool.fetch(f"{head}, {column} AS sealed FROM {tail}")
            found |= {Place(*row[:3]): row["sealed"] for row in rows if row["sealed"]}
        return found

    async def check(self, keyring: Keyring) -> None:
        """Every secret opens at its place, in a process that remembers nothing, and there is no other."""
        vault = Vault(keyring, self.pool)
        opened = {
            place: (await vault.open(place, sealed, "test")).reveal()
            for place, sealed in (await self.stored()).items()
        }
        await vault.close()
        assert opened == self.told

    def places(self, kind: str, field: str | None = None) -> list[Place]:
        """Those of one kind of row."""
        return [p for p in self.told if p.owner.startswith(f"{kind}:") and field in (None, p.field)]

    def _tool(self, **more: object) -> Tool:
        plain = Tool(new_tool_id(), f"t{new_uuid().hex}", "Does.", {"type": "object"}, "webhook")
        return replace(plain, **more)  # type: ignore[arg-type]
