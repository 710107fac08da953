"""Conversations of other systems become ours; what cannot be brought along is said."""

from typing import Any

import msgspec
import pytest

from qlaud_actors.importing.formats import READERS, recognise
from qlaud_actors.importing.model import Conversation, FormatError


def read(value: Any, lines: bool = False) -> list[Conversation]:
    """The conversations of a file whose format is found out."""
    raw = b"\n".join(map(msgspec.json.encode, value)) if lines else msgspec.json.encode(value)
    return list(READERS[recognise(raw)](raw))


def said(conversation: Conversation) -> list[tuple[str, Any]]:
    return [(m.role, m.content) for m in conversation.messages]


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def node(parent: str | None, role: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A node of ChatGPT's tree."""
    message = {"author": {"role": role}, "content": content, "create_time": 1_700_000_000.5, **more}
    return {"message": message, "parent": parent}


def parts(*found: Any) -> dict[str, Any]:
    return {"content_type": "text", "parts": list(found)}


CHATGPT = [
    {
        "title": "Trip",
        "conversation_id": "c1",
        "current_node": "e",
        "mapping": {
            "root": {"message": None, "parent": None},
            "s": node("root", "system", parts("You are …")),
            "a": node("s", "user", parts("Where to?", {"content_type": "image_asset_pointer"})),
            "old": node("a", "assistant", parts("Nowhere.")),
            "th": node("a", "assistant", {"content_type": "thoughts", "thoughts": []}),
            "b": node("th", "assistant", {"content_type": "code", "text": "search('x')"}),
            "t": node("b", "tool", {"content_type": "execution_output", "text": "Rome"}),
            "c": node("t", "assistant", parts("Rome.")),
            "h": node("c", "user", parts("hidden"), metadata={"is_visually_hidden_from_conversation": True}),
            "e": node("h", "user", parts("Thanks")),
        },
    },
    {"title": "Empty", "id": "c2", "mapping": {}, "current_node": "x"},
]


def test_chatgpt_takes_the_branch_that_was_seen_last() -> None:
    """What was edited away, hidden or thought stays behind; a tool's result is told with the answer."""
    (trip,) = read(CHATGPT)
    assert (trip.external_id, trip.title) == ("chatgpt:c1", "Trip")
    assert said(trip) == [
        ("user", [words("Where to?"), words("[image_asset_pointer, not imported]")]),
        ("assistant", [words("search('x')"), words("[result of a tool]"), words("Rome"), words("Rome.")]),
        ("user", [words("Thanks")]),
    ]
    assert trip.messages[0].created_at_ms == 1_700_000_000_500


def test_assistants_threads_are_put_in_order() -> None:
    """The API lists the newest first; images by address come along, files are noted."""
    (thread,) = read(
        {
            "thread": {"id": "thread_1", "metadata": {"title": "T", "plan": "pro"}},
            "messages": {
                "object": "list",
                "data": [
                    {
                        "id": "m2",
                        "role": "assistant",
                        "created_at": 20,
                        "content": [{"type": "text", "text": {"value": "Hello", "annotations": []}}],
                    },
                    {
                        "id": "m1",
                        "role": "user",
                        "created_at": 10,
                        "content": [
                            {"type": "text", "text": {"value": "Hi"}},
                            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                            {"type": "image_file", "image_file": {"file_id": "f"}},
                        ],
                    },
                ],
            },
        }
    )
    assert (thread.external_id, thread.title) == ("openai:thread_1", "T")
    assert thread.metadata == {"title": "T", "plan": "pro", "imported_from": "openai"}
    picture = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
    assert said(thread) == [
        ("user", [words("Hi"), picture, words("[image_file, not imported]")]),
        ("assistant", [words("Hello")]),
    ]
    assert [m.created_at_ms for m in thread.messages] == [10_000, 20_000]


def test_conversations_keep_calls_and_results() -> None:
    """Also calls whose arguments are no JSON; reasoning stays behind."""
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Time?"}]},
        {"type": "reasoning", "encrypted_content": "…"},
        {"type": "function_call", "call_id": "k1", "name": "now", "arguments": '{"tz":"UTC"}'},
        {"type": "function_call", "call_id": "k2", "name": "now", "arguments": "{"},
        {"type": "function_call_output", "call_id": "k1", "output": "noon"},
        {"type": "function_call_output", "call_id": "k2", "output": {"error": "?"}},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Noon."}]},
    ]
    found = read([{"conversation": {"id": "conv_1"}, "items": items}] * 2, lines=True)
    assert [c.external_id for c in found] == ["openai:conv_1"] * 2
    assert said(found[0]) == [
        ("user", [words("Time?")]),
        (
            "assistant",
            [
                {"type": "tool_use", "id": "k1", "name": "now", "input": {"tz": "UTC"}},
                {"type": "tool_use", "id": "k2", "name": "now", "input": {"arguments": "{"}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "k1", "content": "noon"},
                {"type": "tool_result", "tool_use_id": "k2", "content": '{"error":"?"}'},
            ],
        ),
        ("assistant", [words("Noon.")]),
    ]


def test_langgraph_takes_the_newest_state() -> None:
    """Messages of the API and of LangChain's own form; a call that is a block already is told once."""
    call = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}}
    messages = [
        {"type": "system", "content": "Be brief"},
        {"type": "human", "content": "1+1"},
        {"type": "ai", "content": [call], "tool_calls": [{"id": "t1", "name": "add", "args": {"a": 1}}]},
        {"type": "tool", "tool_call_id": "t1", "content": "2", "status": "error"},
        {"lc": 1, "id": ["langchain", "AIMessage"], "kwargs": {"content": "2"}},
    ]
    place = {"checkpoint": {"thread_id": "g1"}, "metadata": {"owner": "ann"}}
    newest = {"values": {"messages": messages}, **place}
    older = {"values": {"messages": messages[:2]}, "config": {"configurable": {"thread_id": "g1"}}}
    (thread,) = read([newest, older])
    assert (thread.external_id, thread.end_user_id) == ("langgraph:g1", "ann")
    assert said(thread) == [
        ("user", [words("1+1")]),
        ("assistant", [call]),
        ("user", [{"type": "tool_result", "tool_use_id": "t1", "content": "2", "is_error": True}]),
        ("assistant", [words("2")]),
    ]


EXPORT: list[Any] = [
    {"type": "export"},
    {"type": "thread", "id": "t", "title": "T", "end_user_id": "ann", "metadata": None},
    {"type": "message", "thread_id": "t", "seq": 1, "role": "user", "content": "Hi", "created_at": 5},
    {"type": "usage"},
    {"type": "end"},
]


def test_our_own_export_is_taken_as_it_is() -> None:
    """Contents stay as they were, strings too."""
    (thread,) = read(EXPORT, lines=True)
    assert (thread.external_id, thread.title, thread.end_user_id) == ("qlaud:t", "T", "ann")
    assert [(m.role, m.content, m.created_at_ms) for m in thread.messages] == [("user", "Hi", 5)]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"[]", "empty"),
        (b"[1]", "no object"),
        (b"{}", "no known format"),
        (b'{"mapping": {}}', "must be a list"),
        (b'[{"mapping": {}}]', "has no id"),
        (b'{"messages": []}', "has no id"),
        (b'{"values": {}}', "no `values.messages`"),
        (b'{"values": {"messages": []}}', "no thread id"),
        (b'{"type":"export"}\n{"type":"thread","id":"t"}', "cut off"),
        (b'{"type":"export"}\n{"type":"message","thread_id":"t"}\n{"type":"end"}', "before its thread"),
        (b'{"messages": [], "thread": {"id": "t"}}\nx', "line 2 is not JSON"),
    ],
)
def test_what_is_no_such_file_is_refused_in_words(raw: bytes, words: str) -> None:
    """Never half a conversation."""
    with pytest.raises(FormatError, match=words):
        list(READERS[recognise(raw)](raw))
