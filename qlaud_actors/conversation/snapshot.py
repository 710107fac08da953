"""A turn as Postgres knows it, told as a client would have seen it: as events, or as one answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.conversation import events, store
from qlaud_actors.conversation.events import Event
from qlaud_actors.conversation.history import as_blocks
from qlaud_actors.conversation.model import StepRecord, StoredMessage, ToolCallRecord, Turn
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.pool import Rows
from qlaud_actors.providers.model import Block
from qlaud_actors.providers.to_anthropic import wire_usage
from qlaud_actors.usage import Usage


@dataclass(frozen=True, slots=True)
class Move:
    """How a turn moved the view of its thread before a step, and what that cost in all."""

    step: int
    version: int
    summarized_through_seq: int
    trimmed_through_seq: int
    omitted: bool
    cost_nanos: int


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """Everything that is stored of one turn."""

    turn: Turn
    messages: list[StoredMessage]
    steps: list[StepRecord]
    calls: list[ToolCallRecord]
    moves: list[Move]

    @property
    def saved_seq(self) -> int:
        """Where the event log stood when the last complete step was saved."""
        return max((step.log_seq for step in self.steps if step.state == "done"), default=0)


async def load_record(rows: Rows, turn: Turn) -> TurnRecord:
    """Read what is stored of a turn."""
    return TurnRecord(
        turn,
        await store.turn_messages(rows, turn.id),
        await store.list_steps(rows, turn.id),
        await store.list_tool_calls(rows, turn.id),
        [Move(**row) for row in await rows.fetch(QUERIES.compactions_of_turn, turn.thread_id, turn.id)],
    )


def record_events(record: TurnRecord) -> list[Event]:
    """The whole stream of a finished turn, each block in one piece."""
    told: list[Event] = []
    by_seq = {message.seq: message for message in record.messages}
    moves = {move.step: move for move in record.moves}
    for step in record.steps:
        told += _move_events(moves.pop(step.number, None))
        if step.state != "done" or step.message_seq not in by_seq:
            continue
        if step.number > 1:
            told.append(events.iteration_start(step.number))
        told += _message_events(step, by_seq[step.message_seq])
        told += _call_events(call for call in record.calls if call.step == step.number)
    for left in moves.values():
        told += _move_events(left)
    return told + events.closing_events(record.turn)


def answer(record: TurnRecord) -> dict[str, Any]:
    """The answer of a completed turn in Anthropic's form: its last assistant message.

    `usage` is that of the whole turn, over all its steps; that of summaries stands beside it.
    """
    done = [step for step in record.steps if step.state == "done"]
    last = done[-1]
    content = next(m.content for m in record.messages if m.seq == last.message_seq)
    return {
        "id": last.message_id,
        "type": "message",
        "role": "assistant",
        "model": last.model,
        "content": as_blocks(content),
        "stop_reason": last.stop_reason,
        "stop_sequence": last.stop_sequence,
        "usage": events.usage_object(record.turn),
    }


def _move_events(move: Move | None) -> list[Event]:
    if move is None:
        return []
    through, trimmed = move.summarized_through_seq, move.trimmed_through_seq
    return [
        events.compaction(move.version, through, trimmed, omitted=move.omitted, cost_nanos=move.cost_nanos)
    ]


def _message_events(step: StepRecord, message: StoredMessage) -> list[Event]:
    usage = wire_usage(
        Usage(step.input_tokens, step.output_tokens, step.cache_read_tokens, step.cache_write_tokens)
    )
    start: Event = {
        "id": step.message_id,
        "type": "message",
        "role": "assistant",
        "model": step.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 0},
    }
    told: list[Event] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(as_blocks(message.content)):
        told += _block_events(index, block)
    delta = {"stop_reason": step.stop_reason, "stop_sequence": step.stop_sequence}
    return [*told, {"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


def _block_events(index: int, block: Block) -> list[Event]:
    match block:
        case {"type": "text", "text": text}:
            empty, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": text}]
        case {"type": "thinking", "thinking": thinking}:
            empty = {**block, "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": thinking},
                {"type": "signature_delta", "signature": block.get("signature", "")},
            ]
        case {"type": "tool_use", "input": value}:
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": msgspec.json.encode(value).decode()}]
        case _:
            empty, deltas = block, []
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _call_events(calls: Iterable[ToolCallRecord]) -> list[Event]:
    own = [call for call in calls if "." not in call.id]
    started = [events.tool_dispatch_start(call.tool_use_id, call.name, call.step) for call in own]
    done = [
        events.tool_dispatch_done(call.tool_use_id, call.name, call.step, call.output, bool(call.is_error))
        for call in own
        if call.finished_at_ms is not None
    ]
    return started + done
