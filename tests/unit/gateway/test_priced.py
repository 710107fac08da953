"""What would cost more than a hold covers is refused, in words; what does not, passes."""

from typing import Any

import pytest

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.ask_responses import STATEFUL, ResponsesAsk
from qlaud_actors.gateway.asks import AnthropicAsk, OpenAIAsk

MESSAGES = [{"role": "user", "content": "Hi"}]
AUDIO = [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]


def claude(**fields: Any) -> AnthropicAsk:
    return AnthropicAsk.of({"model": "m", "max_tokens": 9, "messages": MESSAGES, **fields}, None, None)


def gpt(**fields: Any) -> OpenAIAsk:
    return OpenAIAsk.of({"model": "m", "messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "priority"},
        {"speed": "fast"},
        {"inference_geo": "us"},
        {"container": {"skills": []}},
        {"mcp_servers": [{"url": "https://x"}]},
        {"fallbacks": [{"model": "dearer"}]},
        {"thread": {"id": "t"}},
        {"compaction": {"type": "x"}},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        {"tools": [{"type": "web_search_20260318", "name": "web_search"}]},
        {"tools": [{"type": "code_execution_20260521", "name": "code_execution"}]},
        {"tools": [{"type": "advisor_20260301", "name": "advisor"}]},
    ],
)
def test_dearer_messages_are_refused(fields: dict[str, Any]) -> None:
    """Each field or tool that changes the price, named in the refusal."""
    with pytest.raises(InvalidRequest, match=r"price|billed|who|sent|remembers"):
        claude(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "flex"},
        {"web_search_options": {}} | {"web_search_options": {"search_context_size": "low"}},
        {"modalities": ["text", "audio"]},
        {"modalities": ["image", "text"]},
        {"modalities": 5},
        {"data_sources": [{"type": "azure_search"}]},
        {"preset": "dearer"},
        {"deferred": True},
        {"Max_Tokens": 100_000},
        {"MODEL": "dearer"},
        {"safety_model": "llama-guard"},
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"prediction": {"type": "content", "content": "x"}},
        {"prompt_cache_retention": "24h"},
        {"search_parameters": {"mode": "on"}},
        {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
        {"messages": [{"role": "user", "content": AUDIO}]},
        {"messages": [*MESSAGES, {"role": "assistant", "audio": {"id": "a"}}]},
    ],
)
def test_dearer_completions_are_refused(fields: dict[str, Any]) -> None:
    """The same in OpenAI's words, and in those of servers that are like it."""
    with pytest.raises(InvalidRequest):
        gpt(**fields)


CACHED = {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "flex"},
        {"prompt_cache_options": {"ttl": "12h"}},
        {"reasoning": {"mode": "pro"}},
        {"context_management": [{"type": "compaction", "compact_threshold": 1_000}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "computer_use_preview"}]},
        {"input": [{"role": "user", "content": AUDIO}]},
        {"input": [{"role": "user", "content": [CACHED]}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [CACHED]}]},
        {"input": [{"type": "compaction_trigger"}]},
        {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]},
        {"input": [{"id": "msg_1"}]},
        *({name: "x"} for name in STATEFUL),
    ],
)
def test_dearer_responses_are_refused(fields: dict[str, Any]) -> None:
    """The same in the Responses dialect, and all that would read or leave something stored."""
    with pytest.raises(InvalidRequest):
        ResponsesAsk.of({"model": "m", "input": "Hi", **fields})


def test_usual_responses_pass() -> None:
    """Standard values, functions, items that nobody knows; absent and refused storage are the same."""
    fields = {
        "store": False,
        "previous_response_id": None,
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
        "reasoning": {"effort": "low", "mode": "standard"},
        "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}],
        "input": [{"type": "brand_new"}],
        "max_output_tokens": 16,
    }
    ask = ResponsesAsk.of({"model": "m", **fields, "models": ["n"]})
    assert ask.body == {"model": "m", **fields}
    assert ask.fallbacks == ["n"]


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "auto", "speed": "standard", "mcp_servers": [], "brand_new": 1},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        {"tools": [{"type": "bash_20250124", "name": "bash"}, {"name": "mine", "input_schema": {}}]},
    ],
)
def test_usual_messages_pass(fields: dict[str, Any]) -> None:
    """Standard values, empty lists, tools that the caller runs, fields that nobody knows."""
    assert claude(**fields).body.items() >= fields.items()


def test_usual_completions_pass() -> None:
    """The same for OpenAI's dialect."""
    fields = {"service_tier": "default", "modalities": ["text"], "n": 3, "tools": [{"type": "function"}]}
    assert gpt(**fields).read.n == 3


@pytest.mark.parametrize(
    "fields",
    [{"messages": "Hi"}, {"messages": []}, {"n": 0}, {"max_tokens": 0}, {"max_tokens": True}, {"model": 1}],
)
def test_malformed_bodies_name_the_field(fields: dict[str, Any]) -> None:
    """A wrong type is told with where it stands."""
    with pytest.raises(InvalidRequest, match=next(iter(fields))):
        gpt(**fields)
