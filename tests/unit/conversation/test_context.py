"""What fits is decided by bounds: never too much, never half a tool call, rarely another beginning."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.conversation.context import (
    HEAD,
    KEPT_CHARS,
    Content,
    Measured,
    Room,
    Span,
    View,
    begins_turn,
    cut_results,
    entry,
    next_view,
    room_of,
    show,
    spans,
)
from qlaud_actors.conversation.history import heal
from qlaud_actors.providers.bound import message_tokens
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Block, Message

MODEL = replace(Catalog.load({}).resolve("claude-haiku-4-5"), context_window=8_000, max_output_tokens=4_000)
FRESH = 400

Numbered = list[tuple[int, Message]]


def call(name: str) -> Block:
    return {"type": "tool_use", "id": name, "name": "t", "input": {}}


def result(name: str, length: int = 2) -> Block:
    return {"type": "tool_result", "tool_use_id": name, "content": "r" * length}


def numbered(*messages: Message) -> Numbered:
    return list(enumerate(messages, 1))


def content_of(messages: Numbered, view: View, *, known: tuple[Span, ...] = ()) -> Content:
    """What a request in a view is made of, with nothing beside the messages but a summary."""
    entries = tuple(entry(seq, message, MODEL) for seq, message in messages if seq > view.through_seq)
    beside = sum(message_tokens(message, MODEL) for message in show((), view))
    return Content(entries, known, beside, FRESH)


def settled(messages: Numbered, view: View, room: Room) -> View:
    """The view after as many strides as it takes."""
    while content_of(messages, view).shown(view) > room.limit:
        wanted = next_view(content_of(messages, view), view, room)
        if wanted is None:
            break
        assert wanted.version == view.version + 1
        assert wanted != replace(view, version=wanted.version)
        moved = wanted.through_seq > view.through_seq
        view = replace(wanted, summary="s" * 100) if moved else wanted
    return view


def taken(messages: Numbered, view: View) -> int:
    """The tokens of what is shown, counted anew."""
    return sum(message_tokens(message, MODEL) for message in show(messages, view))


text = st.integers(1, 900).map(lambda n: "x" * n)


@st.composite
def turns(draw: Any) -> list[Message]:
    """A turn: a question, some rounds of tools of which one may be unanswered, perhaps an answer."""
    made = [Message("user", draw(text))]
    for n in range(draw(st.integers(0, 3))):
        name = f"{draw(st.uuids())}-{n}"
        made.append(Message("assistant", [{"type": "text", "text": "I look."}, call(name)]))
        if draw(st.integers(0, 9)):
            made.append(Message("user", [result(name, draw(st.integers(1, 3_000)))]))
    if draw(st.booleans()):
        made.append(Message("assistant", draw(text)))
    return made


histories = st.lists(turns(), min_size=1, max_size=12).map(
    lambda made: numbered(*(message for turn in made for message in turn))
)
rooms = st.integers(1_500, 6_000).map(lambda limit: Room(limit, limit // 2, 7_000))


@given(histories, rooms)
def test_what_is_shown_fits_and_no_call_loses_its_result(messages: Numbered, room: Room) -> None:
    """It is within the limit unless nothing is left to give up; the newest turn is there; cuts are clean."""
    view = settled(messages, View(), room)
    entries = content_of(messages, view).entries
    newest = max(n for n, (_, message) in enumerate(messages) if begins_turn(message))
    assert view.through_seq <= newest
    if taken(messages, view) > room.limit:
        assert view.through_seq == newest
        assert all(one.cut == one.whole or one.seq <= view.trimmed_seq for one in entries[:-1])
    if view.through_seq:
        assert begins_turn(messages[view.through_seq][1])
    gone = {b["id"] for _, m in messages[: view.through_seq] for b in blocks(m, "tool_use")}
    results = (b for _, m in messages[view.through_seq :] for b in blocks(m, "tool_result"))
    assert not gone & {b["tool_use_id"] for b in results}
    healed = heal(show(messages, view))
    assert [m.role for m in healed] == [("user", "assistant")[i % 2] for i in range(len(healed))]


def blocks(message: Message, kind: str) -> list[Block]:
    return [b for b in message.content if b["type"] == kind] if isinstance(message.content, list) else []


@given(st.lists(turns(), min_size=20, max_size=40), st.integers(2_500, 6_000))
def test_the_beginning_stays_the_same_from_turn_to_turn(made: list[list[Message]], limit: int) -> None:
    """Between two strides each history goes on from the one before."""
    room, view, messages = Room(limit, limit // 2, 7_000), View(), []
    before: list[Message] = []
    for turn in made:
        messages += [(len(messages) + n, message) for n, message in enumerate(turn, 1)]
        old, view = view, settled(messages, view, room)
        shown = show(messages, view)
        if view == old:
            assert shown[: len(before)] == before
        elif len(content_of(messages, view).entries) > len(turn):
            assert taken(messages, view) <= room.limit
        before = shown


@given(histories)
def test_sizes_shrink_with_what_is_given_up(messages: Numbered) -> None:
    """The later the first message and the more results are cut, the less; what was measured is no more."""
    content = content_of(messages, View())
    count = len(content.entries)
    known = tuple(Span(n, n + 2, content.size(n, 0) // 3) for n in range(0, count - 1, 2))
    for one in (content, replace(content, known=known)):
        for cut in (0, count):
            sizes = [one.size(n, cut) for n in range(count + 1)]
            assert sizes == sorted(sizes, reverse=True)
        assert one.size(0, count) <= one.size(0, 0) <= content.size(0, 0)


def test_results_are_cut_before_turns_go() -> None:
    """The oldest results first, and no more of them than it takes."""
    messages = numbered(
        Message("user", "one"),
        Message("assistant", [call("a")]),
        Message("user", [result("a", 2_000)]),
        Message("assistant", [call("b")]),
        Message("user", [result("b", 2_000)]),
        Message("assistant", "done"),
        Message("user", "two"),
    )
    view = settled(messages, View(), Room(4_200, 3_400, 7_000))
    assert (view.version, view.through_seq, view.trimmed_seq) == (1, 0, 3)
    shown = show(messages, view)
    assert shown[2].content[0]["content"].startswith("r" * KEPT_CHARS + "\n[1,800 more characters")
    assert shown[4] == messages[4][1]


def test_the_last_message_is_never_cut() -> None:
    """Of a turn that is too long by itself the older results are cut; what has to be answered stays."""
    messages = numbered(
        Message("user", "one"),
        Message("assistant", [call("a"), call("b")]),
        Message("user", [result("a", 5_000)]),
        Message("assistant", [call("c")]),
        Message("user", [result("c", 5_000)]),
    )
    view = settled(messages, View(), Room(4_000, 2_000, 7_000))
    assert view.trimmed_seq == 4
    assert show(messages, view)[4] == messages[4][1]
    assert next_view(content_of(messages, view), view, Room(4_000, 2_000, 7_000)) is None


def test_a_message_with_results_and_words_begins_no_turn() -> None:
    """Cut before it, the results would have lost their calls."""
    assert begins_turn(Message("user", "hi"))
    assert begins_turn(Message("user", [{"type": "text", "text": "hi"}]))
    assert not begins_turn(Message("user", [result("a"), {"type": "text", "text": "and?"}]))
    assert not begins_turn(Message("assistant", "hi"))


def test_pictures_in_results_are_named_when_they_are_cut() -> None:
    """A cut result is text alone; short text stays as it is."""
    picture = {"type": "image", "source": {"type": "base64", "data": "x", "media_type": "image/png"}}
    given = [{"type": "text", "text": "t"}, picture]
    shown = cut_results(Message("user", [{**result("a"), "content": given}]))
    assert shown.content == [{**result("a"), "content": "t\n[image left out]"}]
    short = Message("user", [result("a", 2 * KEPT_CHARS)])
    assert cut_results(short) == short


def test_half_of_the_window_stays_for_input() -> None:
    """An answer as long as the window would leave nothing to answer."""
    assert room_of(MODEL, 1_000, 0.8) == Room(6_400, 3_200, 7_000)
    assert room_of(MODEL, 100_000, 0.95) == Room(4_000, 2_000, 4_000)


def test_what_lay_between_two_steps_is_known() -> None:
    """Only between steps of one view, and not where a thought may have been dropped meanwhile."""
    messages = numbered(
        Message("user", "x" * 400),
        Message("assistant", "x" * 400),
        Message("user", "x" * 400),
        Message("assistant", "x" * 400),
        Message("user", "x" * 400),
    )
    entries = content_of(messages, View()).entries
    measured = [Measured(4, 350, b"v"), Measured(2, 130, b"v")]
    known = spans(entries, measured)
    assert known == (Span(1, 3, 220),)
    assert replace(content_of(messages, View()), known=known).size(0, 0) == 220 + sum(
        entries[n].whole for n in (0, 3, 4)
    )
    assert spans(entries, [Measured(4, 350, b"v"), Measured(2, 130, b"w")]) == ()
    thinking = [{"type": "thinking", "thinking": "…", "signature": "s"}]
    thoughtful = [messages[0], (2, Message("assistant", thinking)), *messages[2:]]
    assert spans(content_of(thoughtful, View()).entries, measured) == ()


def test_a_summary_is_the_first_thing_said() -> None:
    """It joins the question behind it, so that roles alternate."""
    messages = numbered(Message("user", "old"), Message("assistant", "old"), Message("user", "new"))
    healed = heal(show(messages, View(1, "They met.", 2, 2)))
    assert len(healed) == 1
    assert [b["text"] for b in healed[0].content] == [HEAD + "They met.", "new"]


@pytest.mark.parametrize("length", [0, 10, 500])
def test_a_plain_history_is_shown_as_it_is(length: int) -> None:
    """Without a view nothing changes."""
    messages = numbered(Message("user", "hi"), Message("assistant", "x" * length))
    assert show(messages, View()) == [message for _, message in messages]
