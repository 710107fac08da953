"""What the vendors refuse, in the words clients look for."""

from typing import Any

import pytest

from qlaud_actors.scripted import anthropic_checks, openai_checks, responses_checks
from qlaud_actors.scripted.anthropic_pairs import sign
from qlaud_actors.scripted.refusal import Refusal

HELLO = {"role": "user", "content": "hello"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
TOOL = {"name": "get", "input_schema": {"type": "object"}}


def anthropic(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A request on the Anthropic wire."""
    return {"model": "m", "max_tokens": 2_000, "messages": list(messages or (HELLO,)), **fields}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    """A message of the assistant."""
    return {"role": "assistant", "content": list(blocks)}


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": sign("hm")}
BUDGET = {"type": "enabled", "budget_tokens": 1_024}
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}


def picture(**source: Any) -> dict[str, Any]:
    """A message that shows one."""
    right = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    return user({"type": "image", "source": {**right, **source}})


def formatted(schema: Any) -> dict[str, Any]:
    """The field that asks for output of a schema."""
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


@pytest.mark.parametrize(
    "body",
    [
        anthropic(),
        anthropic(HELLO, assistant(USE), user(RESULT)),
        anthropic(HELLO, assistant(THOUGHT, USE), user(RESULT), thinking=BUDGET, tools=[TOOL]),
        anthropic(HELLO, HELLO, {"role": "assistant", "content": "Well"}),
        anthropic(
            tools=[TOOL, {"type": "web_search_20250305", "name": "web_search"}], tool_choice={"type": "any"}
        ),
        anthropic(
            system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}], temperature=1
        ),
        anthropic(picture(), **formatted(CLOSED)),
        anthropic(user({"type": "image", "source": {"type": "url", "url": "https://x.example/1.png"}})),
    ],
)
def test_anthropic_lets_good_requests_pass(body: dict[str, Any]) -> None:
    """Histories with calls, thoughts, server tools and prefills are fine."""
    anthropic_checks.check(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "valid dictionary"),
        ({"model": "m", "messages": [HELLO]}, "max_tokens: Field required"),
        (anthropic(max_tokens=0), "greater than or equal to 1"),
        (anthropic(qlaud_runtime={}), "qlaud_runtime: Extra inputs are not permitted"),
        (anthropic(metadata={"plan": "x"}), "metadata.plan: Extra inputs"),
        (anthropic() | {"messages": []}, "at least one message is required"),
        (anthropic(assistant(USE)), 'first message must use the "user" role'),
        (anthropic({"role": "tool", "content": "x"}), "messages.0.role: Input should be"),
        (anthropic({**HELLO, "id": "x"}), "messages.0.id: Extra inputs"),
        (anthropic({"role": "user", "content": ""}), "must have non-empty content"),
        (anthropic(user({"type": "text", "text": ""})), "text content blocks must be non-empty"),
        (anthropic(user({"type": "text", "text": " \n"})), "must contain non-whitespace text"),
        (anthropic(HELLO, {"role": "assistant", "content": "a "}), "cannot end with trailing whitespace"),
        (anthropic(HELLO, assistant(USE)), "messages.1: `tool_use` ids were found without `tool_result`"),
        (anthropic(HELLO, assistant(USE), HELLO), "without `tool_result` blocks immediately after: toolu_1"),
        (
            anthropic(HELLO, assistant(USE), user({"type": "text", "text": "so"}, RESULT)),
            "without `tool_result` blocks immediately after",
        ),
        (anthropic(user(RESULT)), "messages.0.content.0: unexpected `tool_use_id` found in `tool_result`"),
        (anthropic(HELLO, assistant(USE), user(RESULT, RESULT)), "each tool_use must have a single result"),
        (anthropic(HELLO, assistant(USE, USE), user(RESULT)), "`tool_use` ids must be unique"),
        (
            anthropic(HELLO, assistant({**USE, "name": "a/b"}), user(RESULT)),
            "tool_use.name: String should match",
        ),
        (
            anthropic(HELLO, assistant({**USE, "input": "{}"}), user(RESULT)),
            "input: Input should be a valid dict",
        ),
        (
            anthropic(HELLO, assistant({**THOUGHT, "thinking": "ah"}), HELLO),
            "Invalid `signature` in `thinking`",
        ),
        (anthropic(HELLO, assistant(USE), user(RESULT), thinking=BUDGET), "Expected `thinking`"),
        (
            anthropic(tools=[{**TOOL, "name": "linear/list"}]),
            "tools.0.custom.name: String should match pattern",
        ),
        (anthropic(tools=[{**TOOL, "kind": "webhook"}]), "tools.0.custom.kind: Extra inputs"),
        (anthropic(tools=[TOOL, TOOL]), "Tool names must be unique"),
        (anthropic(tools=[{"name": "get"}]), "input_schema: Field required"),
        (anthropic(tools=[{"name": "get", "input_schema": {}}]), "input_schema.type"),
        (anthropic(tool_choice={"type": "any"}), "only be specified while providing tools"),
        (anthropic(tools=[TOOL], tool_choice={"type": "tool", "name": "x"}), "Tool 'x' not found"),
        (
            anthropic(thinking={"type": "enabled", "budget_tokens": 2_000}),
            "must be greater than `thinking.budget",
        ),
        (anthropic(thinking={"type": "enabled", "budget_tokens": 100}), "greater than or equal to 1024"),
        (anthropic(thinking=BUDGET, temperature=0.5), "may only be set to 1"),
        (anthropic(temperature=2), "temperature: range"),
        (
            anthropic(
                tools=[{**TOOL, "name": f"t{n}", "cache_control": {"type": "ephemeral"}} for n in range(5)]
            ),
            "Found 5",
        ),
        (anthropic(picture(type="inline")), "messages.0.content.0.image.source: Input tag"),
        (anthropic(picture(media_type="image/bmp")), "image.source.base64.media_type: Input should be"),
        (anthropic(picture(data="%")), "image.source.base64.data: Input should be a valid base64"),
        (anthropic(picture(type="url", url="http://x.example/1")), "Only HTTPS URLs are supported"),
        (anthropic(output_config=3), "output_config: Input should be a valid dictionary"),
        (anthropic(output_config={"format": {"type": "json_object"}}), "Input tag should be 'json_schema'"),
        (anthropic(**formatted(None)), "output_config.format.schema: Field required"),
        (anthropic(**formatted({"type": "object"})), "'additionalProperties' must be explicitly set"),
        (anthropic(**formatted({"type": "integer", "minimum": 1})), "property 'minimum' is not supported"),
        (anthropic(**formatted({"type": "array", "minItems": 2})), "other than 0 or 1 are not supported"),
    ],
)
def test_anthropic_refuses(body: object, words: str) -> None:
    """Each fault is a 400 with the vendor's words."""
    with pytest.raises(Refusal) as caught:
        anthropic_checks.check(body)
    assert caught.value.status == 400
    assert words in caught.value.message


CALL = {"id": "call_1", "type": "function", "function": {"name": "get", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "call_1", "content": "ok"}
FUNCTION = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}


def openai(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A request on the OpenAI wire."""
    return {"model": "m", "messages": list(messages or (HELLO,)), **fields}


def named(name: str) -> dict[str, Any]:
    """A tool of this name."""
    return {"type": "function", "function": {"name": name}}


def shown(url: Any, **fields: Any) -> dict[str, Any]:
    """A message with a picture."""
    return user({"type": "image_url", "image_url": {"url": url}, **fields})


def strictly(schema: Any) -> dict[str, Any]:
    """The format of a schema that is to be kept strictly."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


@pytest.mark.parametrize(
    "body",
    [
        openai(),
        openai({"role": "system", "content": "x"}, HELLO, ASKED, ANSWERED, HELLO),
        openai(
            tools=[FUNCTION], tool_choice=named("get"), stream=True, stream_options={"include_usage": True}
        ),
        openai(max_completion_tokens=5, n=2, stop=["x"]),
        openai(shown("data:image/png;base64,QUJD"), response_format=strictly(CLOSED)),
        openai(shown("https://x.example/1.png"), response_format={"type": "json_object"}),
    ],
)
def test_openai_lets_good_requests_pass(body: dict[str, Any]) -> None:
    """Histories with calls, forced tools and limits are fine."""
    openai_checks.check(body)


@pytest.mark.parametrize(
    ("body", "words", "param"),
    [
        ({"model": "m"}, "Missing required parameter: 'messages'.", "messages"),
        (openai(qlaud_runtime={}), "Unknown parameter: 'qlaud_runtime'.", "qlaud_runtime"),
        ({"model": "m", "messages": []}, "empty array", "messages"),
        (openai({"role": "bot", "content": "x"}), "Supported values are", "messages[0].role"),
        (openai({"role": "user", "content": None}), "expected a string, got null", "messages.[0].content"),
        (openai(HELLO, ANSWERED), "messages with role 'tool' must be a response", "messages.[1].role"),
        (openai(HELLO, ASKED), "did not have response messages: call_1", "messages.[2].role"),
        (
            openai(HELLO, ASKED, HELLO, ANSWERED),
            "did not have response messages: call_1",
            "messages.[2].role",
        ),
        (openai(tools=[]), "empty array", "tools"),
        (openai(tools=[named("linear/list")]), "string does not match pattern", "tools[0].function.name"),
        (
            openai(tools=[named("x" * 65)]),
            "maximum length 64, but got a string with length 65",
            "tools[0].function.name",
        ),
        (openai(tool_choice="auto"), "only allowed when 'tools' are specified", "tool_choice"),
        (openai(tools=[FUNCTION], tool_choice=named("x")), "Tool choice 'x' not found", "tool_choice"),
        (openai(max_tokens=0), "integer below minimum value", "max_tokens"),
        (openai(max_tokens=1, max_completion_tokens=1), "at the same time", "max_tokens"),
        (openai(stream_options={}), "only allowed when 'stream' is enabled", "stream_options"),
        (
            openai(shown("https://x.example/1.png", cache_control={})),
            "Unknown parameter",
            "messages.[0].content.cache_control",
        ),
        (openai(shown("data:image/bmp;base64,QUJD")), "unsupported image", "messages.[0].content"),
        (openai(shown(None)), "expected a string", "messages.[0].content"),
        (openai(response_format="json"), "Invalid value for 'response_format'", "response_format"),
        (
            openai(response_format={"type": "json_schema"}),
            "Missing required parameter",
            "response_format.json_schema",
        ),
        (
            openai(response_format=strictly({"type": "object"})),
            "In context=(), 'additionalProperties' is required",
            "response_format",
        ),
        (
            openai(response_format=strictly({**CLOSED, "properties": {"a": {}}})),
            "an array including every key in properties. Missing 'a'.",
            "response_format",
        ),
    ],
)
def test_openai_refuses(body: dict[str, Any], words: str, param: str) -> None:
    """Each fault is a 400 with the vendor's words and the parameter it is about."""
    with pytest.raises(Refusal) as caught:
        openai_checks.check(body)
    assert caught.value.status == 400
    assert words in caught.value.message
    assert caught.value.param == param


def responses(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A Responses request; a greeting unless told otherwise."""
    return {"model": "m", "input": list(items or (HELLO,)), "store": False, **fields}


R_CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get", "arguments": "{}"}
R_OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "12"}
R_THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAx"}
R_TOOL = {"type": "function", "name": "get", "parameters": {"type": "object"}, "strict": True}


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "input": "Hi"},
        responses({"role": "developer", "content": "x"}, HELLO, R_THOUGHT, R_CALL, R_OUTPUT, HELLO),
        responses(tools=[R_TOOL], tool_choice={"type": "function", "name": "get"}, stream=True),
    ],
)
def test_responses_lets_good_requests_pass(body: dict[str, Any]) -> None:
    """Histories with thoughts and calls, and forced tools, are fine."""
    responses_checks.check(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "m"}, "Missing required parameter: 'input'."),
        (responses(messages=[]), "Unknown parameter: 'messages'."),
        (responses({**R_CALL, "extra_content": 1}, R_OUTPUT), "Unknown parameter: 'input[0].extra_content'."),
        (responses(max_output_tokens=15), "Expected a value >= 16, but got 15"),
        (responses({"role": "bot", "content": "x"}), "Supported values are"),
        (responses(user({"type": "output_text", "text": "x"})), "Supported values are"),
        (responses({**HELLO, "id": "chatcmpl-1"}), "Expected an ID that begins with 'msg'"),
        (responses(HELLO, R_CALL), "No tool output found for function call call_1"),
        (responses(HELLO, R_OUTPUT), "No tool call found for function call output with call_id call_1"),
        (responses({**R_THOUGHT, "encrypted_content": "qlaud1:x"}), "could not be verified"),
        (responses({"type": "reasoning", "id": "rs_1", "summary": []}), "Items are not persisted"),
        (responses({"type": "brand_new"}), "Invalid value: 'brand_new'"),
        (responses(tools=[{**R_TOOL, "name": "linear/list"}]), "string does not match pattern"),
        (responses(tool_choice={"type": "function", "name": "x"}), "Tool choice 'x' not found"),
        (responses(text={"format": {"type": "json_schema", "schema": {}}}), "'text.format.name'"),
    ],
)
def test_responses_refuses(body: dict[str, Any], words: str) -> None:
    """Each fault is a 400 with the vendor's words."""
    with pytest.raises(Refusal) as caught:
        responses_checks.check(body)
    assert caught.value.status == 400
    assert words in caught.value.message
