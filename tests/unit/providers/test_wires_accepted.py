"""Whatever a thread went through, both vendors' rules accept the request that comes of it.

The rules are those of the scripted model server, which was written from the vendors' own references.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlaud_actors.providers.model import Block, Message, Model, ModelRequest
from qlaud_actors.providers.wires import WIRES
from qlaud_actors.scripted import anthropic_checks, openai_checks
from qlaud_actors.scripted.anthropic_pairs import sign

CHECKS: dict[str, Callable[[Any], None]] = {
    "anthropic": anthropic_checks.check,
    "openai": openai_checks.check,
}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def _block(text: str) -> Block:
    return {"type": "text", "text": text}


words = st.text("aé/ 🏔️", min_size=1, max_size=8).map(lambda text: f"x{text}")
ids = st.sampled_from(["toolu_{}", "call_{}", "functions.get_time:{}", "x" * 60 + "{}"])
tool_names = st.sampled_from(["linear/search", "get_time", "gone/" + "y" * 80])
thoughts = st.builds(
    lambda text, ours: {"type": "thinking", "thinking": text, "signature": sign(text) if ours else ""},
    words,
    st.booleans(),
)
results = st.one_of(words, st.just(""), st.lists(st.one_of(words.map(_block), st.just(IMAGE))))


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Message, ...]:
    """A history: answers that think, say and call; results right behind the calls; a last question."""
    history = [Message("user", draw(words))]
    for number in range(draw(st.integers(0, 3))):
        blocks: list[Block] = draw(st.lists(thoughts, max_size=1))
        calls: list[Block] = [
            {
                "type": "tool_use",
                "id": draw(ids).format(f"{number}_{i}"),
                "name": draw(tool_names),
                "input": {"q": draw(words)},
            }
            for i in range(draw(st.integers(0, 2)))
        ]
        history.append(Message("assistant", [*blocks, _block(draw(words)), *calls]))
        answers: list[Block] = [
            {
                "type": "tool_result",
                "tool_use_id": call["id"],
                "content": draw(results),
                "is_error": draw(st.booleans()),
            }
            for call in calls
        ]
        history.append(Message("user", [*answers, _block(draw(words))]))
    return tuple(history)


@pytest.mark.parametrize("wire", sorted(WIRES))
@given(
    history=rounds(),
    params=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2),
            "tool_choice": st.sampled_from(
                [{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "linear/search"}]
            ),
            "thinking": st.just({"type": "enabled", "budget_tokens": 2000}),
            "stop_sequences": st.just(["END"]),
            "seed": st.just(7),
        },
    ),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=60,
)
def test_accepted(
    wire: str,
    history: tuple[Message, ...],
    params: dict[str, Any],
    ask: Callable[..., ModelRequest],
    model: Callable[..., Model],
) -> None:
    """Histories of any vendor, with strange ids, old tools and images in results, break no rule."""
    if "thinking" in params:  # what the caller may not combine with it is for the caller to avoid
        params = {"thinking": params["thinking"]}
    request = ask(*history, tools=("linear/search", "get_time"), params=params, system="Be brief.")
    CHECKS[wire](WIRES[wire].encode(request, model(wire)).body)
