"""Opens and wires everything that one process needs, and closes it again: the one place that
knows all concrete classes. The API and the workers call the same function.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dramatiq.brokers.redis import RedisBroker
from redis.asyncio import Redis
from redis.exceptions import RedisError

from qlaud_actors import jobs
from qlaud_actors.billing.group_commit import GroupCommit
from qlaud_actors.billing.presence import present
from qlaud_actors.connectors import links
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connections import Connections, Owner
from qlaud_actors.connectors.credentials import Credentials
from qlaud_actors.connectors.execute import Executor
from qlaud_actors.connectors.revocation import Revocations
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.sign_in import SignIn
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.conversation.bus import Bus
from qlaud_actors.conversation.publisher import Publisher
from qlaud_actors.conversation.runner import TurnRunner
from qlaud_actors.db.pool import Pool, open_pool
from qlaud_actors.deferred.runner import JobRunner
from qlaud_actors.deliveries.courier import Courier
from qlaud_actors.embeddings.embedder import Embedder
from qlaud_actors.gateway.admission import Admission
from qlaud_actors.gateway.relay import Relay
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys.limits import Limits
from qlaud_actors.keys.memory import KnownKeys
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.attempt import Session
from qlaud_actors.outbound.client import open_client
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import McpClient
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.prices.follow import PriceFollower
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback
from qlaud_actors.rights.deletion import Deleter
from qlaud_actors.search.find import Searcher
from qlaud_actors.search.indexer import Indexer
from qlaud_actors.search.opening import open_indexer, open_searcher
from qlaud_actors.settings import Settings
from qlaud_actors.tools.builtins.caller import BuiltinCaller
from qlaud_actors.tools.builtins.catalog import Builtins
from qlaud_actors.tools.builtins.vendor import VendorTools
from qlaud_actors.tools.connector import ConnectorCaller, connector_tools
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.finder import ToolFinder
from qlaud_actors.tools.hosted import HostedDesk
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.manage import ConnectionDesk
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.model import Kind, RemoteCaller, Tool
from qlaud_actors.tools.search_vectors import SearchVectors
from qlaud_actors.tools.server_users import ServerUsers
from qlaud_actors.tools.webhook import WebhookCaller

logger = get_logger(__name__)

PRESENCE = 3
"""A process is taken for dead after so many leases of a turn: it may hold a thousand calls."""


@dataclass(frozen=True, slots=True)
class Vendors:
    """What connects accounts at vendors, and what calls tools."""

    catalog: ConnectorCatalog
    connections: Connections
    sign_in: SignIn
    desk: ConnectionDesk
    builtins: Builtins
    mcp: McpCaller
    dispatcher: Dispatcher


@dataclass(frozen=True, slots=True, repr=False)
class Services:
    """What handlers and actors work with."""

    settings: Settings
    pool: Pool
    lease_pool: Pool
    redis: Redis
    broker: RedisBroker
    catalog: Catalog
    vault: Vault
    webhooks: Session
    """For other people's URLs."""
    caller: Caller
    fallback: Fallback
    mcp: McpCaller
    builtins: Builtins
    connectors: ConnectorCatalog
    connector_tools: tuple[Tool, ...]
    """The actions of `connectors`."""
    connections: Connections
    sign_in: SignIn
    desk: ConnectionDesk
    dispatcher: Dispatcher
    publisher: Publisher
    bus: Bus
    relay: Relay
    limits: Limits
    prices: PriceFollower
    known_keys: KnownKeys
    searcher: Searcher

    async def wake(self, turn_ids: list[uuid.UUID]) -> None:
        """Send wake-ups. Redis being away is not an error: the sweeper asks again."""
        await self._enqueue(jobs.RunTurn(str(turn_id)) for turn_id in turn_ids)

    async def wake_deliveries(self, delivery_ids: list[uuid.UUID]) -> None:
        """The same for deliveries of webhooks."""
        await self._enqueue(jobs.SendDelivery(str(delivery_id)) for delivery_id in delivery_ids)

    async def _enqueue(self, wakes: Iterable[jobs.Job]) -> None:
        try:
            await jobs.enqueue(self.broker, *wakes)
        except (RedisError, OSError) as error:
            logger.warning("wake_failed", error=type(error).__name__)

    async def wake_jobs(self, job_ids: list[uuid.UUID]) -> None:
        """The same for jobs."""
        await self._enqueue(jobs.RunJob(str(job_id)) for job_id in job_ids)

    async def wake_deletion(self, deletion_id: uuid.UUID) -> None:
        """The same for the deletion of an end user."""
        await self._enqueue([jobs.DeleteEndUser(str(deletion_id))])

    def job_runner(self) -> JobRunner:
        """The carrier of jobs for this process."""
        admission = self.relay.admission
        return JobRunner(self.settings, self.pool, self.lease_pool, admission, self.wake_deliveries)

    def courier(self) -> Courier:
        """The one who delivers webhooks in this process."""
        settings = self.settings
        allow_private = settings.allow_private_webhooks
        return Courier(self.pool, self.webhooks, self.vault, allow_private, settings.retention_days)

    def deleter(self) -> Deleter:
        """The one who deletes end users in this process."""
        return Deleter(self.pool, self.redis, self.publisher, self.wake, self.wake_deliveries)

    def runner(self) -> TurnRunner:
        """The carrier of turns for this process."""
        return TurnRunner(
            settings=self.settings,
            pool=self.pool,
            lease_pool=self.lease_pool,
            publisher=self.publisher,
            catalog=self.catalog,
            caller=self.caller,
            fallback=self.fallback,
            limits=self.limits,
            vault=self.vault,
            dispatcher=self.dispatcher,
            connectors=self.connector_tools,
            wake=self.wake,
            wake_index=lambda thread_id: self._enqueue([jobs.IndexThread(str(thread_id))]),
        )

    def indexer(self) -> Indexer:
        """The one who indexes messages in this process."""
        return open_indexer(self.searcher, self.settings.master_key)


@contextlib.asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open all, in order; close all, in reverse. Raises SettingsError when an address is missing."""
    database_url, redis_url = settings.addresses()
    async with contextlib.AsyncExitStack() as stack:
        pool = _kept(stack, await open_pool(database_url, max_size=settings.database_pool_size))
        lease_pool = _kept(stack, await open_pool(database_url, min_size=0, max_size=1))
        redis = open_redis(redis_url)
        stack.push_async_callback(redis.aclose)
        broker = jobs.make_broker(redis_url)
        stack.callback(broker.close)
        webhooks = _kept(stack, open_guarded_session(settings.allow_private_webhooks))
        catalog = Catalog.load(settings.environ, directory=settings.catalog_dir)
        prices = _kept(stack, PriceFollower(pool, catalog.prices, settings.price_poll_seconds))
        publisher, bus = _kept(stack, Publisher(redis)), _kept(stack, Bus(redis))
        await asyncio.gather(prices.start(), publisher.start(), bus.start())
        process, client = new_uuid(), _kept(stack, open_client())
        caller, fallback = Caller(client, catalog), Fallback(RetryPolicy(settings.provider_attempts))
        await stack.enter_async_context(present(lease_pool, process, PRESENCE * settings.lease_seconds))
        money = _kept(stack, GroupCommit(pool, process))
        relay = _kept(stack, Relay(Admission(money, catalog, caller, fallback, settings.markup_bps)))
        vault = _kept(stack, _vault(settings, pool, process))
        searcher = _kept(stack, open_searcher(settings, pool, relay))
        vendors = _open_vendors(stack, settings, pool, vault, webhooks, searcher.models.offline.embedder)
        yield Services(
            settings=settings,
            pool=pool,
            lease_pool=lease_pool,
            redis=redis,
            broker=broker,
            catalog=catalog,
            vault=vault,
            webhooks=webhooks,
            caller=caller,
            fallback=fallback,
            mcp=vendors.mcp,
            builtins=vendors.builtins,
            connectors=vendors.catalog,
            connector_tools=connector_tools(vendors.catalog),
            connections=vendors.connections,
            sign_in=vendors.sign_in,
            desk=vendors.desk,
            dispatcher=vendors.dispatcher,
            publisher=publisher,
            bus=bus,
            relay=relay,
            limits=Limits(redis),
            prices=prices,
            known_keys=KnownKeys(pool),
            searcher=searcher,
        )


def _vault(settings: Settings, pool: Pool, process: uuid.UUID) -> Vault:
    return Vault(Keyring.parse(settings.keyring.reveal() if settings.keyring else ""), pool, process)


def _open_vendors(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    pool: Pool,
    vault: Vault,
    guarded: Session,
    embedder: Embedder,
) -> Vendors:
    allow_private = settings.allow_private_webhooks
    catalog = ConnectorCatalog.load(settings.environ, directory=settings.connector_dir)
    operators = _kept(stack, open_guarded_session(allow_private=True))
    sender = VendorSender(guarded, operators, allow_private=allow_private)
    client = McpClient(guarded, allow_private=allow_private)
    hosted = HostedDesk(client, catalog)
    sign_in = SignIn(catalog, sender, settings.base_url)
    revocations = _kept(stack, Revocations(pool, vault, catalog, sign_in))
    connections = Connections(pool, vault, catalog, sender, hosted, revocations)
    credentials = _kept(stack, Credentials(pool, vault, sign_in))

    def make_link(owner: Owner, connector: str) -> Awaitable[links.NewLink]:
        return links.create(pool, owner, connector, settings.base_url)

    executor = Executor(catalog, connections, credentials, sender)
    offered = Builtins.load(catalog)
    desk = ConnectionDesk(catalog, connections, make_link, offered.of_vendors)
    mcp = McpCaller(client, ServerUsers(hosted, connections, credentials))
    builtins = BuiltinCaller(
        offered,
        VendorTools(sender, catalog.overrides, executor),
        pool,
        allow_private=allow_private,
        openai_base_url=settings.environ.get("QLAUD_BUILTIN_BASE_URL_IMAGE_GENERATION"),
    )
    callers: dict[Kind, RemoteCaller] = {
        "webhook": WebhookCaller(guarded, allow_private),
        "mcp": mcp,
        "connector": ConnectorCaller(executor),
        "builtin": builtins,
    }
    finder = ToolFinder(pool, catalog, _kept(stack, SearchVectors(embedder)))
    dispatcher = Dispatcher(callers, KeptCalls(pool), desk, finder)
    return Vendors(catalog, connections, sign_in, desk, builtins.builtins, mcp, dispatcher)


class _Closable(Protocol):
    async def close(self) -> Any: ...


C = TypeVar("C", bound=_Closable)


def _kept(stack: contextlib.AsyncExitStack, resource: C) -> C:
    """Close it with the stack."""
    stack.push_async_callback(resource.close)
    return resource


def open_redis(url: str) -> Redis:
    """The process's client; answers are bytes."""
    return Redis.from_url(url, socket_connect_timeout=5, health_check_interval=15)
