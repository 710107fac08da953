"""Runs a tool call: check it, journal it, hand it to its kind. A failure is an outcome, not an exception.

Only the journal's own errors are raised: a lost lease, a database that is away. Then the turn is
carried on by whoever takes it over, and the journal says which calls may be repeated.
"""

import asyncio
import difflib
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from qlaud_actors.log import get_logger
from qlaud_actors.providers.reply import INVALID_JSON
from qlaud_actors.tools import meta
from qlaud_actors.tools.connector import ConnectorCaller
from qlaud_actors.tools.manage import ConnectionDesk
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.model import CallContext, CallJournal, Tool, ToolCall, ToolOutcome, Toolset
from qlaud_actors.tools.schema import problems
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED, WebhookCaller

PARALLEL_INNER_CALLS = 8
MAX_OUTPUT_BYTES = 100_000
"""The most of one result that a model gets to read; the calls of a multi-execute share it."""

MIN_SHARE_BYTES = 4000

logger = get_logger(__name__)


class NoJournal:
    """For calls over REST, which no turn owns."""

    async def begin(self, call: ToolCall, tool: Tool) -> ToolOutcome | None:
        """Nothing is remembered."""

    async def finish(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Nothing is remembered."""

    async def client_result(self, call: ToolCall, tool: Tool) -> ToolOutcome:
        """Nobody could answer."""
        return _failed("Client tools exist only inside a turn.")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a call runs in: its toolset, on whose behalf, where it is journaled, how much it may say."""

    toolset: Toolset
    context: CallContext
    journal: CallJournal
    max_bytes: int = MAX_OUTPUT_BYTES


class Dispatcher:
    """Runs calls; one for each process."""

    def __init__(
        self,
        webhooks: WebhookCaller,
        mcp: McpCaller,
        connectors: ConnectorCaller | None = None,
        desk: ConnectionDesk | None = None,
    ) -> None:
        self._webhooks = webhooks
        self._mcp = mcp
        self._connectors = connectors
        self._desk = desk

    async def run(
        self, call: ToolCall, toolset: Toolset, context: CallContext, journal: CallJournal
    ) -> ToolOutcome:
        """The outcome of a call to an offered tool. Raises what the journal raises, LeaseLost above all."""
        return await self._run(call, toolset.find(call.name), Scope(toolset, context, journal))

    async def _run(self, call: ToolCall, tool: Tool | None, scope: Scope) -> ToolOutcome:
        if tool is None or (refused := _refusal(call, tool)):
            outcome = _failed(unknown_tool(call.name, scope.toolset) if tool is None else refused)
            await scope.journal.finish(call, outcome)
            return outcome
        prior = await scope.journal.begin(call, tool)
        if prior is not None:
            return prior
        outcome = await self._call(call, tool, scope)
        await scope.journal.finish(call, outcome)
        return outcome

    async def _call(self, call: ToolCall, tool: Tool, scope: Scope) -> ToolOutcome:
        match tool.kind:
            case "webhook":
                outcome = await self._remote(self._webhooks, call, tool, scope.context)
            case "mcp":
                outcome = await self._remote(self._mcp, call, tool, scope.context)
            case "connector" if self._connectors:
                outcome = await self._remote(self._connectors, call, tool, scope.context)
            case "connector":
                outcome = _failed("Connectors are not offered here.")
            case "client":
                outcome = await scope.journal.client_result(call, tool)
            case "meta" if tool.name == meta.EXECUTE:
                return await self._multi_execute(call, scope)  # its parts are trimmed, so it stays JSON
            case "meta" if tool.name == meta.CONNECTIONS:
                outcome = await self._connections(call, scope)
            case "meta":
                outcome = meta.answer(tool.name, scope.toolset, call.input)
        return trimmed(outcome, scope.max_bytes)

    async def _remote(
        self,
        caller: WebhookCaller | McpCaller | ConnectorCaller,
        call: ToolCall,
        tool: Tool,
        context: CallContext,
    ) -> ToolOutcome:
        try:
            return await caller.call(tool, call, context)
        except Exception:
            logger.exception("tool_crashed", tool_id=tool.id, call_id=call.id)
            return _failed(f"The tool failed on this server's side. {MAY_HAVE_HAPPENED}")

    async def _connections(self, call: ToolCall, scope: Scope) -> ToolOutcome:
        if self._desk is None:
            return _failed("Connections are not offered here.")
        try:
            return await self._desk.answer(call.input, scope.toolset, scope.context)
        except Exception:
            logger.exception("connections_crashed", call_id=call.id)
            return _failed("The connections could not be read or changed just now. Try again later.")

    async def _multi_execute(self, call: ToolCall, scope: Scope) -> ToolOutcome:
        """Run the inner calls, each journaled under `<id>.<n>`; results in the order of the calls."""
        calls: list[dict[str, Any]] = call.input["calls"]
        scope = replace(scope, max_bytes=max(scope.max_bytes // len(calls), MIN_SHARE_BYTES))
        parts = [
            ToolCall(f"{call.id}.{i}", f"{call.tool_use_id}.{i}", inner["tool"], inner.get("args") or {})
            for i, inner in enumerate(calls)
        ]
        run = self._in_order if call.input.get("ordered") else self._in_parallel
        results = [
            {"tool": part.name, "output": outcome.output, **({"is_error": True} if outcome.is_error else {})}
            for part, outcome in zip(parts, await run(parts, scope), strict=True)
        ]
        return ToolOutcome({"results": results})

    async def _in_parallel(self, calls: list[ToolCall], scope: Scope) -> list[ToolOutcome]:
        slots = asyncio.Semaphore(PARALLEL_INNER_CALLS)

        async def one(call: ToolCall) -> ToolOutcome:
            async with slots:
                return await self._run(call, scope.toolset.find_reachable(call.name), scope)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(call)) for call in calls]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the journal's, alike for all
        return [task.result() for task in tasks]

    async def _in_order(self, calls: list[ToolCall], scope: Scope) -> list[ToolOutcome]:
        """One after another: what follows a failure may build on it, so it is not run."""
        outcomes: list[ToolOutcome] = []
        for call in calls:
            if outcomes and outcomes[-1].is_error:
                outcomes.append(_failed("Not run, because a call before it failed."))
            else:
                outcomes.append(await self._run(call, scope.toolset.find_reachable(call.name), scope))
        return outcomes


def unknown_tool(name: str, toolset: Toolset) -> str:
    """That there is no such tool, and what may have been meant."""
    if toolset.find(meta.EXECUTE) and toolset.find_reachable(name):
        return f"{name!r} cannot be called directly: run it with {meta.EXECUTE}."
    names = [tool.name for tool in (*toolset.reachable, *toolset.offered)]
    near = difflib.get_close_matches(name[:128], names, n=3)
    return f"There is no tool named {name[:128]!r}." + (f" Did you mean {', '.join(near)}?" if near else "")


def _refusal(call: ToolCall, tool: Tool) -> str:
    """Why an input is not passed on, in words for the model; empty when it is."""
    if INVALID_JSON in call.input:
        return "The input of this call was not a JSON object. Send it again."
    if wrong := problems(tool.input_schema, call.input):
        return "The call was not made, because its input does not fit the tool's schema. " + "; ".join(wrong)
    return ""


def trimmed(outcome: ToolOutcome, limit: int = MAX_OUTPUT_BYTES) -> ToolOutcome:
    """An outcome that a model can read: a larger one becomes the beginning of its text, and says so."""
    text = outcome.output if isinstance(outcome.output, str) else msgspec.json.encode(outcome.output).decode()
    raw = text.encode()
    if len(raw) <= limit:
        return outcome
    kept = raw[:limit].decode(errors="ignore")
    note = f"\n… cut here: {limit} of {len(raw)} bytes are shown. Ask for less, or for the rest."
    return ToolOutcome(kept + note, outcome.is_error)


def _failed(words: str) -> ToolOutcome:
    return ToolOutcome(words, is_error=True)
