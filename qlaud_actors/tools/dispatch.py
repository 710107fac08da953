"""Runs a tool call: check it, journal it, hand it to its kind. A failure is an outcome, not an exception.

Only the journal's own errors are raised: a lost lease, a database that is away. Then the turn is
carried on by whoever takes it over, and the journal says which calls may be repeated.
"""

import asyncio
import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qlaud_actors.db.pool import ConnectionLost
from qlaud_actors.log import get_logger
from qlaud_actors.tools import meta
from qlaud_actors.tools.finder import ToolFinder
from qlaud_actors.tools.large import READ_RESULT, as_text, cut, page, trimmed
from qlaud_actors.tools.manage import ConnectionDesk
from qlaud_actors.tools.model import (
    CallContext,
    CallJournal,
    CallStatus,
    Kept,
    Kind,
    RemoteCaller,
    Tool,
    ToolCall,
    ToolOutcome,
    Toolset,
)
from qlaud_actors.tools.schema import refusal
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED

PARALLEL_INNER_CALLS = 8
PARALLEL_CALLS_OF_TARGET = 4
"""Of those at once to one MCP server or connector."""

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

    @property
    def pageable(self) -> bool:
        """Whether whoever gets a result can read on in it."""
        return self.context.key_id is not None and self.toolset.find(meta.EXECUTE) is not None


@dataclass(frozen=True, slots=True)
class Inner:
    """One call of a multi-execute, and the tool that it is for."""

    call: ToolCall
    tool: Tool | None
    key: str | None = None

    @property
    def target(self) -> str | None:
        """The MCP server or connector that is called."""
        if self.tool is None or self.tool.kind in ("webhook", "meta"):
            return None
        return self.tool.name.partition("/")[0]


class Dispatcher:
    """Runs calls; one for each process."""

    def __init__(
        self,
        callers: Mapping[Kind, RemoteCaller],
        kept: Kept,
        desk: ConnectionDesk | None = None,
        finder: ToolFinder | None = None,
    ) -> None:
        self._callers = callers
        self._kept = kept
        self._desk = desk
        self._finder = finder

    async def run(
        self, call: ToolCall, toolset: Toolset, context: CallContext, journal: CallJournal
    ) -> ToolOutcome:
        """The outcome of a call to an offered tool. Raises what the journal raises, LeaseLost above all."""
        return await self._run(call, toolset.find(call.name), Scope(toolset, context, journal))

    async def _run(
        self, call: ToolCall, tool: Tool | None, scope: Scope, key: str | None = None
    ) -> ToolOutcome:
        refused = refusal(tool, call.input) if tool else unknown_tool(call.name, scope.toolset)
        if key is not None and not key.isprintable():
            refused = "The call was not made: its `idempotency_key` must be printable."
        if tool is None or refused:
            outcome = _failed(refused, "refused")
            await scope.journal.finish(call, outcome)
            return outcome
        prior = await scope.journal.begin(call, tool)
        if prior is not None:
            return prior
        if key is None:
            outcome = await self._call(call, tool, scope)
        else:
            outcome = await self._keyed(key, call, tool, scope)
        await scope.journal.finish(call, outcome)
        return outcome

    async def _keyed(self, key: str, call: ToolCall, tool: Tool, scope: Scope) -> ToolOutcome:
        """A call under the caller's own key: made once, then answered from memory."""
        begun = await self._kept.begin(key, call, tool, scope.context)
        if isinstance(begun, ToolOutcome):
            return begun
        outcome = await self._call(replace(call, id=begun), tool, scope)
        await self._kept.finish(key, begun, outcome, scope.context)
        return outcome

    async def _call(self, call: ToolCall, tool: Tool, scope: Scope) -> ToolOutcome:
        match tool.kind:
            case "client":
                outcome = await scope.journal.client_result(call, tool)
            case "meta" if tool.name == meta.EXECUTE:
                return await self._multi_execute(call, scope)  # its parts are trimmed, so it stays JSON
            case "meta" if tool.name == meta.CONNECTIONS:
                outcome = await self._connections(call, scope)
            case "meta" if tool is READ_RESULT:
                return await self._read_result(call, scope)
            case "meta" if tool.name == meta.SEARCH and self._finder:
                outcome = await self._search(self._finder, call, scope)
            case "meta":
                outcome = meta.answer(tool.name, scope.toolset, call.input)
            case _:
                outcome = await self._remote(call, tool, scope.context)
        return await self._shown(call, outcome, scope)

    async def _shown(self, call: ToolCall, outcome: ToolOutcome, scope: Scope) -> ToolOutcome:
        """What the model gets to read; the whole is kept where it can read on."""
        text = as_text(outcome.output)
        if len(text.encode()) <= scope.max_bytes:
            return outcome
        if scope.pageable:
            try:
                await self._kept.keep(call.id, text, scope.context)
                return cut(outcome, scope.max_bytes, call.id)
            except ConnectionLost:
                logger.warning("result_not_kept", call_id=call.id)
        return trimmed(outcome, scope.max_bytes)

    async def _read_result(self, call: ToolCall, scope: Scope) -> ToolOutcome:
        result_id = call.input["result_id"]
        readable = scope.pageable and result_id.isprintable()
        text = await self._kept.read(result_id, scope.context) if readable else None
        if text is None:
            return _failed("There is no such result here, or it is kept no longer. Run its tool again.")
        return ToolOutcome(page(result_id, text, call.input, scope.max_bytes))

    async def _remote(self, call: ToolCall, tool: Tool, context: CallContext) -> ToolOutcome:
        try:
            return await self._callers[tool.kind].call(tool, call, context)
        except Exception:
            logger.exception("tool_crashed", tool_id=tool.id, call_id=call.id)
            return _failed(f"The tool failed on this server's side. {MAY_HAVE_HAPPENED}", "unknown")

    async def _connections(self, call: ToolCall, scope: Scope) -> ToolOutcome:
        if self._desk is None:
            return _failed("Connections are not offered here.")
        try:
            return await self._desk.answer(call.input, scope.toolset, scope.context)
        except Exception:
            logger.exception("connections_crashed", call_id=call.id)
            return _failed("The connections could not be read or changed just now. Try again later.")

    async def _search(self, finder: ToolFinder, call: ToolCall, scope: Scope) -> ToolOutcome:
        try:
            return await finder.search(scope.toolset, scope.context, call.input)
        except Exception:
            logger.exception("search_crashed", call_id=call.id)
            return _failed("The tools could not be searched just now. Try again later.")

    async def _multi_execute(self, call: ToolCall, scope: Scope) -> ToolOutcome:
        """Run the inner calls, each journaled under `<id>.<n>`; results in the order of the calls."""
        calls: list[dict[str, Any]] = call.input["calls"]
        scope = replace(scope, max_bytes=max(scope.max_bytes // len(calls), MIN_SHARE_BYTES))
        parts = [_inner(call, number, made, scope.toolset) for number, made in enumerate(calls)]
        run = self._in_order if call.input.get("ordered") else self._in_parallel
        outcomes = await run(parts, scope)
        results = [told(part.call.name, outcome) for part, outcome in zip(parts, outcomes, strict=True)]
        return ToolOutcome({"results": results})

    async def _in_parallel(self, parts: list[Inner], scope: Scope) -> list[ToolOutcome]:
        slots = asyncio.Semaphore(PARALLEL_INNER_CALLS)
        targets = {part.target: asyncio.Semaphore(PARALLEL_CALLS_OF_TARGET) for part in parts if part.target}

        async def one(part: Inner) -> ToolOutcome:
            async with targets.get(part.target or "", contextlib.nullcontext()), slots:
                return await self._run(part.call, part.tool, scope, part.key)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(part)) for part in parts]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the journal's, alike for all
        return [task.result() for task in tasks]

    async def _in_order(self, parts: list[Inner], scope: Scope) -> list[ToolOutcome]:
        """One after another: what follows a failure may build on it, so it is not run."""
        outcomes: list[ToolOutcome] = []
        for part in parts:
            if outcomes and outcomes[-1].is_error:
                outcomes.append(_failed("Not run, because a call before it failed.", "not_run"))
            else:
                outcomes.append(await self._run(part.call, part.tool, scope, part.key))
        return outcomes


def _inner(outer: ToolCall, number: int, made: dict[str, Any], toolset: Toolset) -> Inner:
    """One call of a multi-execute; it may be given less time than its tool has."""
    call = ToolCall(
        f"{outer.id}.{number}", f"{outer.tool_use_id}.{number}", made["tool"], made.get("args") or {}
    )
    tool = READ_RESULT if call.name == READ_RESULT.name else toolset.find_reachable(call.name)
    if tool and (asked := made.get("timeout_ms")):
        tool = replace(tool, timeout_ms=min(asked, tool.timeout_ms))
    return Inner(call, tool, made.get("idempotency_key"))


def told(name: str, outcome: ToolOutcome) -> dict[str, Any]:
    """A result of a multi-execute (reference 5.2), and beside it how the call ended and where the rest is."""
    result: dict[str, Any] = {"tool": name, "status": outcome.told_status, "output": outcome.output}
    if outcome.is_error:
        result["is_error"] = True
    if outcome.cut:
        result["result_id"], result["next_offset"] = outcome.cut.result_id, outcome.cut.next_offset
    return result


def unknown_tool(name: str, toolset: Toolset) -> str:
    """That there is no such tool, and what may have been meant."""
    if toolset.find(meta.EXECUTE) and toolset.find_reachable(name):
        return f"{name!r} cannot be called directly: run it with {meta.EXECUTE}."
    names = [tool.name for tool in (*toolset.reachable, *toolset.offered)]
    near = difflib.get_close_matches(name[:128], names, n=3)
    return f"There is no tool named {name[:128]!r}." + (f" Did you mean {', '.join(near)}?" if near else "")


def _failed(words: str, status: CallStatus | None = None) -> ToolOutcome:
    return ToolOutcome(words, is_error=True, status=status)
