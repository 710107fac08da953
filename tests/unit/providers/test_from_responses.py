"""Responses requests in the neutral form."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers import from_responses
from qlaud_actors.providers.bound import input_bound
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.from_openai import JSON_ONLY
from qlaud_actors.providers.from_responses import ResponsesBody
from qlaud_actors.providers.model import Message, Model, ModelRequest
from qlaud_actors.providers.responses_items import native, seal
from qlaud_actors.providers.wires import WIRES

CATALOG = Catalog.load({})
HAIKU, GPT = CATALOG.resolve("claude-haiku-4-5"), CATALOG.resolve("gpt-5.4-mini")
DEEPSEEK = next(model for model in CATALOG.models() if model.provider.slug == "deepseek")
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "one"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
SCHEMA = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}


def read(given: Any, model: Model = HAIKU, **fields: Any) -> ModelRequest:
    body = {"model": "m", "input": given, **fields}
    return from_responses.neutral(msgspec.convert(body, ResponsesBody), body, model, 4_000)


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_a_conversation_becomes_blocks() -> None:
    """Instructions and system texts apart, calls and results as blocks, one message per change of role."""
    thought = {"type": "thinking", "thinking": "Hm", "signature": "sig"}
    request = read(
        [
            {"role": "developer", "content": "kind"},
            {"role": "user", "content": "Hi"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal(thought)},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait"}]},
            {**CALL, "extra_content": {"google": 1}},
            OUTPUT,
            {**OUTPUT, "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "So?"}]},
        ],
        instructions="Be",
    )
    call = {"type": "tool_use", "id": "c1", "name": "f", "extra_content": {"google": 1}, "input": {"a": 1}}
    results = [
        {"type": "tool_result", "tool_use_id": "c1", "content": [text("one")]},
        {"type": "tool_result", "tool_use_id": "c2", "content": [text("2")]},
    ]
    assert request.system == "Be\n\nkind"
    assert request.messages == (
        Message("user", [text("Hi")]),
        Message("assistant", [thought, text("Wait"), call]),
        Message("user", [*results, text("So?")]),
    )


def test_a_plain_text_is_what_a_user_said() -> None:
    """The short form of an input."""
    assert read("Hi").messages == (Message("user", [text("Hi")]),)


def test_pictures_and_files_become_sources() -> None:
    """A data URL is taken apart, any other is passed on; in results, too."""
    parts = [
        {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "auto"},
        {"type": "input_image", "image_url": "https://x/y.png"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
    ]
    png, pdf = ({"type": "base64", "media_type": m, "data": "QUJD"} for m in ("image/png", "application/pdf"))
    blocks = [
        {"type": "image", "source": png},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
    ]
    assert read([{"role": "user", "content": parts}]).messages[0].content == blocks
    result = {"type": "tool_result", "tool_use_id": "c1", "content": blocks}
    assert read([{**OUTPUT, "output": parts}]).messages[0].content == [result]


def test_parameters_reach_claude_in_its_words() -> None:
    """Effort, choice, user and schema; a plain JSON wish becomes a sentence; metadata stays here."""
    request = read(
        "Hi",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        text={"format": SCHEMA},
        user="u1",
        metadata={"order": "7"},
    )
    body = WIRES["anthropic"].encode(request, HAIKU).body
    assert body["tools"][0]["name"] == "f"
    assert body["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    assert body["metadata"] == {"user_id": "u1"}
    closed = {"type": "object", "additionalProperties": False}  # what strict means to both vendors
    assert body["output_config"]["format"] == {"type": "json_schema", "schema": closed}
    thinking = read("Hi", reasoning={"effort": "low"}).params["thinking"]
    assert thinking == {"type": "enabled", "budget_tokens": 4_096}
    assert read("Hi", text={"format": {"type": "json_object"}}).system == JSON_ONLY


def test_parameters_reach_chat_servers_in_theirs() -> None:
    """A host without this dialect is asked over Chat Completions, the format as it was named."""
    request = read(
        "Hi",
        DEEPSEEK,
        text={"format": SCHEMA, "verbosity": "low"},
        reasoning={"effort": "high"},
        tools=[TOOL],
    )
    body = WIRES["openai"].encode(request, DEEPSEEK).body
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
    }
    assert (body["verbosity"], body["reasoning_effort"]) == ("low", "high")
    assert body["tools"][0]["function"] == {
        "name": "f",
        "description": "",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        "strict": True,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "custom", "name": "f"}]},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
        {"tools": [TOOL], "tool_choice": "maybe"},
        {"text": {"format": {"type": "grammar"}}},
        {"text": {"format": {"type": "json_schema"}}},
        {"reasoning": {"effort": "extreme"}},
        {"input": ""},
        {"input": [{"role": "system", "content": "alone"}]},
        {"input": [{"role": "function", "content": "x"}]},
        {"input": [{"role": "user", "content": 7}]},
        {"input": [{"role": "user", "content": ["x"]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        {"input": [{"type": "function_call", "name": "f"}]},
        {"input": [{"type": "function_call_output", "output": "x"}]},
        {"input": [{"type": "computer_call", "id": "x"}]},
        {"input": [{"type": ["x"]}]},
        {"input": [{"type": "reasoning", "summary": [{}]}]},
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "qlaud1:!!"}]},
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": seal({"type": "image"})}]},
    ],
)
def test_what_cannot_be_said_is_refused(fields: dict[str, Any]) -> None:
    """A translation never drops what would change the answer, and no shape breaks it."""
    given = fields.pop("input", "Hi")
    with pytest.raises(InvalidRequest):
        read(given, **fields)


def test_another_vendors_thought_goes_on_as_its_summary() -> None:
    """What cannot be unsealed here is told as far as it can be read; Claude is not given it back."""
    summary = [{"type": "summary_text", "text": "Hm"}]
    thought = {"type": "reasoning", "summary": summary, "encrypted_content": "gA"}
    request = read([{"role": "user", "content": "Hi"}, thought, CALL, OUTPUT])
    assert isinstance(request.messages[1].content, list)
    assert request.messages[1].content[0] == {"type": "thinking", "thinking": "Hm", "signature": ""}
    sent = WIRES["anthropic"].encode(request, HAIKU).body["messages"][1]["content"]
    assert [block["type"] for block in sent] == ["tool_use"]


def test_a_host_of_this_dialect_is_not_given_what_is_ours() -> None:
    """Sealed thoughts of another wire stay here, so that a conversation can move to OpenAI."""
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": seal({"type": "thinking"})}
    theirs = {"type": "reasoning", "summary": [], "encrypted_content": "gA"}
    assert native([sealed, theirs, {**CALL, "extra_content": 1}, OUTPUT]) == [theirs, CALL, OUTPUT]


def test_the_measure_counts_everything() -> None:
    """The bound of a request that passes covers texts, pictures, results, tools, unknown items and fields."""
    model = replace(GPT, image_tokens=1_000)

    def bound(*items: Any, **fields: Any) -> int:
        body = {"model": "m", "input": [{"role": "user", "content": "Hi"}, *items], **fields}
        read = msgspec.convert(body, ResponsesBody)
        return input_bound(from_responses.measured(read, body, 1), model)

    def said(*parts: Any) -> dict[str, Any]:
        return {"role": "user", "content": list(parts)}

    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 50_000}
    least = bound()
    assert bound({"role": "user", "content": "x" * 5_000}) > least + 5_000
    for holder in (said(image), {**OUTPUT, "output": [image]}, {"type": "new", "output": {"a": [image]}}):
        assert least + 1_000 < bound(holder) < least + 2_000
    screenshot = {"type": "computer_screenshot", "file_id": "f"}
    assert bound({"type": "computer_call_output", "output": screenshot}) > least + 1_000
    assert bound({"type": "brand_new", "deep": ["y" * 900]}) > least + 900
    assert bound({**CALL, "arguments": "z" * 900}) > least + 900
    assert bound(instructions="i" * 900) >= least + 900
    assert bound(tools=[{**TOOL, "description": "d" * 900}]) > least + 900
    assert bound(brand_new="z" * 500) >= least + 500
    for part in ({"file_id": "f"}, {"file_url": "https://x"}, {"file_data": "data:x;base64,QUJD"}):
        assert bound(said({"type": "input_file", **part})) == model.context_window
