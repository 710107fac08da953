"""A front door in this process, over the test's database and with whatever else a test needs of it."""

import contextlib
import uuid
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from api.app import make_app
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import Connection, Owner
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_key_secret
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.memory import KnownKeys
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.settings import Secret, Settings
from qlaud_actors.tools.manage import ConnectionDesk, NewLink


@dataclass
class Door:
    """A client of it that comes with the master key unless told otherwise."""

    client: TestClient[web.Request, web.Application]
    master: str

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON; an empty `key` sends none."""
        sent = {"x-api-key": self.master if key is None else key} if key != "" else {}
        async with self.client.request(method, path, json=body, headers={**sent, **headers}) as response:
            return response.status, await response.json(content_type="application/json")

    async def mint(self, **fields: Any) -> Any:
        """A new key, as the API shows it once."""
        status, made = await self.ask("POST", "/v1/keys", {"name": "k", **fields})
        assert status == 201, made
        return made


@contextlib.asynccontextmanager
async def front_door(
    pool: Pool,
    *extra: web.RouteDef,
    max_body_bytes: int = 64 * 1024,
    settings: Settings | None = None,
    **services: Any,
) -> AsyncIterator[Door]:
    """Serve the real application, with further routes if a test wants some."""
    # The request id is kept under a plain name, which aiohttp advises against once per process.
    warnings.filterwarnings("ignore", category=web.NotAppKeyWarning)
    secret = new_key_secret()
    await lifecycle.ensure_master_key(pool, Secret(secret))
    settings = replace(settings or Settings(), master_key=Secret(secret), max_body_bytes=max_body_bytes)
    services.setdefault("catalog", Catalog.load({}))
    services.setdefault("known_keys", KnownKeys(pool))
    services.setdefault("wake_deliveries", _wake_nobody)
    services.setdefault("connector_tools", ())
    services.setdefault("connections", NoConnections())
    desk = ConnectionDesk(ConnectorCatalog.load({}, {}), services["connections"], _no_link)
    services.setdefault("desk", desk)
    app = make_app(SimpleNamespace(pool=pool, settings=settings, **services))  # type: ignore[arg-type]
    app.add_routes(extra)
    async with TestClient(TestServer(app)) as client:
        yield Door(client, secret)


class NoConnections:
    """Nobody has connected anything."""

    async def list_(self, owner: Owner) -> list[Connection]:
        """None."""
        return []


async def _no_link(owner: Owner, connector: str) -> NewLink:
    raise AssertionError(f"{owner} asked for {connector}, which is not there")


async def _wake_nobody(delivery_ids: list[uuid.UUID]) -> None:
    """The worker of this test is the test."""
