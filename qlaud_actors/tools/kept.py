"""What outlives a call: its outcome under the caller's own idempotency key, and a result too large to show.

A key belongs to its thread, because models pick the same ones everywhere; outside of threads to its API key.
A keyed call is a row before it is made and has its outcome after. A row without an outcome belongs to a
call that is on its way, or whose process died: it may have happened, so only what is harmless to repeat
is made again, under the same call id, which is what receivers recognise it by.
"""

import hashlib
from dataclasses import asdict

import msgspec

from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import Pool
from qlaud_actors.tools.large import MAX_KEPT_BYTES
from qlaud_actors.tools.model import CallContext, Cut, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.store import QUERIES

KEYED_SECONDS = 24 * 3600.0
RESULT_SECONDS = 7 * 24 * 3600.0

NOT_MADE = frozenset({"refused", "not_connected", "not_run"})
"""Outcomes of calls that were never made: their key is free again."""

OTHER_ARGUMENTS = ToolOutcome(
    "This `idempotency_key` was used before with another tool or other arguments. Nothing was run.",
    is_error=True,
    status="refused",
)
BEGUN_BEFORE = ToolOutcome(
    "A call with this `idempotency_key` was begun before, and its outcome is not known: it may still be on "
    "its way, or have been lost. It was not repeated. Check before you use another key.",
    is_error=True,
    status="unknown",
)


class KeptCalls:
    """In Postgres (`tools.model.Kept`)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, key: str, call: ToolCall, tool: Tool, context: CallContext) -> str | ToolOutcome:
        """The id to make the call under; or what came of it when it was made before."""
        print_ = fingerprint(call)
        owner = (context.key_id, context.thread_id, key)
        call_id = await self._pool.fetchval(QUERIES.begin_keyed_call, *owner, print_, call.id, KEYED_SECONDS)
        if call_id is not None:
            return str(call_id)
        row = await self._pool.fetchrow(QUERIES.keyed_call, *owner)
        if row is None or row["fingerprint"] != print_:
            return OTHER_ARGUMENTS if row else BEGUN_BEFORE
        if row["finished"]:
            cut = Cut(**row["cut"]) if row["cut"] else None
            return ToolOutcome(row["output"], bool(row["is_error"]), row["status"], cut)
        return BEGUN_BEFORE if tool.effect == "write" else str(row["call_id"])

    async def finish(self, key: str, call_id: str, outcome: ToolOutcome, context: CallContext) -> None:
        """Note what came of it; a call that was not made is forgotten, so that it can be tried again."""
        owner = (context.key_id, context.thread_id, key, call_id)

        async def write() -> None:
            if outcome.status in NOT_MADE:
                await self._pool.execute(QUERIES.forget_keyed_call, *owner)
            else:
                cut = asdict(outcome.cut) if outcome.cut else None
                told = (outcome.output, outcome.is_error, outcome.status, cut)
                await self._pool.execute(QUERIES.finish_keyed_call, *owner, *told)

        await persistently(write)

    async def keep(self, result_id: str, text: str, context: CallContext) -> None:
        """Keep a large result, up to a hard limit."""
        content = text.encode()[:MAX_KEPT_BYTES]
        await self._pool.execute(
            QUERIES.keep_result, result_id, context.key_id, context.thread_id, content, RESULT_SECONDS
        )

    async def read(self, result_id: str, context: CallContext) -> str | None:
        """A kept result: in a thread one of its own, elsewhere one of the same key's."""
        content = await self._pool.fetchval(QUERIES.kept_result, result_id, context.key_id, context.thread_id)
        return None if content is None else content.decode(errors="ignore")


async def delete_old(pool: Pool) -> None:
    """Forget what is kept no longer."""
    await pool.execute(QUERIES.delete_old_results)
    await pool.execute(QUERIES.delete_old_keyed_calls, KEYED_SECONDS)


def fingerprint(call: ToolCall) -> bytes:
    """What must be the same when a key is used again: tool and arguments, in whatever order these are."""
    return hashlib.sha256(msgspec.json.encode([call.name, call.input], order="sorted")).digest()
