"""Recorded streams decode to the events that happened, however the network cut them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaud_actors.errors import ProviderError, ProviderOverloaded, ProviderUnavailable
from qlaud_actors.providers.anthropic import AnthropicDecoder
from qlaud_actors.providers.model import (
    BlockDelta,
    BlockStarted,
    BlockStopped,
    MessageEnded,
    MessageStarted,
    ModelEvent,
    ModelReply,
)
from qlaud_actors.providers.names import ToolNames
from qlaud_actors.providers.openai_stream import OpenAIDecoder
from qlaud_actors.providers.reply import ReplyBuilder
from qlaud_actors.providers.responses_stream import ResponsesDecoder
from qlaud_actors.providers.wire import StreamDecoder
from qlaud_actors.usage import Usage

RECORDED = Path(__file__).parents[2] / "wire"
STREAMS = sorted(path.name for path in RECORDED.glob("*.sse"))
BROKEN = {name for name in STREAMS if "cut" in name or "error" in name}
Recorded = Callable[[str], bytes]


def decoder_for(name: str) -> StreamDecoder:
    """A decoder of the wire that the stream's name begins with."""
    if name.startswith("responses"):
        return ResponsesDecoder()
    names = ToolNames.of(["linear/search", "get_time"])
    return AnthropicDecoder(names) if name.startswith("anthropic") else OpenAIDecoder(names)


def decode(decoder: StreamDecoder, pieces: list[bytes]) -> tuple[list[ModelEvent], ProviderError | None]:
    """All events, and the error that ended them."""
    events: list[ModelEvent] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.finish()
    except ProviderError as error:
        return events, error
    return events, None


def reply_of(name: str) -> ModelReply:
    """What a recorded stream answers."""
    events, error = decode(decoder_for(name), [(RECORDED / name).read_bytes()])
    assert error is None
    builder = ReplyBuilder()
    for event in events:
        builder.add(event)
    return builder.build()


@given(st.sampled_from(STREAMS), st.data())
@settings(deadline=None)
def test_any_chunking(name: str, data: st.DataObject) -> None:
    """The same events, the same end and the same usage come of any pieces."""
    stream = (RECORDED / name).read_bytes()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    edges = [0, *sorted(cuts), len(stream)]
    whole, pieces = decoder_for(name), decoder_for(name)
    events, error = decode(whole, [stream])
    again, broken = decode(pieces, [stream[a:b] for a, b in pairwise(edges)])
    assert shape(again) == shape(events)
    assert str(broken) == str(error)
    assert (pieces.usage, pieces.usage_known) == (whole.usage, whole.usage_known)


def shape(events: list[ModelEvent]) -> list[object]:
    """Events without the ids that are made up where a server gives none."""
    return [
        (event.index, {k: v for k, v in event.block.items() if k != "id"})
        if isinstance(event, BlockStarted)
        else event
        for event in events
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_brackets(name: str) -> None:
    """Blocks never overlap, count from 0 without a gap, and lie between the message's start and end."""
    events, _ = decode(decoder_for(name), [(RECORDED / name).read_bytes()])
    assert isinstance(events[0], MessageStarted)
    opened, count = None, 0
    for event in events[1:]:
        match event:
            case BlockStarted(index):
                assert (opened, index) == (None, count)
                opened, count = index, count + 1
            case BlockDelta(index):
                assert index == opened
            case BlockStopped(index):
                assert index == opened
                opened = None
    ends = [event for event in events if isinstance(event, MessageEnded)]
    assert len(ends) == (0 if name in BROKEN else 1)
    assert name in BROKEN or (events[-1] is ends[0] and opened is None)


@pytest.mark.parametrize(
    ("name", "content", "stop_reason", "usage"),
    [
        (
            "anthropic_text.sse",
            [{"type": "text", "text": 'Grüße aus Zürich 🏔️ – "hi"'}],
            "stop_sequence",
            Usage(input=25, output=15),
        ),
        (
            "anthropic_cache.sse",
            [{"type": "text", "text": "Cached."}],
            "end_turn",
            Usage(60, 503, cache_read=100_000, cache_write_5m=556, cache_write_1h=2544),
        ),
        (
            "anthropic_cache_unsplit.sse",
            [{"type": "text", "text": "ok"}],
            "end_turn",
            Usage(9, 4, cache_write_5m=700),
        ),
        (
            "openai_text.sse",
            [{"type": "text", "text": "Grüße aus Zürich 🏔️"}],
            "end_turn",
            Usage(19, 10),
        ),
        (
            "openai_cached.sse",
            [{"type": "text", "text": "Cached."}],
            "max_tokens",
            Usage(38, 300, cache_read=1920, cache_write_5m=2048, reasoning=64),
        ),
        (
            "openai_reasoning.sse",
            [
                {"type": "thinking", "thinking": "The user greets.", "signature": ""},
                {"type": "text", "text": "Hello!"},
            ],
            "end_turn",
            Usage(72, 50, cache_read=128, reasoning=40),
        ),
        (
            "openai_refusal.sse",
            [{"type": "text", "text": "I can't help with that."}],
            "refusal",
            Usage(11, 9),
        ),
        ("anthropic_no_usage.sse", [{"type": "text", "text": "Local answer"}], "end_turn", Usage()),
        ("openai_no_usage.sse", [{"type": "text", "text": "Local answer"}], "end_turn", Usage()),
        (
            "responses_tools.sse",
            [
                {"type": "thinking", "thinking": "Zürich first."},
                {"type": "tool_use", "id": "call_1", "name": "get_time", "input": {"city": "Zürich"}},
                {"type": "tool_use", "id": "call_2", "name": "get_time", "input": {}},
            ],
            "tool_use",
            Usage(512, 90, cache_read=1024, cache_write_5m=512, reasoning=64),
        ),
        (
            "responses_incomplete.sse",
            [{"type": "text", "text": "Once upon a time"}],
            "max_tokens",
            Usage(20, 16, reasoning=12),
        ),
        ("responses_refusal.sse", [{"type": "text", "text": "I cannot."}], "refusal", Usage(9, 3)),
    ],
)
def test_answers(name: str, content: list[object], stop_reason: str, usage: Usage) -> None:
    """Text, thinking, reason and usage are as the provider meant them, in disjoint buckets."""
    reply = reply_of(name)
    assert (reply.content, reply.stop_reason, reply.usage) == (content, stop_reason, usage)


def test_anthropic_thinking_and_tools() -> None:
    """Signed thinking, redacted thinking and parallel calls arrive whole, names mapped back."""
    reply = reply_of("anthropic_thinking_tools.sse")
    assert [block["type"] for block in reply.content] == [
        "thinking",
        "redacted_thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert reply.content[0]["signature"].startswith("EqQBCgIY")
    calls = [(call["name"], call["input"]) for call in reply.tool_uses]
    assert calls == [("linear/search", {"query": "bugs é", "limit": 3}), ("get_time", {})]
    assert reply.usage == Usage(input=472, output=89, reasoning=31)


def test_anthropic_server_tool() -> None:
    """Blocks and events of kinds that this version does not know pass or are ignored."""
    reply = reply_of("anthropic_server_tool.sse")
    assert reply.content[0]["input"] == {"query": "weather NYC"}
    assert reply.content[1]["type"] == "web_search_tool_result"
    assert reply.content[2]["citations"][0]["cited_text"] == "72°F"
    assert reply.usage == Usage(10_682, 510)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("openai_parallel_tools.sse", [("linear/search", {"query": "bugs"}), ("get_time", {})]),
        ("openai_interleaved_tools.sse", [("get_time", {"zone": "CET"}), ("get_time", {"zone": "UTC"})]),
        ("openai_same_index_tools.sse", [("get_time", {"zone": "UTC"}), ("get_time", {"zone": "CET"})]),
        ("openai_no_call_id.sse", [("get_time", {"zone": "UTC"})]),
    ],
)
def test_openai_calls(name: str, calls: list[object]) -> None:
    """Calls are put together by index or id, have distinct ids, and end the answer as tool use."""
    reply = reply_of(name)
    assert [(call["name"], call["input"]) for call in reply.tool_uses] == calls
    assert len({call["id"] for call in reply.tool_uses}) == len(calls)
    assert all(call["id"] for call in reply.tool_uses)
    assert reply.stop_reason == "tool_use"


def test_second_call_flows(recorded: Callable[[str], bytes]) -> None:
    """When calls come one after the other, the second one flows before the answer ends."""
    stream = recorded("openai_parallel_tools.sse")
    events = decoder_for("openai").feed(stream[: stream.index(b'"finish_reason":"tool_calls"')])
    started = [event.block["name"] for event in events if isinstance(event, BlockStarted) if event.index]
    assert started == ["linear/search", "get_time"]


def test_google_extras() -> None:
    """A thought signature stays with its call; hidden reasoning that only the total shows is billed."""
    reply = reply_of("openai_same_index_tools.sse")
    assert reply.content[0]["extra_content"] == {"google": {"thought_signature": "CvcBAR/MhbY="}}
    assert reply.usage == Usage(input=70, output=150)


@pytest.mark.parametrize(
    ("name", "kind", "usage"),
    [
        ("anthropic_error_midstream.sse", ProviderOverloaded, Usage(25, 1)),
        ("anthropic_cut.sse", ProviderUnavailable, Usage(2000, 1)),
        ("openai_error_midstream.sse", ProviderOverloaded, Usage()),
        ("openai_cut.sse", ProviderUnavailable, Usage()),
        ("responses_error_midstream.sse", ProviderOverloaded, Usage()),
        ("responses_cut.sse", ProviderUnavailable, Usage()),
    ],
)
def test_broken_streams(recorded: Recorded, name: str, kind: type[ProviderError], usage: Usage) -> None:
    """A broken answer is an error after the events before it, and its usage so far can be read."""
    decoder = decoder_for(name)
    events, error = decode(decoder, [recorded(name)])
    assert type(error) is kind
    assert any(isinstance(event, BlockDelta) for event in events)
    assert (decoder.usage, decoder.usage_known) == (usage, False)
    with pytest.raises(kind):
        decoder.finish()


def test_a_failed_response_tells_its_usage(recorded: Recorded) -> None:
    """A response that ends as failed is an error, and what it used is final all the same."""
    decoder = decoder_for("responses")
    _, error = decode(decoder, [recorded("responses_error_failed.sse")])
    assert isinstance(error, ProviderUnavailable)
    assert (decoder.usage, decoder.usage_known) == (Usage(9, 3), True)


@pytest.mark.parametrize("name", sorted(set(STREAMS) - BROKEN))
def test_usage_known(recorded: Recorded, name: str) -> None:
    """After a whole answer its usage is final, unless the server never gave any."""
    decoder = decoder_for(name)
    decode(decoder, [recorded(name)])
    assert decoder.usage_known is ("no_usage" not in name)


def test_end_without_the_last_frame(recorded: Recorded) -> None:
    """An answer whose reason and usage are known is whole, even if the very last frame is lost."""
    for name, last in (("anthropic_text.sse", b"event: message_stop"), ("openai_text.sse", b"data: [DONE]")):
        stream = recorded(name)
        events, error = decode(decoder_for(name), [stream[: stream.index(last)]])
        assert error is None
        assert isinstance(events[-1], MessageEnded)


@pytest.mark.parametrize("stream", [b"", b"data: [DONE]\n\n", b"<html>oops</html>\n\n", b": ping\n\n"])
@pytest.mark.parametrize("name", ["anthropic", "openai", "responses"])
def test_no_answer(name: str, stream: bytes) -> None:
    """A stream without an answer is a fault of the provider."""
    _, error = decode(decoder_for(name), [stream])
    assert type(error) is ProviderUnavailable


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"3",
        b'{"type":"content_block_start"}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use"}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}',
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_start","message":3}',
        b'{"type":"response.completed","response":3}',
        b'{"type":"response.completed","response":{"usage":{"input_tokens":"x"}}}',
        b'{"type":"response.output_item.added","item":[]}',
        b'{"type":"response.output_text.delta","output_index":[],"delta":"x"}',
        b'{"choices":3}',
        b'{"choices":[3]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":[]}]}}]}',
    ],
)
def test_malformed(data: bytes) -> None:
    """Nothing that a provider sends can raise anything but a provider's error."""
    for name in ("anthropic", "openai", "responses"):
        _, error = decode(decoder_for(name), [b"data: " + data + b"\n\n"])
        assert type(error) is ProviderUnavailable


@pytest.mark.parametrize("name", ["anthropic_text.sse", "openai_text.sse", "responses_refusal.sse"])
def test_after_the_end(recorded: Recorded, name: str) -> None:
    """What a server still says after the end changes nothing."""
    events, error = decode(decoder_for(name), [recorded(name), b"data: [DONE]\n\ndata: {\n\n"])
    assert error is None
    assert isinstance(events[-1], MessageEnded)
