"""The OpenAI wire says in Chat Completions what the neutral form says in blocks."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from qlaud_actors.providers.model import Block, Message, Model, ModelRequest
from qlaud_actors.providers.openai import OpenAIWire

Ask = Callable[..., ModelRequest]
MakeModel = Callable[..., Model]

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "linear/search", "input": {"q": "é"}}


def body_of(request: ModelRequest, model: Model) -> dict[str, Any]:
    """The body as the server would get it."""
    encoded = OpenAIWire().encode(request, model)
    assert (encoded.path, encoded.headers) == ("/chat/completions", {})
    return encoded.body


def user(*blocks: Block) -> Message:
    """A user's message of blocks."""
    return Message("user", list(blocks))


def text(words: str) -> Block:
    """A text block, or the same as a content part."""
    return {"type": "text", "text": words}


def result(content: Any, **fields: Any) -> Block:
    """What came of the call in `CALL`."""
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **fields}


def test_plain_question(ask: Ask, model: MakeModel) -> None:
    """A question streams, asks for usage, and is limited by the name that OpenAI uses."""
    assert body_of(ask(system="Be brief."), model()) == {
        "model": "upstream-1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_completion_tokens": 1000,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (user(text("a"), text("b")), {"role": "user", "content": "a\n\nb"}),
        (user(text("a"), PNG), {"role": "user", "content": [text("a"), PNG_PART]}),
        (
            user({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}),
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}],
            },
        ),
        (
            user(
                {
                    "type": "document",
                    "title": "a.pdf",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
                }
            ),
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
                    }
                ],
            },
        ),
        (
            user({"type": "document", "title": "T", "source": {"type": "text", "data": "words"}}),
            {"role": "user", "content": "T\n\nwords"},
        ),
        (user({"type": "container_upload"}), {"role": "user", "content": "[container_upload left out]"}),
        (Message("assistant", "ok"), {"role": "assistant", "content": "ok"}),
        (
            Message("assistant", [{"type": "redacted_thinking", "data": "x"}, text("a"), text("b")]),
            {"role": "assistant", "content": "ab"},
        ),
    ],
)
def test_messages(ask: Ask, model: MakeModel, message: Message, encoded: dict[str, Any]) -> None:
    """Each kind of content has its form on this wire."""
    assert body_of(ask(message), model())["messages"] == [encoded]


def test_tool_round(ask: Ask, model: MakeModel) -> None:
    """Results stand right behind their calls; images of results and the user's words follow."""
    second = {**CALL, "id": "toolu_2", "name": "get_time", "input": {}}
    request = ask(
        Message("user", "Hi"),
        Message("assistant", [text("Looking."), CALL, second]),
        user(
            result([text("3 bugs"), PNG]),
            {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True, "content": "down"},
            text("Go on."),
        ),
    )
    assert body_of(request, model())["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "linear_search_ea4b5968f4", "arguments": '{"q":"é"}'},
                },
                {"id": "toolu_2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "3 bugs"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: down"},
        {
            "role": "user",
            "content": [text("Attached to toolu_1:"), PNG_PART, text("Go on.")],
        },
    ]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (result(""), "(no output)"),
        (result([PNG]), "(see the attachment)"),
        (result("Error: gone", is_error=True), "Error: gone"),
        (result([text("a"), text("b")]), "a\n\nb"),
        ({"type": "tool_result", "tool_use_id": "toolu_1"}, "(no output)"),
    ],
)
def test_results(ask: Ask, model: MakeModel, block: Block, said: str) -> None:
    """A tool message always says something, and an error says so."""
    assert body_of(ask(user(block)), model())["messages"][0]["content"] == said


def test_long_call_id(ask: Ask, model: MakeModel) -> None:
    """An id beyond OpenAI's limit is shortened alike in call and result."""
    long = "x" * 60
    request = ask(
        Message("user", "Hi"),
        Message("assistant", [{**CALL, "id": long}]),
        user({**result("1"), "tool_use_id": long}),
    )
    _, answer, tool = body_of(request, model())["messages"]
    assert answer["tool_calls"][0]["id"] == tool["tool_call_id"]
    assert len(tool["tool_call_id"]) == 40


def test_mistral(ask: Ask, model: MakeModel) -> None:
    """Mistral gets ids of nine letters and digits, and is not asked for the usage that it reports anyway."""
    request = ask(
        Message("user", "Hi"),
        Message("assistant", [CALL, {**CALL, "id": "aB3456789"}]),
        user(result("1"), {**result("2"), "tool_use_id": "aB3456789"}),
    )
    body = body_of(request, model("mistral"))
    _, answer, *results = body["messages"]
    called = [call["id"] for call in answer["tool_calls"]]
    assert called == [message["tool_call_id"] for message in results]
    assert called[1] == "aB3456789"
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", called[0])
    assert "stream_options" not in body


def test_reasoning_replay(ask: Ask, model: MakeModel) -> None:
    """Only models that want their reasoning back get it, and then on every answer."""
    request = ask(
        Message("user", "Hi"),
        Message("assistant", [{"type": "thinking", "thinking": "Hm", "signature": ""}, CALL]),
        user(result("1")),
        Message("assistant", "One."),
        Message("user", "And?"),
    )
    plain = [m for m in body_of(request, model("deepseek"))["messages"] if m["role"] == "assistant"]
    replayed = body_of(request, model("deepseek", "reasoning_replay"))["messages"]
    answers = [m for m in replayed if m["role"] == "assistant"]
    assert all("reasoning_content" not in m for m in plain)
    assert [m["reasoning_content"] for m in answers] == ["Hm", " "]
    assert answers[0]["content"] is None


def test_only_thinking_is_left_out(ask: Ask, model: MakeModel) -> None:
    """An answer of which this wire can say nothing is not sent as an empty message."""
    request = ask(Message("user", "Hi"), Message("assistant", [{"type": "thinking", "thinking": "Hm"}]))
    assert body_of(request, model())["messages"] == [{"role": "user", "content": "Hi"}]


def test_thought_signature_returns(ask: Ask, model: MakeModel) -> None:
    """What Google attached to a call goes back with it."""
    extra = {"google": {"thought_signature": "abc"}}
    request = ask(Message("assistant", [{**CALL, "extra_content": extra}]))
    assert body_of(request, model())["messages"][0]["tool_calls"][0]["extra_content"] == extra
