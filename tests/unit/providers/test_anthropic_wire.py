"""Anthropic's wire leaves a request as it is, but for what the API would refuse."""

from collections.abc import Callable
from typing import Any

import pytest

from qlaud_actors.providers.anthropic import AnthropicWire
from qlaud_actors.providers.model import Message, Model, ModelRequest, ToolSpec
from qlaud_actors.providers.wire import WireRequest

Ask = Callable[..., ModelRequest]
MakeModel = Callable[..., Model]


def encode(request: ModelRequest, model: MakeModel) -> WireRequest:
    """The request as Anthropic would get it."""
    return AnthropicWire().encode(request, model("anthropic"))


def test_whole_request(ask: Ask, model: MakeModel) -> None:
    """Path, version, model, limits, tools and params are where the API wants them."""
    request = ask(
        tools=("linear/search",),
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        params={
            "temperature": 1.7,
            "top_k": 5,
            "tool_choice": {"type": "tool", "name": "linear/search"},
            "output_config": {"effort": "high"},
            "betas": ["a-2026", "b-2026"],
            "seed": 7,
            "speed": "fast",
            "inference_geo": "us",
        },
    )
    encoded = encode(request, model)
    assert encoded.path == "/v1/messages"
    assert encoded.headers == {"anthropic-version": "2023-06-01", "anthropic-beta": "a-2026,b-2026"}
    assert encoded.body == {
        "model": "upstream-1",
        "max_tokens": 1000,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [
            {
                "name": "linear_search_ea4b5968f4",
                "description": "Does linear/search.",
                "input_schema": {"type": "object"},
            }
        ],
        "temperature": 1.0,
        "top_k": 5,
        "tool_choice": {"type": "tool", "name": "linear_search_ea4b5968f4"},
        "output_config": {"effort": "high"},
    }


def test_params_cannot_replace_the_frame(ask: Ask, model: MakeModel) -> None:
    """No parameter turns streaming off, or changes the model or the limit that money was held for."""
    body = encode(ask(params={"stream": False, "model": "x", "max_tokens": 10**9}), model).body
    assert (body["stream"], body["model"], body["max_tokens"]) == (True, "upstream-1", 1000)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "Hm", "signature": "abc", "novel": 1},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "x", "citations": [{"type": "char_location"}]},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "invented_2027", "x": [1, {"y": None}]},
    ],
)
def test_blocks_pass_untouched(ask: Ask, model: MakeModel, block: dict[str, Any]) -> None:
    """Blocks keep every field, known or not."""
    body = encode(ask(Message("user", "Hi"), Message("assistant", [block])), model).body
    assert body["messages"][1]["content"] == [block]


def test_call_names(ask: Ask, model: MakeModel) -> None:
    """Names of past calls are mapped also when the tool is gone."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "linear/search", "input": {"q": 1}}
    body = encode(ask(Message("user", "Hi"), Message("assistant", [call])), model).body
    assert body["messages"][1]["content"] == [{**call, "name": "linear_search_ea4b5968f4"}]


def test_history_of_other_vendors(ask: Ask, model: MakeModel) -> None:
    """Unsigned thinking and empty text go, strange call ids are made legal alike in call and result."""
    call = {
        "type": "tool_use",
        "id": "functions.get_time:0",
        "name": "get_time",
        "input": {},
        "extra_content": {"google": {}},
    }
    request = ask(
        Message("user", "Hi"),
        Message("assistant", [{"type": "thinking", "thinking": "Hm", "signature": ""}]),
        Message("assistant", [{"type": "text", "text": ""}, call]),
        Message("user", [{"type": "tool_result", "tool_use_id": "functions.get_time:0", "content": "1"}]),
    )
    _, answer, result = encode(request, model).body["messages"]
    (sent,) = answer["content"]
    assert set(sent) == {"type", "id", "name", "input"}
    assert sent["id"] == result["content"][0]["tool_use_id"]
    assert "." not in sent["id"]


@pytest.mark.parametrize(
    ("max_tokens", "budget"), [(8000, 5000), (5000, 4999), (1025, 1024), (1024, None), (64, None)]
)
def test_thinking_fits(ask: Ask, model: MakeModel, max_tokens: int, budget: int | None) -> None:
    """A budget that the clamped limit leaves no room for shrinks, and goes below its minimum."""
    thinking = {"type": "enabled", "budget_tokens": 5000}
    body = encode(ask(max_tokens=max_tokens, params={"thinking": thinking}), model).body
    assert body.get("thinking", {}).get("budget_tokens") == budget
    assert thinking["budget_tokens"] == 5000


def test_thinking_waits_for_a_round_of_its_own(ask: Ask, model: MakeModel) -> None:
    """While calls of another vendor's model are answered, thinking is off; after that it is on again."""
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}
    history = [Message("user", "Hi"), Message("assistant", [call]), Message("user", [result])]
    within = ask(*history, max_tokens=8000, params=thinking)
    after = ask(
        *history, Message("assistant", "One."), Message("user", "?"), max_tokens=8000, params=thinking
    )
    assert "thinking" not in encode(within, model).body
    assert encode(after, model).body["thinking"] == thinking["thinking"]


def test_other_thinking_passes(ask: Ask, model: MakeModel) -> None:
    """Thinking without a budget is left as it is."""
    adaptive = {"type": "adaptive", "display": "omitted"}
    assert encode(ask(params={"thinking": adaptive}), model).body["thinking"] == adaptive


def test_choice_without_tools(ask: Ask, model: MakeModel) -> None:
    """A tool choice without tools is left out."""
    assert "tool_choice" not in encode(ask(params={"tool_choice": {"type": "auto"}}), model).body


def test_tool_extras(model: MakeModel) -> None:
    """A caller's own tool keeps its cache mark."""
    tool = ToolSpec("a", "b", {"type": "object"}, {"cache_control": {"type": "ephemeral"}})
    request = ModelRequest("m", (Message("user", "Hi"),), 10, tools=(tool,))
    assert encode(request, model).body["tools"][0]["cache_control"] == {"type": "ephemeral"}
