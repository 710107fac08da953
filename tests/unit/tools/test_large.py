"""Large results: where they are cut, what is said of the rest, and how they are read on."""

from typing import Any

import msgspec
import pytest

from qlaud_actors.tools.large import cut, page, trimmed
from qlaud_actors.tools.model import ToolOutcome

LIMIT = 1000


@pytest.mark.parametrize("output", ["ä" * LIMIT, {"rows": ["ä" * LIMIT]}])
def test_a_large_output_is_cut_with_a_note(output: Any) -> None:
    """What is too large becomes the beginning of its text, whole characters, and says how much is missing."""
    shown = trimmed(ToolOutcome(output, is_error=True), LIMIT)
    assert shown.is_error
    text, _, note = shown.output.partition("\n… cut here: ")
    whole = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    assert whole.startswith(text)
    assert LIMIT - 2 < len(text.encode()) <= LIMIT
    assert f"of {len(whole.encode())} bytes" in note


@pytest.mark.parametrize("output", [None, 1, "x" * LIMIT, {"a": [1]}, []])
def test_a_small_output_stays_as_it_is(output: Any) -> None:
    """Up to the limit nothing changes, whatever the type."""
    outcome = ToolOutcome(output)
    assert trimmed(outcome, LIMIT) is outcome


@pytest.mark.parametrize(
    ("output", "end"),
    [
        ([{"n": n} for n in range(500)], "},"),
        ("a line of words\n" * 100, "\n"),
        ("one, two and three, " * 100, ","),
        ("word " * 300, " "),
    ],
)
def test_a_cut_hurts_no_item_line_or_word(output: Any, end: str) -> None:
    """A cut is put between items, else lines, else words, in the last quarter of what fits."""
    outcome = cut(ToolOutcome(output), LIMIT, "call_1.0")
    text = outcome.output.partition("\n… cut here: ")[0]
    assert text.endswith(end)
    assert LIMIT * 3 // 4 <= len(text) <= LIMIT
    assert outcome.cut is not None
    assert outcome.cut.next_offset == len(text)


def test_a_text_is_found_in_a_result() -> None:
    """`find` begins a page where a text comes next, with something of what stands before it."""
    text = "x" * 5000 + "needle" + "y" * 5000 + "needle"
    first = page("r", text, {"find": "needle"}, LIMIT)
    assert (first["found_at"], first["offset"]) == (5000, 4800)
    assert "needle" in first["text"]
    second = page("r", text, {"find": "needle", "offset": 5001}, LIMIT)
    assert second["found_at"] == 10_006
    assert second["next_offset"] is None
    nowhere = page("r", text, {"find": "thread"}, LIMIT)
    assert (nowhere["found_at"], nowhere["text"], nowhere["next_offset"]) == (None, "", None)


def test_a_page_of_escapes_stays_within_its_limit() -> None:
    """What JSON spells with more characters makes a page shorter, and an offset behind the end is empty."""
    assert len(msgspec.json.encode(page("r", "\x01" * 5000, {}, LIMIT)["text"])) <= LIMIT
    assert page("r", "short", {"offset": 99}, LIMIT)["text"] == ""
