"""What servers of either family do in their own way is read as they mean it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.providers.anthropic import read_usage as read_anthropic
from qlaud_actors.providers.model import (
    BlockDelta,
    BlockStarted,
    Message,
    MessageEnded,
    ModelEvent,
    ModelRequest,
)
from qlaud_actors.providers.names import ToolNames
from qlaud_actors.providers.openai import OpenAIWire
from qlaud_actors.providers.openai_stream import OpenAIDecoder
from qlaud_actors.providers.openai_stream import read_usage as read_openai
from qlaud_actors.usage import Usage


def decoded(choice: str) -> list[ModelEvent]:
    """The events of an answer that is one chunk with this choice."""
    decoder = OpenAIDecoder(ToolNames.of([]))
    stream = f'data: {{"id":"x","choices":[{choice}]}}\n\ndata: [DONE]\n\n'
    return decoder.feed(stream.encode()) + decoder.finish()


@pytest.mark.parametrize(
    ("choice", "stop_reason"),
    [
        ('{"delta":{"content":"a"},"finish_reason":"tool_calls"}', "end_turn"),
        ('{"delta":{"content":"a"},"finish_reason":"content_filter"}', "refusal"),
        ('{"delta":{"content":"a"},"finish_reason":"eos"}', "end_turn"),
        ('{"delta":{"tool_calls":[{"id":"c","function":{"name":"f"}}]},"finish_reason":"stop"}', "tool_use"),
        (
            '{"delta":{"tool_calls":[{"id":"c","function":{"name":"f"}}]},"finish_reason":"length"}',
            "max_tokens",
        ),
    ],
)
def test_stop_reasons(choice: str, stop_reason: str) -> None:
    """What the model did decides where server and deed disagree."""
    end = decoded(choice)[-1]
    assert isinstance(end, MessageEnded)
    assert end.stop_reason == stop_reason


def test_ids_are_unique_in_a_thread() -> None:
    """A server that counts its calls anew in each answer does not give two calls of a thread one id."""
    history = Message("assistant", [{"type": "tool_use", "id": "call_0", "name": "f", "input": {}}])
    request = ModelRequest("m", (Message("user", "Hi"), history), 10)
    decoder = OpenAIWire().decoder(request, None)  # type: ignore[arg-type]  # any model
    call = '{"index":0,"id":"call_0","function":{"name":"f","arguments":"{}"}}'
    stream = f'data: {{"id":"x","choices":[{{"delta":{{"tool_calls":[{call}]}}}}]}}\n\n'
    (started,) = (e for e in decoder.feed(stream.encode()) if isinstance(e, BlockStarted))
    assert started.block["id"].startswith("toolu_")


def test_broken_inside() -> None:
    """A server that names its own failure as the reason has not answered."""
    with pytest.raises(ProviderUnavailable):
        decoded('{"delta":{"content":"a"},"finish_reason":"error"}')


def test_content_parts() -> None:
    """Content that comes as a list of parts is told apart by kind."""
    parts = '[{"type":"thinking","thinking":[{"type":"text","text":"Hm"}]},{"type":"text","text":"a"}]'
    events = decoded(f'{{"delta":{{"content":{parts}}},"finish_reason":"stop"}}')
    deltas = [event.delta for event in events if isinstance(event, BlockDelta)]
    assert deltas == [{"type": "thinking_delta", "thinking": "Hm"}, {"type": "text_delta", "text": "a"}]


def test_text_delta_bytes() -> None:
    """A delta's first key is its type and its last one the text: clients match these bytes."""
    (delta,) = (e.delta for e in decoded('{"delta":{"content":"a"}}') if isinstance(e, BlockDelta))
    assert list(delta) == ["type", "text"]


@pytest.mark.parametrize(
    ("figures", "usage"),
    [
        ({}, Usage()),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}, Usage(cache_read=10)),
        ({"prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": None}, Usage(6, 0, 4)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 40,
                "completion_tokens_details": {"reasoning_tokens": 25},
            },
            Usage(10, 30, reasoning=25),
        ),
    ],
)
def test_openai_usage(figures: dict[str, object], usage: Usage) -> None:
    """Every token is in exactly one bucket, whatever dialect of usage a server speaks."""
    assert read_openai(figures) == usage


@given(*(st.none() | st.integers(0, 10_000) for _ in range(3)))
@settings(deadline=None)
def test_anthropic_cache_sum(total: int | None, five: int | None, hour: int | None) -> None:
    """However the split disagrees with its sum, no bucket is negative and the sum is what is billed."""
    split = {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour}
    usage = read_anthropic({"cache_creation_input_tokens": total, "cache_creation": split})
    expected = total if total is not None else (five or 0) + (hour or 0)
    assert usage.cache_write_5m + usage.cache_write_1h == expected
    assert min(usage.cache_write_5m, usage.cache_write_1h) >= 0
