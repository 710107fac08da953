"""Events fold into the reply that they describe."""

import pytest

from qlaud_actors.providers.model import (
    BlockDelta,
    BlockStarted,
    BlockStopped,
    MessageEnded,
    MessageStarted,
    ModelEvent,
)
from qlaud_actors.providers.reply import INVALID_JSON, ReplyBuilder, parse_input
from qlaud_actors.usage import Usage


def folded(*events: ModelEvent) -> ReplyBuilder:
    """A builder that has seen these events."""
    builder = ReplyBuilder()
    for event in events:
        builder.add(event)
    return builder


CALL = {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {}}


def test_all_kinds() -> None:
    """Text, thinking, signatures, citations and inputs land in their blocks, unknown fields survive."""
    citation = {"type": "char_location", "cited_text": "x"}
    reply = folded(
        MessageStarted("msg_1", Usage(input=3)),
        BlockStarted(0, {"type": "thinking", "thinking": "", "signature": ""}),
        BlockDelta(0, {"type": "thinking_delta", "thinking": "Hm"}),
        BlockDelta(0, {"type": "thinking_delta", "thinking": "m"}),
        BlockDelta(0, {"type": "signature_delta", "signature": "abc"}),
        BlockStopped(0),
        BlockStarted(1, {"type": "text", "text": "", "novel": 1}),
        BlockDelta(1, {"type": "citations_delta", "citation": citation}),
        BlockDelta(1, {"type": "text_delta", "text": "Hel"}),
        BlockDelta(1, {"type": "text_delta", "text": "lo"}),
        BlockStopped(1),
        BlockStarted(2, CALL),
        BlockDelta(2, {"type": "input_json_delta", "partial_json": '{"a"'}),
        BlockDelta(2, {"type": "input_json_delta", "partial_json": ":1}"}),
        BlockStopped(2),
        BlockStarted(3, {"type": "compaction", "content": None}),
        BlockDelta(3, {"type": "compaction_delta", "content": "short"}),
        BlockStopped(3),
        MessageEnded("stop_sequence", Usage(3, 9), "END"),
    ).build()
    assert reply.content == [
        {"type": "thinking", "thinking": "Hmm", "signature": "abc"},
        {"type": "text", "text": "Hello", "novel": 1, "citations": [citation]},
        {**CALL, "input": {"a": 1}},
        {"type": "compaction", "content": "short"},
    ]
    assert (reply.message_id, reply.stop_reason, reply.stop_sequence) == ("msg_1", "stop_sequence", "END")
    assert reply.usage == Usage(3, 9)
    assert CALL["input"] == {}  # the events are not changed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("  ", {}),
        ("null", {}),
        ('{"a":{"b":[1]}}', {"a": {"b": [1]}}),
        ('{"a":', {INVALID_JSON: '{"a":'}),
        ("[1]", {INVALID_JSON: "[1]"}),
    ],
)
def test_inputs(text: str, value: dict[str, object]) -> None:
    """A call's input is always an object; what is none is kept as text under its own key."""
    assert parse_input(text) == value


def test_partial() -> None:
    """Of a cut answer the text stays, the unfinished call goes, and all of it counts."""
    cut = folded(
        MessageStarted("msg_1", Usage(input=3)),
        BlockStarted(0, {"type": "text", "text": ""}),
        BlockDelta(0, {"type": "text_delta", "text": "Half"}),
        BlockStopped(0),
        BlockStarted(1, CALL),
        BlockDelta(1, {"type": "input_json_delta", "partial_json": '{"zone"'}),
    )
    partial = cut.partial()
    assert partial.content == [{"type": "text", "text": "Half"}]
    assert partial.output_chars == len('Half{"zone"')
    with pytest.raises(ValueError, match="not ended"):
        cut.build()


def test_nothing() -> None:
    """Before the first event there is nothing."""
    partial = ReplyBuilder().partial()
    assert (partial.message_id, partial.content, partial.output_chars) == (None, [], 0)
