"""What a client of a turn sees: Anthropic's stream events, and `qlaud.*` events between them.

An event is a JSON object whose first key is `type`. It is encoded once, by the worker, to the exact
bytes that go behind `data: `: compact, UTF-8 unescaped, one line (reference 1.5).
"""

from typing import Any, TypeAlias

import msgspec

from qlaud_actors.conversation.approval_rules import Awaited, inner_calls
from qlaud_actors.conversation.model import Turn
from qlaud_actors.money import nanos_to_micros
from qlaud_actors.providers.to_anthropic import wire_usage

Event: TypeAlias = dict[str, Any]

DONE_PREFIX = b'{"type":"qlaud.done"'
ERROR_PREFIX = b'{"type":"qlaud.error"'
APPROVAL_PREFIX = b'{"type":"qlaud.approval_required"'


def encode(event: Event) -> bytes:
    """The JSON of an event, on one line."""
    return msgspec.json.encode(event)


def event_type(data: bytes) -> str:
    """The `type` of an encoded event, read from its fixed place."""
    return data[9 : data.index(b'"', 9)].decode()


def frame(data: bytes, seq: int | None = None) -> bytes:
    """One SSE frame; `seq` becomes the `id:` that `Last-Event-ID` names later."""
    head = b"" if seq is None else b"id: %d\n" % seq
    return b"%sevent: %s\ndata: %s\n\n" % (head, event_type(data).encode(), data)


def iteration_start(iteration: int) -> Event:
    """Before iteration 2, 3, …; never before the first."""
    return {"type": "qlaud.iteration_start", "iteration": iteration}


def tool_dispatch_start(tool_use_id: str, name: str, iteration: int) -> Event:
    """A tool call begins."""
    return {
        "type": "qlaud.tool_dispatch_start",
        "tool_use_id": tool_use_id,
        "name": name,
        "iteration": iteration,
    }


def tool_dispatch_done(tool_use_id: str, name: str, iteration: int, output: Any, is_error: bool) -> Event:
    """A tool call has ended."""
    return {
        "type": "qlaud.tool_dispatch_done",
        "tool_use_id": tool_use_id,
        "name": name,
        "iteration": iteration,
        "is_error": is_error,
        "output": output,
    }


def approval_required(awaited: Awaited) -> Event:
    """A call waits for a person's word; `calls` are those that it would make in turn."""
    inner = inner_calls(awaited.name, awaited.input)
    return {
        "type": "qlaud.approval_required",
        "tool_use_id": awaited.tool_use_id,
        "name": awaited.name,
        "input": awaited.input,
        "iteration": awaited.step,
        **({"calls": inner} if inner else {}),
        "expires_at": awaited.expires_at_ms,
    }


def compaction(version: int, through_seq: int, trimmed_seq: int, *, omitted: bool, cost_nanos: int) -> Event:
    """From here on a summary stands for the oldest messages, or results in them are cut."""
    return {
        "type": "qlaud.compaction",
        "version": version,
        "summarized_through_seq": through_seq,
        "trimmed_through_seq": trimmed_seq,
        "omitted": omitted,
        "cost_micros": nanos_to_micros(cost_nanos),
    }


def rewind(to_seq: int) -> Event:
    """Forget what came after `to_seq`: the step that produced it was lost and is done anew."""
    return {"type": "qlaud.rewind", "to_seq": to_seq, "reason": "worker_lost"}


def error_event(turn: Turn) -> Event:
    """A fatal failure after the 200 was sent."""
    stored = turn.error or {"message": "The turn was cancelled.", "status": 409, "code": "turn_cancelled"}
    return {
        "type": "qlaud.error",
        "message": stored["message"],
        "status": stored["status"],
        "code": stored["code"],
        "iteration": turn.iterations,
    }


def usage_object(turn: Turn) -> dict[str, Any]:
    """What a turn used. Summaries are beside its steps, as in Anthropic's own compaction: who measures the
    conversation by `input_tokens` must not count what was only read to shorten it.
    """
    return {**wire_usage(turn.usage), "compaction": wire_usage(turn.summary_usage)}


def done_event(turn: Turn) -> Event:
    """The last event of every turn: always sent, always with all its fields."""
    return {
        "type": "qlaud.done",
        "iterations": turn.iterations,
        "hit_max_iterations": turn.hit_max_iterations,
        "incomplete": turn.status != "completed",
        "cost_micros": nanos_to_micros(turn.cost_nanos),
        "usage": usage_object(turn),
        "seq": turn.final_seq,
        "thread_id": str(turn.thread_id),
        "turn_id": str(turn.id),
        "status": turn.status,
    }


def closing_events(turn: Turn) -> list[Event]:
    """How the stream of a finished turn ends."""
    done = done_event(turn)
    return [done] if turn.status == "completed" else [error_event(turn), done]
