"""What is given to whoever writes a summary fits, and says what happened."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.conversation.context import OMITTED, View, show
from qlaud_actors.conversation.summary import (
    fitted,
    next_piece,
    omitting,
    piece_bytes,
    request_for,
    summary_bound,
    summary_tokens,
    transcript,
)
from qlaud_actors.providers.bound import input_bound, message_tokens
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Message

MODEL = replace(Catalog.load({}).resolve("claude-haiku-4-5"), context_window=8_000)
turn = st.lists(st.text(max_size=3_000), min_size=1, max_size=3)


@given(st.lists(turn, min_size=1, max_size=8), st.text(max_size=900))
def test_pieces_fit_and_cover_everything(said: list[list[str]], summary: str) -> None:
    """Each piece fits its writer with the summary so far; every turn is in one of them."""
    seqs = iter(range(1, 1_000))
    turns = [[(next(seqs), Message("user", text)) for text in texts] for texts in said]
    most, reached = summary_tokens(MODEL), 0
    while turns:
        piece, last = next_piece(turns, piece_bytes(MODEL, most, summary))
        asked = request_for(MODEL, most, summary, piece)
        bound = input_bound(asked, replace(MODEL, context_window=10**9))
        assert bound + asked.max_tokens <= MODEL.context_window
        assert last == turns[0][-1][0] or last > reached
        reached = last
        turns = [one for one in turns if one[-1][0] > last]
    assert reached == next(seqs) - 1


def test_a_model_that_thinks_gets_room_for_it() -> None:
    """Its thoughts count as output where its wire does not ask for them."""
    thinker = Catalog.load({}).resolve("gpt-5.4-mini")
    assert request_for(thinker, 500, None, "x").max_tokens == 4_500
    assert request_for(MODEL, 500, None, "x").max_tokens == 500


@given(st.text(max_size=20_000))
def test_a_stored_summary_is_within_its_bound(text: str) -> None:
    """Whatever a model wrote, also with a note of what is left out."""
    shown = show((), View(1, omitting(fitted(text, MODEL) or None), 1, 1))
    assert sum(message_tokens(message, MODEL) for message in shown) <= summary_bound(MODEL)


def test_a_transcript_tells_calls_and_results() -> None:
    """In one line each, long ones without their middle; thoughts are not told."""
    lines = transcript(
        [
            Message("user", "How much?"),
            Message("assistant", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes."}]),
            Message("assistant", [{"type": "tool_use", "id": "a", "name": "x/y", "input": {"of": "me"}}]),
            Message("user", [{"type": "tool_result", "tool_use_id": "a", "content": "x" * 1_000}]),
            Message("user", [{"type": "tool_result", "tool_use_id": "a", "is_error": True}]),
            Message("user", [{"type": "image"}]),
        ]
    ).split("\n")
    assert lines[:3] == ["User: How much?", "Assistant: Yes.", 'Assistant: [calls x/y with {"of":"me"}]']
    assert lines[3] == f"User: [result: {'x' * 150} […] {'x' * 150}]"
    assert lines[4:] == ["User: [error: ]", "User: [image]"]


def test_what_is_left_out_is_said_once() -> None:
    """However often it happens."""
    assert omitting(None) == omitting(omitting(None)) == OMITTED
    assert omitting(omitting("They met.")) == f"They met.\n\n{OMITTED}"
