"""The journal of one owned turn's tool calls: `intended → started → done | failed | unknown`.

Whoever takes a turn over finds here what may be repeated and what may not.
"""

import asyncio
from dataclasses import dataclass

from qlaud_actors.conversation.journal import fenced
from qlaud_actors.conversation.model import Turn, decide_takeover
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import Connection, Pool, Record
from qlaud_actors.tools.model import CallStatus, Tool, ToolCall, ToolOutcome

CLIENT_POLL_SECONDS = 0.25


@dataclass(slots=True)
class ToolJournal:
    """The tool calls of one owned turn (`tools.model.CallJournal`)."""

    pool: Pool
    turn: Turn

    async def begin(self, call: ToolCall, tool: Tool) -> ToolOutcome | None:
        """Note that a call goes out now; an outcome when it must not (see `decide_takeover`)."""
        async with fenced(self.pool, self.turn) as connection:
            row = await self._lock(connection, call, tool)
            status: CallStatus | None = "unknown" if row["state"] == "unknown" else None
            prior = ToolOutcome(row["output"], bool(row["is_error"]), status)
            effect = "idempotent" if tool.kind == "client" else row["effect"]
            decided = decide_takeover(row["state"], effect, prior)
            if decided is None:
                await connection.execute(
                    QUERIES.start_tool_call,
                    call.id,
                    self.turn.epoch,
                    tool.effect,
                    tool.kind,
                    tool.timeout_ms / 1000,
                )
            elif row["state"] == "started":
                await self._finish(connection, call, decided, "unknown")
            return decided

    async def finish(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Note what came of a call; the first word counts, so saying it twice is harmless."""
        state = "unknown" if outcome.status == "unknown" else "failed" if outcome.is_error else "done"

        async def write() -> None:
            async with fenced(self.pool, self.turn) as connection:
                await self._finish(connection, call, outcome, state)

        await persistently(write)

    async def client_result(self, call: ToolCall, tool: Tool) -> ToolOutcome:
        """Wait for the caller's answer in Postgres, which outlives this worker and any connection."""
        while True:
            row = await self.pool.fetchrow(QUERIES.client_call_state, call.id)
            if row is None or row["state"] in ("done", "failed"):
                return ToolOutcome(row["output"] if row else None, bool(row and row["is_error"]))
            if row["seconds_left"] <= 0:
                seconds = tool.timeout_ms // 1000
                return ToolOutcome(f"The client did not answer this call within {seconds} s.", is_error=True)
            await asyncio.sleep(min(CLIENT_POLL_SECONDS, row["seconds_left"]))

    async def _lock(self, connection: Connection, call: ToolCall, tool: Tool) -> Record:
        """The call's row; a call made inside another one (`<id>.<n>`) gets its row here."""
        step = await connection.fetchval(QUERIES.steps_done, self.turn.id)
        await connection.execute(
            QUERIES.insert_tool_call,
            call.id,
            self.turn.id,
            step,
            None,
            call.tool_use_id,
            call.name,
            call.input,
            tool.effect,
            tool.kind,
            self.turn.epoch,
        )
        row = await connection.fetchrow(QUERIES.lock_tool_call, call.id)
        assert row is not None
        return row

    async def _finish(self, connection: Connection, call: ToolCall, outcome: ToolOutcome, state: str) -> None:
        await connection.execute(QUERIES.finish_tool_call, call.id, state, outcome.output, outcome.is_error)
