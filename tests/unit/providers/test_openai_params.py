"""Parameters and tools reach OpenAI's family in its own words, or not at all."""

from collections.abc import Callable
from typing import Any

import pytest

from qlaud_actors.providers.model import Message, Model, ModelRequest, ToolSpec
from qlaud_actors.providers.openai import OpenAIWire

Ask = Callable[..., ModelRequest]
MakeModel = Callable[..., Model]


def body_of(request: ModelRequest, model: Model) -> dict[str, Any]:
    """The body as the server would get it."""
    return OpenAIWire().encode(request, model).body


@pytest.mark.parametrize(
    ("choice", "fields"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "linear/search"},
            {"tool_choice": {"type": "function", "function": {"name": "linear_search_ea4b5968f4"}}},
        ),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_tools(ask: Ask, model: MakeModel, choice: dict[str, Any], fields: dict[str, Any]) -> None:
    """Tools are functions, and each choice has its counterpart."""
    body = body_of(ask(tools=("linear/search",), params={"tool_choice": choice}), model())
    assert {name: body.get(name) for name in fields} == fields
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "linear_search_ea4b5968f4",
                "description": "Does linear/search.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


@pytest.mark.parametrize("closed", [True, False])
def test_strict_tool(model: MakeModel, closed: bool) -> None:
    """A tool that the caller declared strict is strict here, too, where its schema allows that."""
    schema = {"type": "object", "additionalProperties": not closed}
    tool = ToolSpec("a", "b", schema, {"strict": True, "cache_control": {"type": "ephemeral"}})
    request = ModelRequest("m", (Message("user", "Hi"),), 10, tools=(tool,))
    function = body_of(request, model())["tools"][0]["function"]
    assert function["strict"] is closed
    assert "cache_control" not in function


@pytest.mark.parametrize(
    ("provider", "capabilities", "params", "fields"),
    [
        ("azure", (), {}, {"max_completion_tokens": 1000}),
        ("groq", (), {}, {"max_tokens": 1000}),
        (
            "groq",
            (),
            {"temperature": 3, "top_p": 0.5, "top_k": 4, "metadata": {"user_id": "u"}},
            {"max_tokens": 1000, "temperature": 2.0, "top_p": 0.5},
        ),
        ("openai", ("reasoning",), {"temperature": 0.2}, {"max_completion_tokens": 1000}),
        ("groq", (), {"stop_sequences": ["END"]}, {"max_tokens": 1000, "stop": ["END"]}),
        ("groq", (), {"service_tier": "priority", "seed": 7}, {"max_tokens": 1000, "seed": 7}),
        ("groq", (), {"thinking": {"type": "enabled", "budget_tokens": 9000}}, {"max_tokens": 1000}),
        (
            "groq",
            ("reasoning",),
            {"thinking": {"type": "enabled", "budget_tokens": 9000}},
            {"max_tokens": 1000, "reasoning_effort": "medium"},
        ),
        (
            "groq",
            ("reasoning",),
            {"thinking": {"type": "enabled", "budget_tokens": 32000}},
            {"max_tokens": 1000, "reasoning_effort": "high"},
        ),
        (
            "groq",
            ("reasoning",),
            {"thinking": {"budget_tokens": 1024}, "output_config": {"effort": "max"}},
            {"max_tokens": 1000, "reasoning_effort": "high"},
        ),
        ("groq", ("reasoning",), {"thinking": {"type": "adaptive"}}, {"max_tokens": 1000}),
        (
            "groq",
            (),
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "max_tokens": 1000,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": False},
                },
            },
        ),
    ],
)
def test_params(
    ask: Ask,
    model: MakeModel,
    provider: str,
    capabilities: tuple[str, ...],
    params: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    """Parameters are translated, clamped, or left out where the wire has no word for them."""
    body = body_of(ask(params=params), model(provider, *capabilities))
    assert {
        name: value
        for name, value in body.items()
        if name not in ("model", "messages", "stream", "stream_options")
    } == fields
