"""Chat Completions requests in the neutral form."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers import from_openai
from qlaud_actors.providers.bound import input_bound
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.from_openai import JSON_ONLY, ChatBody
from qlaud_actors.providers.model import Message, Model, ModelRequest

CATALOG = Catalog.load({})
HAIKU = CATALOG.resolve("claude-haiku-4-5")
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}

CLOSED = {"type": "object", "additionalProperties": False}


def read(messages: list[Any], model: Model = HAIKU, **fields: Any) -> ModelRequest:
    body = {"model": "m", "messages": messages, **fields}
    return from_openai.neutral(msgspec.convert(body, ChatBody), body, model, 4_000)


def test_a_conversation_becomes_blocks() -> None:
    """System texts apart, calls and results as blocks, one message per change of role."""
    request = read(
        [
            {"role": "system", "content": "Be"},
            {"role": "developer", "content": [{"type": "text", "text": "kind"}]},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "reasoning_content": "Hm", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
            {"role": "user", "content": [{"type": "text", "text": "So?"}]},
        ]
    )
    results = [
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]},
        {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]},
    ]
    assert request.system == "Be\n\nkind"
    assert request.messages == (
        Message("user", [{"type": "text", "text": "Hi"}]),
        Message(
            "assistant",
            [
                {"type": "thinking", "thinking": "Hm", "signature": ""},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
            ],
        ),
        Message("user", [*results, {"type": "text", "text": "So?"}]),
    )


def test_pictures_and_files_become_sources() -> None:
    """A data URL is taken apart, any other is passed on."""
    data = "data:application/pdf;base64,QUJD"
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "file", "file": {"file_data": data, "filename": "a.pdf"}},
    ]
    (message,) = read([{"role": "user", "content": parts}]).messages
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}
    assert message.content == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": pdf, "title": "a.pdf"},
    ]


def test_cache_marks_stay() -> None:
    """A mark stays on its part; one inside a tool's result moves to the result, where Claude wants it."""
    mark = {"cache_control": {"type": "ephemeral"}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    marked = {"type": "text", "text": "Hi", **mark}
    request = read(
        [
            {"role": "system", "content": [marked]},
            {"role": "user", "content": [marked]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": [marked]},
        ],
        tools=[{"type": "function", "function": {"name": "f"}, **mark}],
    )
    assert request.system == [marked]
    assert request.messages[0].content == [marked]
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "Hi"}]}
    assert request.messages[2].content == [{**result, **mark}]
    assert request.tools[0].extra == mark


def test_parameters_take_anthropics_names() -> None:
    """Stops, user, choice and schema; a plain JSON wish becomes a sentence."""
    tool = {"type": "function", "function": {"name": "f", "strict": True}}
    user = [{"role": "user", "content": "Hi"}]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    request = read(
        user,
        stop="END",
        user="u1",
        temperature=0.5,
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
        response_format=schema,
    )
    assert (
        request.params.items()
        >= {
            "stop_sequences": ["END"],
            "metadata": {"user_id": "u1"},
            "temperature": 0.5,
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "output_config": {"format": {"type": "json_schema", "schema": CLOSED}},
        }.items()
    )
    assert request.tools[0].input_schema == {**CLOSED, "properties": {}}
    assert request.tools[0].extra == {"strict": True}
    assert read(user, response_format={"type": "json_object"}).system == JSON_ONLY


@pytest.mark.parametrize(
    ("slug", "thinking", "sampled"),
    [
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 4_096}}, True),
        (
            "claude-sonnet-4-6",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            True,
        ),
        (
            "claude-opus-5",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            False,
        ),
    ],
)
def test_effort_is_said_as_each_generation_takes_it(
    slug: str, thinking: dict[str, Any], sampled: bool
) -> None:
    """A budget up to Claude 4.5, adaptive since; sampling only where it is accepted."""
    user, model = [{"role": "user", "content": "Hi"}], CATALOG.resolve(slug)
    params = read(user, model, reasoning_effort="low", temperature=0.2).params
    assert params.items() >= thinking.items()
    assert "temperature" not in params
    assert ("temperature" in read(user, model, temperature=0.2).params) is sampled


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"functions": [{"name": "f"}]},
        {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
        {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "allowed_tools"},
        },
        {"response_format": {"type": "grammar"}},
        {"reasoning_effort": "extreme"},
        {"messages": [{"role": "function", "name": "f", "content": "x"}]},
        {"messages": [{"role": "tool", "content": "no id"}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        {"messages": [{"role": "user", "content": 7}]},
    ],
)
def test_what_cannot_be_said_is_refused(fields: dict[str, Any]) -> None:
    """A translation never drops what would change the answer, and no shape breaks it."""
    messages = fields.pop("messages", [{"role": "user", "content": "Hi"}])
    with pytest.raises(InvalidRequest):
        read(messages, **fields)


def test_the_measure_counts_everything() -> None:
    """The bound of a request that passes through covers text, pictures, tools and unknown fields alike."""
    model = replace(CATALOG.resolve("gpt-5.4-mini"), image_tokens=1_000)

    def bound(content: Any, **fields: Any) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
        return input_bound(from_openai.measured(msgspec.convert(body, ChatBody), body, 1), model)

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000}}
    least = bound("Hi")
    assert bound("Hi" + "x" * 5_000) == least + 5_000
    assert least + 1_000 <= bound([{"type": "text", "text": "Hi"}, image]) < least + 2_000
    assert bound("Hi", tools=[{"type": "function", "function": {"description": "y" * 999}}]) > least + 999
    assert bound("Hi", brand_new="z" * 500) >= least + 500
    assert bound([{"type": "file", "file": {"file_id": "f"}}]) == model.context_window
    assert bound([{"type": "refusal", "refusal": "No."}]) < bound([{"type": "text", "text": "Hi"}]) + 200
    assert bound("Hi") + 12 < bound([{"type": "text", "text": "Hi"}])  # fields that may be long are counted
    for role in ([], {"r": "x" * 500}, 7, None, "r" * 500):
        messages = [{"role": role, "content": "Hi"}]
        assert bound("Hi", messages=messages) >= bound("Hi") + len(str(role))  # whatever it is, it is counted
    for unseen in (
        {"type": "document_url", "document_url": "https://a.test/a.pdf"},
        {"type": "video", "video": ["https://a.test/1.png", "https://a.test/2.png"]},
        {"type": "image_url", "image_url": {"url": "data:application/pdf;base64,JVBERi0"}},
    ):
        assert bound([unseen]) == model.context_window
