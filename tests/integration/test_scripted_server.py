"""The scripted vendor cloud over loopback, with the vendors' own SDKs as its judges."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from qlaud_actors.scripted.server import ScriptedServer

TOOL: Any = {
    "name": "linear_create_ab12",
    "description": "Create",
    "input_schema": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
}
FUNCTION: Any = {
    "type": "function",
    "function": {"name": TOOL["name"], "parameters": TOOL["input_schema"]},
}
CALL = {"tools": [{"name": "linear/create", "input": {"title": "Grüße, a long enough title"}}]}


def script(*steps: dict[str, Any], before: str = "Hello. ") -> Any:
    """The messages of a conversation that begins with this script."""
    return [{"role": "user", "content": f"{before}<<script {json.dumps(steps)} >>"}]


async def read_until_cut(reply: aiohttp.ClientResponse) -> bytes:
    """What arrives of a body whose connection is dropped."""
    received = b""
    try:
        async for data in reply.content.iter_any():
            received += data
    except aiohttp.ClientPayloadError:
        return received
    raise AssertionError("the stream ended as if it were complete")


async def read_text(chunks: Any, seen: list[str]) -> None:
    """Collects the text of chunks, up to the end or an error."""
    async for chunk in chunks:
        seen += [chunk.choices[0].delta.content or ""]


async def read_message(manager: Any) -> None:
    """Reads a stream of the Anthropic SDK to its end."""
    async with manager as stream:
        await stream.get_final_message()


async def billed(server: ScriptedServer) -> dict[str, Any]:
    """The bill, once it has a row."""
    async with asyncio.timeout(2):
        while not server.bill()["rows"]:  # noqa: ASYNC110 - a server gives no event to wait for
            await asyncio.sleep(0.01)
    return server.bill()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """A running server with a small context window."""
    async with ScriptedServer(context_window=5_000) as running:
        yield running


@pytest.fixture
async def claude(server: ScriptedServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The Anthropic SDK, pointed at it."""
    async with anthropic.AsyncAnthropic(api_key="sk-ant-wxyz", base_url=server.url, max_retries=0) as client:
        yield client


@pytest.fixture
async def gpt(server: ScriptedServer) -> AsyncIterator[openai.AsyncOpenAI]:
    """The OpenAI SDK, pointed at it."""
    async with openai.AsyncOpenAI(api_key="sk-abcd", base_url=f"{server.url}/v1", max_retries=0) as client:
        yield client


async def test_anthropic_answers_whole(server: ScriptedServer, claude: anthropic.AsyncAnthropic) -> None:
    """A message with its usage, and the same usage on the bill."""
    reply = await claude.messages.create(model="m", max_tokens=50, messages=script({"text": "Good day."}))
    assert [block.to_dict() for block in reply.content] == [{"type": "text", "text": "Good day."}]
    assert (reply.stop_reason, reply.usage.output_tokens) == ("end_turn", 3)
    [row] = server.bill()["rows"]
    assert (row["input"], row["output"]) == (reply.usage.input_tokens, 3)
    assert (row["key_suffix"], row["ended"], row["stream"]) == ("wxyz", "complete", False)


async def test_anthropic_streams_thoughts_text_and_calls(claude: anthropic.AsyncAnthropic) -> None:
    """The SDK folds the frames into the message, and its history is accepted in the next step."""
    messages = script({"thinking": "let me see", "text": "I will.", **CALL}, {"text": "Done."})
    async with claude.messages.stream(model="m", max_tokens=2_000, messages=messages, tools=[TOOL]) as stream:
        kinds = [event.type async for event in stream]
        reply = await stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert [block.type for block in reply.content] == ["thinking", "text", "tool_use"]
    assert reply.stop_reason == "tool_use"
    call: Any = reply.content[2]
    assert (call.name, call.input) == (TOOL["name"], CALL["tools"][0]["input"])
    messages += [
        {"role": "assistant", "content": [block.to_dict() for block in reply.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "ok"}]},
    ]
    budget: Any = {"type": "enabled", "budget_tokens": 1_024}
    second = await claude.messages.create(
        model="m", max_tokens=2_000, messages=messages, tools=[TOOL], thinking=budget
    )
    assert [block.type for block in second.content] == ["thinking", "text"]
    assert second.usage.output_tokens_details is not None


async def test_openai_answers_whole(server: ScriptedServer, gpt: openai.AsyncOpenAI) -> None:
    """A completion with calls; cached tokens are part of the prompt on this wire."""
    messages = script({"text": "I will.", "usage": {"input": 10, "cache_read": 7}, **CALL})
    reply = await gpt.chat.completions.create(model="m", messages=messages, tools=[FUNCTION])
    choice: Any = reply.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I will.")
    assert json.loads(choice.message.tool_calls[0].function.arguments) == CALL["tools"][0]["input"]
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 17
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 7
    bill = server.bill()
    assert (bill["input"], bill["cache_read"], bill["output"]) == (10, 7, reply.usage.completion_tokens)


async def test_openai_streams_text_and_calls(gpt: openai.AsyncOpenAI) -> None:
    """The SDK folds the chunks, and the tool messages that follow are accepted."""
    messages = script({"text": "I will.", **CALL}, {"text": "Done."})
    async with gpt.chat.completions.stream(
        model="m", messages=messages, tools=[FUNCTION], stream_options={"include_usage": True}
    ) as stream:
        reply = await stream.get_final_completion()
    message: Any = reply.choices[0].message
    assert message.content == "I will."
    assert json.loads(message.tool_calls[0].function.arguments) == CALL["tools"][0]["input"]
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 0
    messages += [
        {"role": "assistant", "tool_calls": [call.to_dict() for call in message.tool_calls]},
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "ok"},
    ]
    for call in messages[1]["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    second = await gpt.chat.completions.create(model="m", messages=messages, tools=[FUNCTION])
    assert second.choices[0].message.content == "Done."


async def test_openai_gives_as_many_answers_as_asked(server: ScriptedServer, gpt: openai.AsyncOpenAI) -> None:
    """Each copy is billed; without stream_options there is no usage chunk."""
    messages = script({"text": "12345678"})
    reply = await gpt.chat.completions.create(model="m", messages=messages, n=3)
    assert [choice.message.content for choice in reply.choices] == ["12345678"] * 3
    assert server.bill()["output"] == 6
    chunks = [
        c async for c in await gpt.chat.completions.create(model="m", messages=messages, stream=True, n=2)
    ]
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
    assert all(chunk.usage is None for chunk in chunks)


async def test_responses_answers_and_streams(server: ScriptedServer, gpt: openai.AsyncOpenAI) -> None:
    """Thought, text and calls come as items in both forms; usage and bill agree, cached tokens in the sum."""
    usage = {"input": 20, "output": 30, "cache_read": 100, "cache_write": 7}
    asked = script({"thinking": "Hm.", "text": "one two", **CALL, "usage": usage})
    tool = {"type": "function", "strict": False, **FUNCTION["function"]}
    given: dict[str, Any] = {"model": "any", "input": asked, "tools": [tool], "store": False}
    whole = await gpt.responses.create(**given)
    async with gpt.responses.stream(**given) as stream:
        events = [event async for event in stream]
        streamed = await stream.get_final_response()
    for response in (whole, streamed):
        assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
        assert response.output_text == "one two"
        assert response.usage is not None
        assert response.usage.input_tokens == 127
        assert response.usage.input_tokens_details.cached_tokens == 100
        assert response.usage.output_tokens_details.reasoning_tokens == 1
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [(row["wire"], row["input"], row["cache_write"]) for row in server.bill()["rows"]] == [
        ("responses", 20, 7)
    ] * 2


async def test_output_stops_at_max_tokens(
    server: ScriptedServer, claude: anthropic.AsyncAnthropic, gpt: openai.AsyncOpenAI
) -> None:
    """Both wires say why, and neither bills a token more."""
    messages = script({"text": "word ", "repeat": 100})
    one = await claude.messages.create(model="m", max_tokens=7, messages=messages)
    two = await gpt.chat.completions.create(model="m", max_tokens=7, messages=messages)
    assert (one.stop_reason, one.usage.output_tokens) == ("max_tokens", 7)
    assert two.choices[0].finish_reason == "length"
    assert [row["output"] for row in server.bill()["rows"]] == [7, 7]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (402, anthropic.PaymentRequiredError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.OverloadedError),
    ],
)
async def test_anthropic_errors_map_to_the_sdk(
    server: ScriptedServer,
    claude: anthropic.AsyncAnthropic,
    status: int,
    error: type[anthropic.APIStatusError],
) -> None:
    """Errors on demand have the vendor's shape and cost nothing."""
    messages = script({"status": status, "retry_after": 2.5})
    with pytest.raises(error) as caught:
        await claude.messages.create(model="m", max_tokens=9, messages=messages)
    assert caught.value.request_id is not None
    assert caught.value.type is not None
    assert caught.value.response.headers["retry-after"] == "2.5"
    assert server.bill()["rows"] == []
    assert server.bill()["by_status"] == {str(status): 1}


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (503, openai.InternalServerError)],
)
async def test_openai_errors_map_to_the_sdk(
    gpt: openai.AsyncOpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    """Errors on demand have the vendor's shape."""
    with pytest.raises(error) as caught:
        await gpt.chat.completions.create(model="m", messages=script({"status": status}))
    assert caught.value.request_id is not None
    assert caught.value.type is not None


async def test_a_key_is_needed(server: ScriptedServer) -> None:
    """Without a key, or with one it does not know, both wires answer 401."""
    unknown = anthropic.AsyncAnthropic(api_key="invalid-key", base_url=server.url, max_retries=0)
    async with unknown as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(model="m", max_tokens=9, messages=script({}))
    async with openai.AsyncOpenAI(api_key="invalid", base_url=f"{server.url}/v1", max_retries=0) as other:
        with pytest.raises(openai.AuthenticationError):
            await other.chat.completions.create(model="m", messages=script({}))
    async with aiohttp.ClientSession(server.url) as bare:
        for path in ("/v1/messages", "/v1/chat/completions"):
            async with bare.post(path, json={}) as response:
                assert response.status == 401


async def test_a_prompt_longer_than_the_window_is_refused(
    claude: anthropic.AsyncAnthropic, gpt: openai.AsyncOpenAI
) -> None:
    """Each vendor says so in its own words."""
    messages: Any = [{"role": "user", "content": "x" * 20_004}]
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 5001 tokens > 5000 maximum"):
        await claude.messages.create(model="m", max_tokens=9, messages=messages)
    with pytest.raises(openai.BadRequestError) as caught:
        await gpt.chat.completions.create(model="m", messages=messages)
    assert caught.value.code == "context_length_exceeded"


async def test_times_fails_only_the_first_requests(
    server: ScriptedServer, claude: anthropic.AsyncAnthropic
) -> None:
    """A retry of the very same body gets through, another body fails anew."""
    messages = script({"status": 529, "times": 2, "text": "at last"})
    for _ in range(2):
        with pytest.raises(anthropic.OverloadedError):
            await claude.messages.create(model="m", max_tokens=9, messages=messages)
    reply = await claude.messages.create(model="m", max_tokens=9, messages=messages)
    assert reply.content[0].to_dict()["text"] == "at last"
    with pytest.raises(anthropic.OverloadedError):
        await claude.messages.create(model="m", max_tokens=8, messages=messages)
    assert server.bill()["by_status"] == {"200": 1, "529": 3}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_a_cut_comes_after_exactly_so_many_pieces(server: ScriptedServer, path: str) -> None:
    """The pieces before the cut arrive, the end of the stream does not, and they are billed."""
    step = {"text": "aaaa" * 6, "chunks": 6, "cut_after": 3}
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "authorization": "Bearer k"}
    body = {"model": "m", "max_tokens": 99, "stream": True, "messages": script(step)}
    async with (
        aiohttp.ClientSession(server.url) as client,
        client.post(path, json=body, headers=headers) as reply,
    ):
        received = await read_until_cut(reply)
    assert received.count(b'"aaaa"') == 3
    [row] = server.bill()["rows"]
    assert (row["ended"], row["aborted"], row["output"]) == ("cut", True, 3)


async def test_a_cut_without_a_stream_gives_no_answer(claude: anthropic.AsyncAnthropic) -> None:
    """The connection ends before the first byte."""
    with pytest.raises(anthropic.APIConnectionError):
        await claude.messages.create(model="m", max_tokens=9, messages=script({"cut_after": 0}))


async def test_an_error_can_come_in_the_middle(
    server: ScriptedServer, claude: anthropic.AsyncAnthropic, gpt: openai.AsyncOpenAI
) -> None:
    """Both SDKs see an error event after the pieces before it."""
    messages = script({"text": "one two three", "error_after": 2})
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        await read_message(claude.messages.stream(model="m", max_tokens=99, messages=messages))
    chunks = await gpt.chat.completions.create(model="m", messages=messages, stream=True)
    seen: list[str] = []
    with pytest.raises(openai.APIError, match="server had an error"):
        await read_text(chunks, seen)
    assert "".join(seen) == "one two "
    assert [row["ended"] for row in server.bill()["rows"]] == ["error", "error"]
    with pytest.raises(anthropic.OverloadedError):
        await claude.messages.create(model="m", max_tokens=99, messages=messages)


async def test_a_client_that_leaves_is_billed_what_was_produced(server: ScriptedServer) -> None:
    """Production stops with the reader, at once, and the bill has the part."""
    body = {
        "model": "m",
        "max_tokens": 99,
        "stream": True,
        "messages": script({"text": "aaaa" * 10, "chunks": 10, "delay_ms": 20}),
    }
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(server.url) as client:
        reply = await client.post("/v1/messages", json=body, headers=headers)
        received = b""
        while received.count(b'"aaaa"') < 3:
            received += await reply.content.readany()
        reply.close()
    bill = await billed(server)
    [row] = bill["rows"]
    assert (row["ended"], bill["aborted"], bill["in_flight"], bill["by_status"]) == ("left", 1, 0, {"200": 1})
    assert 3 <= row["output"] < 10


async def test_the_control_routes_show_and_forget(
    server: ScriptedServer, claude: anthropic.AsyncAnthropic
) -> None:
    """Bill and bodies can be read and reset over HTTP; bodies are kept only if wanted."""
    await claude.messages.create(model="m", max_tokens=9, messages=script({"text": "x"}))
    async with aiohttp.ClientSession(server.url) as client:

        async def show(path: str) -> Any:
            async with client.get(path) as reply:
                return await reply.json()

        assert (await show("/_scripted/bill"))["by_model"]["m"]["requests"] == 1
        [seen] = (await show("/_scripted/requests"))["requests"]
        assert (seen["path"], seen["body"]["max_tokens"]) == ("/v1/messages", 9)
        async with client.post("/_scripted/reset", json={"record": False}) as reply:
            assert reply.status == 200
        await claude.messages.create(model="m", max_tokens=9, messages=script({"text": "x"}))
        assert (await show("/_scripted/bill"))["requests"] == 1
        assert (await show("/_scripted/requests"))["requests"] == []


async def test_models_and_token_counts(claude: anthropic.AsyncAnthropic, gpt: openai.AsyncOpenAI) -> None:
    """Each SDK can list the models; counting gives what a request would be billed."""
    assert [model.id async for model in claude.models.list()] == ["scripted-claude", "scripted-gpt"]
    assert [model.id async for model in gpt.models.list()] == ["scripted-claude", "scripted-gpt"]
    messages = script({"text": "x"})
    count = await claude.messages.count_tokens(model="m", messages=messages, tools=[TOOL])
    reply = await claude.messages.create(model="m", max_tokens=9, messages=messages, tools=[TOOL])
    assert count.input_tokens == reply.usage.input_tokens


async def test_peak_concurrency_is_counted(server: ScriptedServer, claude: anthropic.AsyncAnthropic) -> None:
    """Requests that wait for their first byte run side by side."""
    messages = script({"text": "x", "first_byte_ms": 100})
    asked = (claude.messages.create(model="m", max_tokens=9, messages=messages) for _ in range(5))
    await asyncio.gather(*asked)
    assert server.bill()["peak_concurrency"] == 5


async def test_usage_can_be_left_out(gpt: openai.AsyncOpenAI) -> None:
    """Some compatible vendors send none; the bill has it all the same."""
    reply = await gpt.chat.completions.create(model="m", messages=script({"text": "x", "omit_usage": True}))
    assert reply.usage is None


async def test_it_runs_alone_until_a_signal() -> None:
    """`python -m qlaud_actors.scripted` prints where it listens and stops cleanly."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qlaud_actors.scripted", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    async with aiohttp.ClientSession() as client, client.get(f"{url}/_scripted/bill") as reply:
        assert reply.status == 200
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_the_bill_knows_each_call_by_its_callers_name(server: ScriptedServer, claude: Any) -> None:
    """`x-request-id` names a call on its row, and among the error answers."""
    for call, step in (("one", {}), ("two", {"status": 529})):
        with contextlib.suppress(anthropic.APIStatusError):
            await claude.messages.create(
                model="m", max_tokens=20, messages=script(step), extra_headers={"x-request-id": call}
            )
    bill = server.bill()
    assert [row["call"] for row in bill["rows"]] == ["one"]
    assert bill["refusals"] == [{"call": "two", "status": 529}]


async def test_a_schema_is_answered_with_json(claude: Any) -> None:
    """Where a schema is wanted and the script says nothing, the answer is JSON of it."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = await claude.messages.create(
        model="m",
        max_tokens=20,
        messages=script({}),
        output_config={
            "format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}
        },
    )
    assert json.loads(answer.content[0].text) == {"n": 1}
