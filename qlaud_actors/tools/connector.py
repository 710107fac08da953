"""Actions of connectors as tools, `<slug>/<action>`, made once per process and not for each turn."""

from dataclasses import dataclass
from typing import Any

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import OF_KEY, Owner
from qlaud_actors.connectors.execute import EXPIRED, NOT_CONNECTED, ActionCall, Executor, Result
from qlaud_actors.connectors.inputs import input_schema
from qlaud_actors.connectors.model import Action, Connector
from qlaud_actors.tools.model import CallContext, CallStatus, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED

PREFIX = "qlaud-mcp/"
"""With a slug: the name of a connector as a whole."""

TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True)
class ConnectorCaller:
    """Runs the tools of connectors."""

    executor: Executor

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """The outcome; whatever goes wrong is an outcome that says so, with a code."""
        slug, _, action = tool.id.partition("/")
        asked = ActionCall(call.id, owner_of(context), slug, action, call.input, tool.timeout_ms / 1000)
        return outcome_of(slug, await self.executor.run(asked))


def owner_of(context: CallContext) -> Owner:
    """Whose connections a call uses: the end user's, who also has the account's.

    Only admin keys stand for the account itself. A standard key without end user is one by itself: else
    whoever has one could put an account of his own in the place of the one that everybody uses.
    """
    if context.end_user_id is None and context.own_key_id is not None:
        return Owner(context.account_id, OF_KEY + str(context.own_key_id))
    return Owner(context.account_id, context.end_user_id)


def connector_tools(catalog: ConnectorCatalog) -> tuple[Tool, ...]:
    """All actions of all connectors."""
    return tuple(
        _tool(connector, action) for connector in catalog.connectors.values() for action in connector.actions
    )


def _tool(connector: Connector, action: Action) -> Tool:
    name = f"{connector.slug}/{action.name}"
    return Tool(
        id=name,
        name=name,
        description=f"{connector.name}: {action.description}",
        input_schema=input_schema(connector, action),
        kind="connector",
        effect=action.effect,
        timeout_ms=TIMEOUT_MS,
        shared=False,
    )


def outcome_of(slug: str, result: Result) -> ToolOutcome:
    """A result as the model reads it. Of a failure programs read `error` and models `message`."""
    if result.code is None:
        return ToolOutcome(result.output)
    told: dict[str, Any] = {"error": result.code, "message": result.output}
    status: CallStatus | None = "unknown" if result.unsure else None
    if result.code in (NOT_CONNECTED, EXPIRED):
        status = "not_connected"
        told["tool"] = PREFIX + slug
        told["message"] += (
            f" Use qlaud_manage_connections with action `connect` and tool `{PREFIX}{slug}`, and give the"
            " user the link."
        )
    if result.unsure:
        told["message"] += f" {MAY_HAVE_HAPPENED}"
    if result.vendor_code is not None:
        told["vendor_code"] = result.vendor_code
    if result.retry_after_s is not None:
        told["retry_after_s"] = round(result.retry_after_s, 1)
    return ToolOutcome(told, is_error=True, status=status)
