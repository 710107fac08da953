"""Tools as the loop sees them: alike, whoever runs them."""

import uuid
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from qlaud_actors.connectors.connection import OF_SERVER
from qlaud_actors.connectors.vault import ClosedSecret
from qlaud_actors.settings import Secret

Effect: TypeAlias = Literal["read", "idempotent", "write"]
"""What a repetition may do: nothing, the same thing, or a second thing."""

Kind: TypeAlias = Literal["webhook", "mcp", "builtin", "connector", "meta", "client"]
AuthMode: TypeAlias = Literal["tenant", "per_user"]
"""Whose credential a call carries: the account's, or that of whom it is made for."""

ToolsMode: TypeAlias = Literal["explicit", "tenant", "dynamic"]

MULTI_EXECUTE = "qlaud_multi_execute"
"""The meta-tool that runs other tools."""

MANAGE_CONNECTIONS = "qlaud_manage_connections"
"""The meta-tool that connects and disconnects accounts."""


@dataclass(frozen=True, slots=True)
class McpServer:
    """An MCP server that an account has registered; its name is the prefix of its tools' names."""

    id: uuid.UUID
    name: str
    url: str
    headers: Secret | ClosedSecret
    """A JSON object, sent with every request; open only where there are none, or they came just now."""
    timeout_ms: int = 30_000
    effect: Effect | None = None
    """Of all its tools; None: as their hints say."""
    has_auth_headers: bool = False
    catalog_slug: str | None = None
    """The catalogue's entry that it was registered from."""
    auth_mode: AuthMode = "tenant"
    """`per_user`: no headers of its own, every call carries those of a connection."""
    tools_cached: int = 0
    tools_cache_at_ms: int | None = 0
    """None: nobody has connected yet, so no tools are known."""
    created_at_ms: int = 0

    @property
    def connector(self) -> str | None:
        """What connections to it are named; None when it has the account's own headers."""
        return None if self.auth_mode == "tenant" else f"{OF_SERVER}{self.catalog_slug}"


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that a model can call."""

    id: str
    name: str
    description: str
    input_schema: dict[str, Any]
    kind: Kind
    effect: Effect = "write"
    timeout_ms: int = 30_000
    webhook_url: str | None = None
    secret: Secret | ClosedSecret | None = None
    """Open only in a tool that was registered just now."""
    server: McpServer | None = None
    provider: str | None = None
    """Of a built-in: `qlaud-builtin/<name>`."""
    auth_mode: AuthMode | None = None
    config: Secret | ClosedSecret | None = None
    """Of a built-in: a JSON object of texts, open only when it was registered just now; None: it has none."""
    shared: bool = True
    """Attached to every turn in tenant mode."""
    created_at_ms: int = 0

    @property
    def connector(self) -> str | None:
        """Whose connection it needs, of an action or a tool of an MCP server; None: of no vendor."""
        if self.kind == "connector":
            return self.name.partition("/")[0]
        return self.server.connector if self.server else None

    @property
    def wire_kind(self) -> str:
        """As callers know it (reference 5.2): actions of connectors are tools of MCP servers to them."""
        return "mcp" if self.kind == "connector" else self.kind


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: `id` is the journal's name of it and the idempotency key that receivers see."""

    id: str
    tool_use_id: str
    name: str
    input: dict[str, Any]


CallStatus: TypeAlias = Literal["ok", "error", "not_run", "refused", "not_connected", "unknown"]
"""How a call ended: with a result, with a failure; not made because one before it failed, because it may
not be, because the tool's account is not connected; or nobody knows."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the whole of a result is kept, and where what was shown of it ends, in characters."""

    result_id: str
    next_offset: int
    total_characters: int


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a call gave: any JSON value. A failed call is data for the model, not an exception."""

    output: Any
    is_error: bool = False
    status: CallStatus | None = None
    """None: as `is_error` says."""
    cut: Cut | None = None

    @property
    def told_status(self) -> CallStatus:
        """The status, whoever gave this outcome."""
        return self.status or ("error" if self.is_error else "ok")


@dataclass(frozen=True, slots=True)
class CallContext:
    """On whose behalf a call is made."""

    account_id: uuid.UUID
    request_id: str
    thread_id: uuid.UUID | None = None
    turn_id: uuid.UUID | None = None
    end_user_id: str | None = None
    key_id: uuid.UUID | None = None
    own_key_id: uuid.UUID | None = None
    """Of a standard key, which does not stand for the account itself."""


class RemoteCaller(Protocol):
    """Calls tools of one kind that run elsewhere, or in code of their own."""

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """The outcome; whatever goes wrong is an outcome in words for the model."""


@dataclass(frozen=True, slots=True)
class Toolset:
    """What one turn may use: `offered` is shown to the model, `reachable` may also be run by name."""

    offered: tuple[Tool, ...] = ()
    reachable: tuple[Tool, ...] = ()

    def find(self, name: str) -> Tool | None:
        """The offered tool with this name."""
        return next((tool for tool in self.offered if tool.name == name), None)

    def find_reachable(self, name: str) -> Tool | None:
        """The tool of this name or id that a meta-tool may run."""
        return next((tool for tool in self.reachable if name in (tool.name, tool.id)), None)


class CallJournal(Protocol):
    """Remembers calls across the death of a worker."""

    async def begin(self, call: ToolCall, tool: Tool) -> ToolOutcome | None:
        """Note that the call starts now; an outcome means: do not run it, this is what came of it.

        Raises LeaseLost when another worker owns the turn.
        """

    async def finish(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Note what came of it. Raises LeaseLost when another worker owns the turn."""

    async def client_result(self, call: ToolCall, tool: Tool) -> ToolOutcome:
        """Wait for the caller's own answer to a client tool, up to the tool's time-out."""


class Kept(Protocol):
    """Remembers outcomes and large results beyond a call."""

    async def begin(self, key: str, call: ToolCall, tool: Tool, context: CallContext) -> str | ToolOutcome:
        """Note that a call starts under the caller's own key: the id to make it under, or what came of it."""

    async def finish(self, key: str, call_id: str, outcome: ToolOutcome, context: CallContext) -> None:
        """Note what came of it."""

    async def keep(self, result_id: str, text: str, context: CallContext) -> None:
        """Keep a large result."""

    async def read(self, result_id: str, context: CallContext) -> str | None:
        """A kept result that may be read from here."""
