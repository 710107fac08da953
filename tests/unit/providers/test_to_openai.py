"""Answers in OpenAI's dialect, and the cutting of passing frames."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.providers.model import (
    BlockDelta,
    BlockStarted,
    BlockStopped,
    MessageEnded,
    MessageStarted,
    ModelEvent,
)
from qlaud_actors.providers.passage import Frames
from qlaud_actors.providers.reply import ReplyBuilder
from qlaud_actors.providers.to_openai import DONE, OpenAIWriter
from qlaud_actors.usage import Usage

USED = Usage(input=10, output=7, cache_read=5, cache_write_5m=2, cache_write_1h=1, reasoning=3)
EVENTS: list[ModelEvent] = [
    MessageStarted("msg_1", Usage()),
    BlockStarted(0, {"type": "thinking", "thinking": "", "signature": ""}),
    BlockDelta(0, {"type": "thinking_delta", "thinking": "Hm"}),
    BlockDelta(0, {"type": "signature_delta", "signature": "s"}),
    BlockStopped(0),
    BlockStarted(1, {"type": "text", "text": ""}),
    BlockDelta(1, {"type": "text_delta", "text": "Grüße"}),
    BlockStopped(1),
    BlockStarted(2, {"type": "tool_use", "id": "c1", "name": "f", "input": {}}),
    BlockDelta(2, {"type": "input_json_delta", "partial_json": ""}),
    BlockDelta(2, {"type": "input_json_delta", "partial_json": '{"a":1}'}),
    BlockStopped(2),
    BlockStarted(3, {"type": "tool_use", "id": "c2", "name": "g", "input": {}}),
    BlockStopped(3),
    MessageEnded("tool_use", USED),
]


def test_events_become_chunks() -> None:
    """Thinking, text, calls with their numbers, a reason, and usage where it was asked for."""
    writer = OpenAIWriter("claude", include_usage=True)
    raw = b"".join(map(writer.frames, EVENTS))
    assert raw.endswith(DONE)
    chunks = [msgspec.json.decode(line[6:]) for line in raw.removesuffix(DONE).splitlines() if line]
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        ("msg_1", "claude", "chat.completion.chunk")
    }
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm"},
        {"content": "Grüße"},
        {
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]},
        {
            "tool_calls": [
                {"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:-1]] == ["tool_calls"]
    assert chunks[-1]["choices"] == []
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"]["prompt_tokens"] == 18
    assert "usage" not in msgspec.json.decode(OpenAIWriter("m").frames(EVENTS[0])[6:])


def test_a_reply_becomes_a_completion() -> None:
    """The same answer in one body, with all buckets of the prompt in OpenAI's sum."""
    reply = ReplyBuilder()
    for event in EVENTS:
        reply.add(event)
    body = msgspec.json.decode(OpenAIWriter("claude").whole(reply.build()))
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Grüße"
    assert choice["message"]["reasoning_content"] == "Hm"
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [
        {"name": "f", "arguments": '{"a":1}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert body["usage"] == {
        "prompt_tokens": 18,
        "completion_tokens": 7,
        "total_tokens": 25,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


COUNTED = b'data: {"choices": [], "usage": {"prompt_tokens": 1}}'
TRICKY = b'data: {"choices":[{"delta":{"content":"\\"choices\\": [] usage"}}],"usage":null}'
FILTERED = b'data: {"choices":[],"prompt_filter_results":[1]}'


@given(
    st.lists(st.sampled_from([b": c", TRICKY, FILTERED, COUNTED, b"data: [DONE]"])), st.booleans(), st.data()
)
def test_frames_stay_whole_and_usage_alone_is_hidden(
    frames: list[bytes], crlf: bool, data: st.DataObject
) -> None:
    """However the bytes are cut, whole frames come out in order, and only the usage chunk is missing."""
    end = b"\r\n\r\n" if crlf else b"\n\n"
    told = b"".join(frame + end for frame in frames)
    cutter, out, at = Frames(hide_usage=True), b"", 0
    while at < len(told):
        size = data.draw(st.integers(1, 200))
        piece = cutter.feed(told[at : at + size])
        assert not piece or piece.endswith(end)
        out, at = out + piece, at + size
    assert out + cutter.rest() == b"".join(frame + end for frame in frames if frame != COUNTED)
