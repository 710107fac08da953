"""`heal` makes any stored history acceptable to a provider."""

from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.conversation.context import View, show
from qlaud_actors.conversation.history import NOT_RUN, build_request, heal
from qlaud_actors.conversation.model import TurnRequest
from qlaud_actors.providers.model import Message
from qlaud_actors.tools.model import Tool, Toolset


def call(call_id: str) -> dict:
    return {"type": "tool_use", "id": call_id, "name": "t", "input": {}}


def result(call_id: str) -> dict:
    return {"type": "tool_result", "tool_use_id": call_id, "content": "ok"}


def test_a_clean_history_is_left_alone() -> None:
    """What a completed turn stored goes to the model as it is."""
    messages = (
        Message("user", "hi"),
        Message("assistant", [call("a")]),
        Message("user", [result("a")]),
        Message("assistant", [{"type": "text", "text": "done"}]),
        Message("user", "more"),
    )
    assert heal(messages) == messages


def test_a_call_without_a_result_gets_one() -> None:
    """A turn that ended on a tool call does not block the next one."""
    healed = heal([Message("user", "hi"), Message("assistant", [call("a")]), Message("user", "and now?")])
    expected = [
        {"type": "tool_result", "tool_use_id": "a", "is_error": True, "content": NOT_RUN},
        {"type": "text", "text": "and now?"},
    ]
    assert healed[2] == Message("user", expected)


def test_a_result_without_a_call_is_dropped() -> None:
    """A stray result would be refused by the provider."""
    healed = heal([Message("user", [result("x"), {"type": "text", "text": "hi"}])])
    assert healed == (Message("user", [{"type": "text", "text": "hi"}]),)


def test_messages_of_failed_turns_are_joined() -> None:
    """Two user messages in a row become one; an empty reply is left out."""
    healed = heal([Message("user", "one"), Message("assistant", []), Message("user", "two")])
    expected = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert healed == (Message("user", expected),)


blocks = st.one_of(
    st.builds(lambda t: {"type": "text", "text": t}, st.text(min_size=1, max_size=5)),
    st.builds(call, st.sampled_from("abcd")),
)
user_blocks = st.one_of(
    st.builds(lambda t: {"type": "text", "text": t}, st.text(min_size=1, max_size=5)),
    st.builds(result, st.sampled_from("abcdx")),
)
message = st.one_of(
    st.builds(Message, st.just("user"), st.lists(user_blocks, max_size=3)),
    st.builds(
        Message,
        st.just("assistant"),
        st.lists(blocks, max_size=3, unique_by=lambda b: b.get("id", b.get("text"))),
    ),
)


@given(st.lists(message, max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_any_history_becomes_valid(messages: list[Message], through: int, trimmed: int) -> None:
    """Roles alternate from the user on, every call is answered once, right behind it, and has an id of its
    own; wherever a summary may end.
    """
    healed = heal(show(enumerate(messages, 1), View(1, "They met.", through, trimmed)))
    ids = [b["id"] for m in healed if isinstance(m.content, list) for b in m.content if "id" in b]
    assert len(ids) == len(set(ids))
    assert [m.role for m in healed] == [("user", "assistant")[i % 2] for i in range(len(healed))]
    open_calls: list[str] = []
    for item in healed:
        kinds = item.content if isinstance(item.content, list) else []
        assert item.content
        if item.role == "user":
            assert [b["tool_use_id"] for b in kinds if b["type"] == "tool_result"] == open_calls
        open_calls = [b["id"] for b in kinds if b["type"] == "tool_use"]
    assert open_calls == []


def test_calls_with_one_id_are_told_apart() -> None:
    """Some models number their calls anew in each turn; each result stays with its call."""
    healed = heal(
        [
            Message("user", "one"),
            Message("assistant", [call("a")]),
            Message("user", [{**result("a"), "content": "1"}]),
            Message("assistant", [call("a"), call("a_2")]),
            Message("user", [{**result("a_2"), "content": "3"}, {**result("a"), "content": "2"}]),
        ]
    )
    assert [b["id"] for n in (1, 3) for b in healed[n].content] == ["a", "a_2", "a_2_2"]
    told = [(b["tool_use_id"], b["content"]) for n in (2, 4) for b in healed[n].content]
    assert told == [("a", "1"), ("a_2", "2"), ("a_2_2", "3")]


def test_a_forced_tool_is_forced_once() -> None:
    """`tool_choice` binds the first step only, else the loop would call the tool until its limit."""
    asked = TurnRequest("m", 100, params={"tool_choice": {"type": "any"}})
    tools = Toolset(offered=(Tool("1", "t", "d", {}, "webhook"),))
    first = build_request(asked, [Message("user", "hi")], tools, first=True)
    later = build_request(asked, [Message("user", "hi")], tools, first=False)
    assert first.params == {"tool_choice": {"type": "any"}}
    assert later.params == {}
    assert first.max_tokens == 100
