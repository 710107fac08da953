"""`qlaud_manage_connections`: which accounts at vendors are connected, connecting and disconnecting them.

A model gets a link for its user, and never a credential: one that comes in a conversation is refused. Over
REST, where the developer's own program speaks, `connect` may bring credentials along.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.catalog_files import fields_of
from qlaud_actors.connectors.connection import OF_SERVER
from qlaud_actors.connectors.connections import Connection, Connections, ConnectRefused, Owner
from qlaud_actors.connectors.model import Auth, Connector
from qlaud_actors.tools.connector import PREFIX, owner_of
from qlaud_actors.tools.model import CallContext, ToolOutcome, Toolset

NO_CREDENTIALS = (
    "Credentials are not taken in a conversation, and nothing was saved. Use `connect` without them and give "
    "the user the link. What was written here should be revoked at the vendor."
)


class NewLink(Protocol):
    """A one-time link to the connect page."""

    @property
    def url(self) -> str:
        """For whoever shall open it."""

    @property
    def expires_at_ms(self) -> int:
        """When it stops working."""


MakeLink: TypeAlias = Callable[[Owner, str], Awaitable[NewLink]]


class _Refused(Exception):
    """Words for the model, or for who called over REST."""


@dataclass(frozen=True, slots=True)
class ConnectionDesk:
    """Answers the meta-tool; one for each process."""

    catalog: ConnectorCatalog
    connections: Connections
    make_link: MakeLink

    async def answer(
        self, arguments: Mapping[str, Any], toolset: Toolset, context: CallContext, *, by_model: bool = True
    ) -> ToolOutcome:
        """The outcome. The arguments fit the meta-tool's schema."""
        owner = owner_of(context)
        if arguments["action"] == "list":
            return ToolOutcome({"tools": await self._list(owner, toolset)})
        try:
            connector = self._named(arguments, toolset)
            if connector is None:
                return ToolOutcome(_always_connected(arguments["tool"]))
            return ToolOutcome(await self._one(connector, arguments, owner, by_model=by_model))
        except (_Refused, ConnectRefused) as refused:
            return ToolOutcome(str(refused), is_error=True)

    async def _one(
        self, connector: Connector, arguments: Mapping[str, Any], owner: Owner, *, by_model: bool
    ) -> dict[str, Any]:
        credentials = arguments.get("credentials")
        if credentials and by_model:
            raise _Refused(NO_CREDENTIALS)
        match arguments["action"]:
            case "connect" if credentials:
                scheme = _way_in(connector, credentials)
                await self.connections.connect(owner, connector.slug, scheme, credentials)
            case "connect":
                link = await self.make_link(owner, connector.slug)
                expires_at = link.expires_at_ms
                return {"tool": PREFIX + connector.slug, "connect_url": link.url, "expires_at": expires_at}
            case "disconnect":
                await self._disconnect(connector, owner)
        found = await self.connections.find(owner, connector.slug)
        prompt = None if by_model or _works(found) else _prompt(connector)
        return {**_status(connector, found), "credentials_prompt": prompt}

    async def _disconnect(self, connector: Connector, owner: Owner) -> None:
        """What is not there is disconnected already; what is the account's is not the end user's to end."""
        if await self.connections.disconnect(owner, connector.slug):
            return
        if await self.connections.find(owner, connector.slug) is not None:
            raise _Refused(
                f"{connector.name} is used through the connection of the whole account, which only its"
                " operator can disconnect."
            )

    async def _list(self, owner: Owner, toolset: Toolset) -> list[dict[str, Any]]:
        """What is connected first, then what can be: connectors, and the account's servers of vendors."""
        found = {one.connector: one for one in await self.connections.list_(owner)}
        servers = sorted(_servers(toolset) | {slug for slug in found if _is_server(slug)})
        known = [one for slug in servers if (one := self.catalog.find(slug))]
        every = [*self.catalog.connectors.values(), *known]
        ordered = [c for c in every if c.slug in found] + [c for c in every if c.slug not in found]
        return [_status(connector, found.get(connector.slug)) for connector in ordered]

    def _named(self, arguments: Mapping[str, Any], toolset: Toolset) -> Connector | None:
        """The connector or hosted server that is meant; None for a registered tool that needs none."""
        name = (arguments.get("tool") or "").strip()
        if not name:
            raise _Refused(f"`tool` is needed to {arguments['action']}.")
        tool = toolset.find_reachable(name)
        if tool is not None and tool.connector is None:
            return None
        slug, _, action = name.removeprefix(PREFIX).partition("/")
        if tool is not None and tool.kind == "mcp":
            slug, action = tool.connector or "", ""
        connector = self.catalog.find(slug)
        if _is_server(slug) and arguments["action"] == "connect" and slug not in _servers(toolset):
            connector = None  # what nothing here would use is not asked for
        if connector is None or (action and connector.action(action) is None):
            raise _Refused(f"There is no tool named {name[:128]!r}. Search for it first.")
        return connector


def _is_server(slug: str) -> bool:
    return slug.startswith(OF_SERVER)


def _servers(toolset: Toolset) -> set[str]:
    """Hosted MCP servers to which the account has its users connect."""
    return {tool.connector for tool in toolset.reachable if tool.kind == "mcp" and tool.connector}


def _works(connection: Connection | None) -> bool:
    return connection is not None and connection.status == "connected"


def _status(connector: Connector, connection: Connection | None) -> dict[str, Any]:
    """`whose`: of the end user alone, or of the account, whose users all use it."""
    told: dict[str, Any] = {
        "tool": PREFIX + connector.slug,
        "name": connector.name,
        "status": connection.status if connection else "not_connected",
        "connected": _works(connection),
    }
    if connection is None:
        return told
    whose = "account" if connection.owner.end_user_id is None else "end_user"
    return {**told, "connected_as": connection.connected_as, "whose": whose}


def _always_connected(name: str) -> dict[str, Any]:
    """A registered tool is the developer's own."""
    return {"tool": name, "status": "connected", "connected": True, "credentials_prompt": None}


def _prompt(connector: Connector) -> str:
    """What `credentials` must hold, in words."""
    ways = [
        f"{auth.label}: " + ", ".join(f"`{f.name}` ({f.label})" for f in fields_of(connector, auth))
        for auth in connector.auth
        if auth.oauth2 is None
    ]
    link = "without `credentials` to get a link for a browser"
    if not ways:
        return f"Use `connect` {link}."
    return f"Use `connect` {link}, or with `credentials` that hold: {'; or '.join(ways)}."


def _way_in(connector: Connector, credentials: Mapping[str, str]) -> int:
    """Which way of signing in has these fields. Raises _Refused."""
    for scheme, auth in enumerate(connector.auth):
        if auth.oauth2 is None and _fits(connector, auth, credentials):
            return scheme
    raise _Refused(f"These `credentials` do not fit {connector.name}. {_prompt(connector)}")


def _fits(connector: Connector, auth: Auth, values: Mapping[str, str]) -> bool:
    """Whether all that is needed is there, and nothing else."""
    fields = fields_of(connector, auth)
    needed = {f.name for f in fields if not f.optional and f.default is None}
    return needed <= values.keys() <= {f.name for f in fields}
