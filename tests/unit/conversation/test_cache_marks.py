"""Marks stand at ends that stay; four at most; for Claude models only."""

from dataclasses import replace
from typing import Any

from qlaud_actors.conversation.cache_marks import MARK, MOST, marked
from qlaud_actors.conversation.context import HEAD
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Message, ModelRequest, ToolSpec

CATALOG = Catalog.load({})
CLAUDE = CATALOG.resolve("claude-haiku-4-5")
LONG = "word " * 1_000
MINE = {"type": "ephemeral"}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def request(**fields: Any) -> ModelRequest:
    """Two turns and the system prompt, with a summary in front."""
    messages = (
        Message("user", [text(HEAD + "They met."), text("hi")]),
        Message("assistant", [text("hello")]),
        Message("user", "and now?"),
    )
    return replace(ModelRequest("m", messages, 100, system=LONG), **fields)


def marks(asked: ModelRequest) -> list[tuple[int, int]]:
    """Message and block of each mark; -1 is the system prompt."""
    contents = [asked.system, *(message.content for message in asked.messages)]
    return [
        (n - 1, m)
        for n, content in enumerate(contents)
        for m, block in enumerate(content if isinstance(content, list) else [])
        if "cache_control" in block
    ]


def test_marks_stand_behind_what_stays() -> None:
    """Behind the system prompt, the summary, and the turn before the newest."""
    asked = marked(request(), CLAUDE)
    assert marks(asked) == [(-1, 0), (0, 0), (1, 0)]
    assert asked.system == [text(LONG, cache_control=MARK)]
    assert asked.messages[2].content == "and now?"


def test_in_a_loop_of_tools_the_last_results_are_marked() -> None:
    """The next step of the turn begins with them."""
    called = {"type": "tool_use", "id": "a", "name": "t", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": "ok"}
    loop = (*request().messages, Message("assistant", [called]), Message("user", [result]))
    assert marks(marked(request(messages=loop), CLAUDE)) == [(-1, 0), (0, 0), (1, 0), (4, 0)]


def test_the_callers_marks_count_and_old_ones_go() -> None:
    """Four in all; those of earlier turns are over, else a thread would collect too many."""
    messages = (
        Message("user", [text("a", cache_control=MINE)]),
        Message("assistant", "b"),
        Message("user", [text("c", cache_control=MINE), text("d", cache_control=MINE)]),
    )
    tool = ToolSpec("t", "d", {}, {"cache_control": MINE})
    asked = marked(request(messages=messages, tools=(tool,)), CLAUDE)
    assert marks(asked) == [(-1, 0), (2, 0), (2, 1)]
    assert len(marks(asked)) + 1 == MOST
    own = [text(LONG, cache_control=MINE)]
    assert marked(request(system=own), CLAUDE).system == own


def test_a_mark_with_a_life_of_its_own_is_left_alone() -> None:
    """Longer lives must stand before shorter ones: ours would be in the way."""
    messages = (Message("user", [text("a", cache_control={**MINE, "ttl": "1h"})]),)
    assert marks(marked(request(messages=messages), CLAUDE)) == [(0, 0)]


def test_nothing_is_marked_for_others_or_for_little() -> None:
    """Other models get the request as it is; a short one is not kept by any."""
    for slug in ("gpt-5.4-mini", "deepseek-chat"):
        asked = request()
        assert marked(asked, CATALOG.resolve(slug)) is asked
    assert marks(marked(request(system="short"), CLAUDE)) == []


def test_thoughts_and_empty_text_are_never_marked() -> None:
    """The API refuses marks on them."""
    for last in ({"type": "thinking", "thinking": "…", "signature": "s"}, text(" ")):
        messages = (Message("user", "a"), Message("assistant", [text("b"), last]), Message("user", "c"))
        assert marks(marked(request(messages=messages), CLAUDE)) == [(-1, 0)]
