"""A Responses body of any shape is asked of a model or refused; nothing in it breaks the reading."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.ask_responses import ResponsesAsk
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.responses_items import seal
from qlaud_actors.providers.wires import WIRES

CATALOG = Catalog.load({})
PART = {"type": "input_text", "text": "x"}
BODY: dict[str, Any] = {
    "model": "m",
    "instructions": "Be",
    "input": [
        {"role": "system", "content": [PART]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
                {"type": "input_file", "file_data": "data:a/b;base64,QQ==", "filename": "x"},
            ],
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "a"}],
            "encrypted_content": seal({"type": "thinking", "thinking": "x", "signature": "s"}),
        },
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "z"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "extra_content": {}},
        {"type": "function_call_output", "call_id": "c", "output": [PART]},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
    "metadata": {"a": "b"},
    "user": "u",
    "temperature": 0.5,
    "max_output_tokens": 100,
    "models": ["a"],
}
WRONG: tuple[Any, ...] = (None, 5, "", "s", [], {}, ["x"], [{}], {"type": ["x"]}, True)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a body."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, name))


def broken(path: tuple[Any, ...], wrong: Any) -> dict[str, Any]:
    """The body with one thing replaced."""
    body = copy.deepcopy(BODY)
    holder: Any = body
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = wrong
    return body


@pytest.mark.parametrize("slug", ["claude-haiku-4-5", "claude-opus-5", "gpt-5.4-mini", "deepseek-chat"])
def test_no_shape_breaks_it(slug: str) -> None:
    """Anything in the place of anything: the request is said on the model's wire, or refused in words."""
    model = CATALOG.resolve(slug)
    for path in places(BODY):
        for wrong in WRONG:
            with contextlib.suppress(InvalidRequest):
                ask = ResponsesAsk.of(broken(path, wrong))
                quoted = ask.quote(model, 700)
                if ask.passes(model):
                    ask.raw(model, 50)
                else:
                    WIRES[model.provider.wire].encode(quoted.request, model)
                    ask.writer(model)


def test_a_model_passes_where_its_host_has_the_dialect() -> None:
    """A host's surface decides, not its wire."""
    ask = ResponsesAsk.of(BODY)
    assert [ask.passes(CATALOG.resolve(slug)) for slug in ("gpt-5.4-mini", "deepseek-chat")] == [True, False]
