"""Rows ↔ domain objects for threads, messages, turns, steps and tool calls."""

import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.conversation.model import (
    StepRecord,
    StoredMessage,
    Thread,
    ToolCallRecord,
    Turn,
    TurnRequest,
)
from qlaud_actors.db.pool import Connection, Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.usage import Usage

QUERIES = load_queries("qlaud_actors.conversation")

THREAD_FIELDS = Thread.__dataclass_fields__
TURN_FIELDS = Turn.__dataclass_fields__.keys() - {"request", "usage", "summary_usage"}
CALL_FIELDS = ToolCallRecord.__dataclass_fields__


def thread_from(row: Record) -> Thread:
    """A thread from its row."""
    return Thread(**{name: row[name] for name in THREAD_FIELDS})


def turn_from(row: Record) -> Turn:
    """A turn from its row joined with its thread's end user."""
    request = msgspec.convert(row["request"], TurnRequest)
    fields = {name: row[name] for name in TURN_FIELDS}
    usage, summary_usage = _usage_from(row["used"]), _usage_from(row["used_for_summaries"])
    return Turn(request=request, usage=usage, summary_usage=summary_usage, **fields)


def _usage_from(sums: list[int | None]) -> Usage:
    """Of nothing the sums are NULL."""
    read, written, cached, marked = (count or 0 for count in sums)
    return Usage(read, written, cached, marked)


def message_from(row: Record) -> StoredMessage:
    """A message from its row."""
    return StoredMessage(row["seq"], row["role"], row["content"], row["request_id"], row["created_at_ms"])


def step_from(row: Record) -> StepRecord:
    """A step from its row."""
    return StepRecord(
        number=row["number"],
        state=row["state"],
        model=row["model_slug"],
        message_id=row["message_id"],
        message_seq=row["message_seq"],
        stop_reason=row["stop_reason"],
        stop_sequence=row["stop_sequence"],
        input_tokens=row["input_tokens"] or 0,
        output_tokens=row["output_tokens"] or 0,
        cache_read_tokens=row["cache_read_tokens"] or 0,
        cache_write_tokens=row["cache_write_tokens"] or 0,
        cost_nanos=row["cost_nanos"],
        log_seq=row["log_seq"],
        started_at_ms=row["started_at_ms"],
        finished_at_ms=row["finished_at_ms"],
    )


async def get_turn(rows: Rows, turn_id: uuid.UUID) -> Turn | None:
    """One turn, whoever asks."""
    row = await rows.fetchrow(QUERIES.get_turn, turn_id)
    return turn_from(row) if row else None


async def list_messages(
    rows: Rows, thread_id: uuid.UUID, *, after: int, before: int, limit: int, descending: bool
) -> list[StoredMessage]:
    """Messages with `after < seq < before`."""
    query = QUERIES.list_messages_desc if descending else QUERIES.list_messages_asc
    return [message_from(row) for row in await rows.fetch(query, thread_id, after, before, limit)]


async def turn_messages(rows: Rows, turn_id: uuid.UUID) -> list[StoredMessage]:
    """The messages that one turn wrote, in order."""
    return [message_from(row) for row in await rows.fetch(QUERIES.turn_messages, turn_id)]


async def append_message(
    connection: Connection, turn: Turn, role: str, content: str | list[dict[str, Any]]
) -> int:
    """Write a turn's next message; returns its seq. Fails when the thread was removed."""
    seq = await connection.fetchval(
        QUERIES.append_message, turn.thread_id, role, content, turn.id, turn.request_id
    )
    return int(seq)


async def list_steps(rows: Rows, turn_id: uuid.UUID) -> list[StepRecord]:
    """The steps of a turn, in order."""
    return [step_from(row) for row in await rows.fetch(QUERIES.list_steps, turn_id)]


async def list_tool_calls(rows: Rows, turn_id: uuid.UUID) -> list[ToolCallRecord]:
    """The tool calls of a turn by step."""
    return [
        ToolCallRecord(**{name: row[name] for name in CALL_FIELDS})
        for row in await rows.fetch(QUERIES.list_tool_calls, turn_id)
    ]


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """How full the mailboxes are; the age is that of the oldest queued turn, in seconds."""

    queued: int
    running: int
    parked: int
    oldest_seconds: float


async def queue_figures(rows: Rows) -> QueueFigures:
    """What waits and what runs, over all threads."""
    row = await rows.fetchrow(QUERIES.queue_figures)
    assert row is not None
    return QueueFigures(row["queued"], row["running"], row["parked"], row["oldest_seconds"])
