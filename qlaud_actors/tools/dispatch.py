"""Runs a tool call: check it, journal it, hand it to its kind. A failure is an outcome, not an exception."""

import asyncio
import difflib
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.errors import LeaseLost
from qlaud_actors.log import get_logger
from qlaud_actors.providers.reply import INVALID_JSON
from qlaud_actors.tools import meta
from qlaud_actors.tools.model import CallContext, CallJournal, Tool, ToolCall, ToolOutcome, Toolset
from qlaud_actors.tools.schema import problems
from qlaud_actors.tools.webhook import WebhookCaller

PARALLEL_INNER_CALLS = 8
MAX_OUTPUT_BYTES = 100_000
"""The most of one result that a model gets to read."""

logger = get_logger(__name__)


class NoJournal:
    """For calls over REST, which no turn owns."""

    async def begin(self, call: ToolCall, tool: Tool) -> ToolOutcome | None:
        """Nothing is remembered."""

    async def finish(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Nothing is remembered."""

    async def client_result(self, call: ToolCall, tool: Tool) -> ToolOutcome:
        """Nobody could answer."""
        return ToolOutcome("Client tools exist only inside a turn.", is_error=True)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a call runs in: its toolset, on whose behalf, and where it is journaled."""

    toolset: Toolset
    context: CallContext
    journal: CallJournal


class Dispatcher:
    """Runs calls; one for each process."""

    def __init__(self, webhooks: WebhookCaller) -> None:
        self._webhooks = webhooks

    async def run(
        self, call: ToolCall, toolset: Toolset, context: CallContext, journal: CallJournal
    ) -> ToolOutcome:
        """The outcome of a call to an offered tool. Raises LeaseLost."""
        scope = Scope(toolset, context, journal)
        return await self._run(call, toolset.find(call.name), scope)

    async def _run(self, call: ToolCall, tool: Tool | None, scope: Scope) -> ToolOutcome:
        refused = _refusal(call, tool, scope.toolset)
        if refused is not None or tool is None:
            return refused or ToolOutcome("", is_error=True)
        prior = await scope.journal.begin(call, tool)
        if prior is not None:
            return prior
        outcome = trimmed(await self._call(call, tool, scope))
        await scope.journal.finish(call, outcome)
        return outcome

    async def _call(self, call: ToolCall, tool: Tool, scope: Scope) -> ToolOutcome:
        try:
            match tool.kind:
                case "webhook":
                    return await self._webhooks.call(tool, call, scope.context)
                case "client":
                    return await scope.journal.client_result(call, tool)
                case "meta":
                    return await self._meta(call, scope)
        except LeaseLost:
            raise
        except Exception:
            logger.exception("tool_crashed", tool_id=tool.id, call_id=call.id)
            return ToolOutcome("The tool failed on this server's side.", is_error=True)

    async def _meta(self, call: ToolCall, scope: Scope) -> ToolOutcome:
        match call.name:
            case meta.SEARCH:
                return meta.search_tools(scope.toolset, call.input)
            case meta.SCHEMAS:
                return meta.get_tool_schemas(scope.toolset, call.input)
            case meta.CONNECTIONS:
                return meta.manage_connections(scope.toolset, call.input)
            case _:
                return await self._multi_execute(call, scope)

    async def _multi_execute(self, call: ToolCall, scope: Scope) -> ToolOutcome:
        """Run the inner calls, each journaled under `<id>.<n>`; results in the order of the calls."""
        slots = asyncio.Semaphore(1 if call.input.get("ordered") else PARALLEL_INNER_CALLS)

        async def one(index: int, inner: dict[str, Any]) -> dict[str, Any]:
            name = inner["tool"]
            part = ToolCall(
                f"{call.id}.{index}", f"{call.tool_use_id}.{index}", name, inner.get("args") or {}
            )
            async with slots:
                outcome = await self._run(part, scope.toolset.find_reachable(name), scope)
            told = {"tool": name, "output": outcome.output}
            return {**told, "is_error": True} if outcome.is_error else told

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(i, inner)) for i, inner in enumerate(call.input["calls"])]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # a lost lease, alike for all
        return ToolOutcome({"results": [task.result() for task in tasks]})


def _refusal(call: ToolCall, tool: Tool | None, toolset: Toolset) -> ToolOutcome | None:
    """Why a call is not run at all, in words for the model."""
    if tool is None:
        names = [t.name for t in (*toolset.reachable, *toolset.offered)]
        near = difflib.get_close_matches(call.name, names, n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        return ToolOutcome(f"There is no tool named {call.name!r}.{hint}", is_error=True)
    if INVALID_JSON in call.input:
        return ToolOutcome("The input of this call was not a JSON object. Send it again.", is_error=True)
    if wrong := problems(tool.input_schema, call.input):
        return ToolOutcome("The input does not fit the tool's schema. " + "; ".join(wrong), is_error=True)
    return None


def trimmed(outcome: ToolOutcome) -> ToolOutcome:
    """An outcome that a model can read: a larger one becomes the beginning of its text, and says so."""
    text = outcome.output if isinstance(outcome.output, str) else msgspec.json.encode(outcome.output).decode()
    raw = text.encode()
    if len(raw) <= MAX_OUTPUT_BYTES:
        return outcome
    kept = raw[:MAX_OUTPUT_BYTES].decode(errors="ignore")
    note = f"\n… cut here: {MAX_OUTPUT_BYTES} of {len(raw)} bytes are shown. Ask for less, or for the rest."
    return ToolOutcome(kept + note, outcome.is_error)
