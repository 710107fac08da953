"""Limits and counts of a plan: max_tokens, stop sequences, usage while it is played."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.scripted.plan import Block, Counts, Fault, Plan, Progress, fitted
from qlaud_actors.scripted.tokens import cut, size, tokens
from qlaud_actors.scripted.view import Message, Offer, Part, View


def view(**fields: Any) -> View:
    """What the model sees."""
    return View("m", (Message("user", (Part("text", "12345678"),)),), **fields)


def played(plan: Plan, seen: View, count: int | None = None) -> Progress:
    """A plan as far as it was produced."""
    progress = Progress(seen, plan)
    progress.start()
    for piece in list(plan.pieces())[:count]:
        progress.add(piece)
    return progress


@given(text=st.text(max_size=60), limit=st.integers(min_value=1, max_value=12), width=st.integers(1, 9))
def test_an_answer_never_has_more_than_max_tokens(text: str, limit: int, width: int) -> None:
    """Whatever the text and its pieces, what is produced fits and is a beginning of it."""
    pieces = tuple(text[n : n + width] for n in range(0, len(text), width))
    blocks = (Block("text", pieces), Block("tool_use", ('{"a":', "1}"), name="tool"))
    plan = fitted(Plan(blocks, stop_reason="tool_use"), view(max_tokens=limit))
    assert played(plan, view(max_tokens=limit)).usage().output <= limit
    assert tokens(sum(size(block.name) + size(block.text) for block in plan.blocks)) <= limit
    assert all(block.pieces for block in plan.blocks)
    whole = sum(size(block.name) + size(block.text) for block in blocks)
    assert (plan.stop_reason == "max_tokens") == (whole > limit * 4)
    if plan.blocks and plan.blocks[0].kind == "text":
        assert text.startswith(plan.blocks[0].text)


def test_a_cut_tears_no_character() -> None:
    """Four bytes that end inside a character give the whole characters before it."""
    assert cut("aéé€", 4) == "aé"
    assert cut("€", 2) == ""


def test_a_stop_sequence_ends_the_text_before_itself() -> None:
    """The earliest sequence wins, and calls after it never happen."""
    blocks = (Block("text", ("one ", "STOP ", "END")), Block("tool_use", ("{}",), name="t"))
    plan = fitted(Plan(blocks, stop_reason="tool_use"), view(stop_sequences=("END", "STOP")))
    assert [block.text for block in plan.blocks] == ["one "]
    assert (plan.stop_reason, plan.stop_sequence) == ("stop_sequence", "STOP")


def test_input_counts_everything_that_was_sent() -> None:
    """System, texts, calls, results and tools are counted together and rounded up once."""
    parts = (Part("tool_use", '{"a":1}', name="get", id="x"), Part("tool_result", "ab", id="x"))
    seen = View("m", (Message("user", parts),), system="sys", tools=(Offer("t", "", {}),), tools_size=10)
    assert seen.input_tokens == tokens(7 + 3 + 2 + 3 + 10)


def test_usage_grows_with_what_was_produced() -> None:
    """A client that leaves half-way is billed half of it."""
    plan = Plan((Block("thinking", ("12345678",)), Block("text", ("abcd", "efgh"))))
    half = played(plan, view(), 2).usage()
    assert (half.input, half.output, half.thinking) == (2, 3, 2)
    assert played(plan, view()).usage().output == 4
    assert Progress(view(), plan).usage().output == 0


def test_counts_of_a_script_replace_the_counted_ones() -> None:
    """Buckets are disjoint, the output is reached in proportion and stays under max_tokens."""
    counts = Counts(output=100, cache_read=1)
    plan = Plan((Block("text", ("abcd", "efgh")),), counts=counts)
    usage = played(plan, view(), 1).usage()
    assert (usage.input, usage.cache_read, usage.output) == (1, 1, 50)
    assert played(plan, view(max_tokens=60)).usage().output == 60
    assert played(plan, view(copies=3)).usage().output == 300


@pytest.mark.parametrize(("only", "met"), [(None, True), ("m", True), ("wxyz", True), ("other", False)])
def test_a_fault_may_be_one_vendors_own(only: str | None, *, met: bool) -> None:
    """It concerns a model, or whoever is asked with a key that ends so."""
    assert Fault(status=500, only=only).concerns("m", "sk-wxyz") == met


@pytest.mark.parametrize(("times", "seen", "fails"), [(None, 9, True), (2, 1, True), (2, 2, False)])
def test_a_fault_with_times_is_used_up(times: int | None, seen: int, *, fails: bool) -> None:
    """Without `times` it happens always, with it only to the first ones."""
    fault = Fault(status=500, times=times).at(seen)
    assert (fault.status == 500) == fails
