"""Answers in the Responses dialect: numbered events, one body, and the official SDK that reads both."""

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from qlaud_actors.providers.model import (
    Block,
    BlockDelta,
    BlockStarted,
    BlockStopped,
    MessageEnded,
    MessageStarted,
    ModelEvent,
    ModelReply,
)
from qlaud_actors.providers.reply import ReplyBuilder
from qlaud_actors.providers.responses_items import conversation
from qlaud_actors.providers.responses_stream import ResponsesDecoder
from qlaud_actors.providers.to_responses import ResponsesWriter
from qlaud_actors.usage import Usage

USED = Usage(input=10, output=7, cache_read=5, cache_write_5m=2, cache_write_1h=1, reasoning=3)
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "sig"}
HIDDEN = {"type": "redacted_thinking", "data": "x=="}
CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
EMPTY_CALL = {"type": "tool_use", "id": "c2", "name": "g", "input": {}}
CONTENT: list[Block] = [HIDDEN, THOUGHT, {"type": "text", "text": "Grüße"}, CALL, EMPTY_CALL]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def events_of(content: list[Block], stop_reason: str, cut: int = 99) -> list[ModelEvent]:
    """An answer as a wire tells it, its texts in pieces of so many characters."""
    events: list[ModelEvent] = [MessageStarted("msg_1", Usage())]
    for index, block in enumerate(content):
        kind = block["type"]
        name, delta = {
            "text": ("text", "text_delta"),
            "thinking": ("thinking", "thinking_delta"),
            "tool_use": ("partial_json", "input_json_delta"),
        }.get(kind, ("", ""))
        text = block.get(kind) or (msgspec.json.encode(block["input"]).decode() if block.get("input") else "")
        start = {**block, kind: ""} if kind in ("text", "thinking") else dict(block)
        start |= {"signature": ""} if kind == "thinking" else {"input": {}} if kind == "tool_use" else {}
        events.append(BlockStarted(index, start))
        pieces = [text[n : n + cut] for n in range(0, len(text), cut)]
        events += [BlockDelta(index, {"type": delta, name: piece}) for piece in pieces]
        if block.get("signature"):
            events.append(BlockDelta(index, {"type": "signature_delta", "signature": block["signature"]}))
        events.append(BlockStopped(index))
    return [*events, MessageEnded(stop_reason, USED)]


def written(events: list[ModelEvent], **body: Any) -> tuple[bytes, list[dict[str, Any]]]:
    """The stream, raw and as objects; each frame is named as its event is."""
    writer = ResponsesWriter("claude", body)
    raw = b"".join(map(writer.frames, events))
    frames = [frame.split(b"\ndata: ") for frame in raw.split(b"\n\n") if frame]
    told = [msgspec.json.decode(data) for _, data in frames]
    assert [name for name, _ in frames] == [b"event: " + event["type"].encode() for event in told]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return raw, told


def reply_of(events: list[ModelEvent]) -> ModelReply:
    builder = ReplyBuilder()
    for event in events:
        builder.add(event)
    return builder.build()


def test_events_come_in_the_documented_order() -> None:
    """Each item is added, told and done before the next; the response comes first and last."""
    _, told = written(events_of([THOUGHT, {"type": "text", "text": "Hi"}, EMPTY_CALL], "tool_use"))
    assert [event["type"].removeprefix("response.") for event in told] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    for event in told:
        EVENT.validate_python(event, strict=False)
    assert told[-1]["response"]["usage"] == {
        "input_tokens": 18,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 25,
    }


def test_a_reply_in_one_body_is_the_streams_last_response() -> None:
    """Both forms hold the same items; the SDK's own model accepts them, and what was asked is repeated."""
    body = {"instructions": "Be", "temperature": 0.5, "metadata": {"a": "b"}, "max_output_tokens": 99}
    events = events_of(CONTENT, "tool_use")
    _, told = written(events, **body)
    whole = msgspec.json.decode(ResponsesWriter("claude", body).whole(reply_of(events)))
    parsed = Response.model_validate(whole)
    assert (parsed.output_text, parsed.status, parsed.model) == ("Grüße", "completed", "claude")
    assert whole.items() >= {**body, "store": False, "previous_response_id": None}.items()
    streamed = told[-1]["response"]
    for response in (whole, streamed):
        for changing in ("id", "created_at", "completed_at"):
            response.pop(changing)
        for item in response["output"]:
            assert item.pop("id")[:3] in ("msg", "rs_", "fc_")
    assert whole == streamed


def test_items_go_back_as_the_blocks_that_they_were() -> None:
    """Signed and hidden thoughts return whole, so that a tool round goes on where it was."""
    events = events_of(CONTENT, "tool_use")
    output = msgspec.json.decode(ResponsesWriter("claude", {}).whole(reply_of(events)))["output"]
    _, (message,) = conversation(output)
    assert message.content == CONTENT


def test_a_cut_answer_is_incomplete() -> None:
    """The reason is told, and the item that was cut is marked, so that nobody runs half a call."""
    events = events_of([{"type": "text", "text": "Hi"}, EMPTY_CALL], "max_tokens")
    events.insert(-2, BlockDelta(1, {"type": "input_json_delta", "partial_json": '{"a": '}))
    _, told = written(events)
    response = told[-1]["response"]
    assert (told[-1]["type"], response["status"]) == ("response.incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["output"][1]["arguments"] == '{"a": '
    whole = msgspec.json.decode(ResponsesWriter("m", {}).whole(reply_of(events)))
    assert whole["output"][1]["arguments"] == '{"a": '
    _, told = written([MessageStarted("m", Usage()), MessageEnded("refusal", USED)])
    assert told[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
BLOCKS = st.one_of(
    st.builds(lambda t: {"type": "text", "text": t}, TEXTS),
    st.builds(lambda t: {"type": "thinking", "thinking": t}, TEXTS),
    st.builds(
        lambda n, v: {"type": "tool_use", "id": f"c{n}", "name": "f", "input": {"v": v}},
        st.integers(),
        TEXTS,
    ),
)


def apart(content: list[Block]) -> bool:
    """Whether no two blocks of one kind are neighbours and every call has an id of its own."""
    ids = [block["id"] for block in content if "id" in block]
    pairs = pairwise(content)
    return len(ids) == len(set(ids)) and all(
        one["type"] != two["type"] or one["type"] == "tool_use" for one, two in pairs
    )


@given(st.lists(BLOCKS, max_size=5).filter(apart), st.integers(1, 40), st.integers(1, 3_000))
@settings(deadline=None, max_examples=50)
def test_what_is_written_is_read_again(content: list[Block], cut: int, size: int) -> None:
    """Our own decoder and the SDK's helper make the same answer of the stream, however it is cut."""
    raw, told = written(events_of(content, "end_turn", cut))
    decoder, events = ResponsesDecoder(), []
    for at in range(0, len(raw), size):
        events += decoder.feed(raw[at : at + size])
    events += decoder.finish()
    assert decoder.usage_known
    reply = reply_of(events)
    assert reply.content == content
    assert (reply.usage.input, reply.usage.cache_read, reply.usage.output) == (10, 5, 7)
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=[], text_format=omit)
    for event in told:
        state.handle_event(EVENT.validate_python(event, strict=False))
    final = state._completed_response
    assert final is not None
    assert final.output_text == "".join(block.get("text", "") for block in content)
