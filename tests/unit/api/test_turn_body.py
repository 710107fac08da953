"""The body of a turn: what is accepted, what it means, and how what contradicts itself is refused."""

from typing import Any

import msgspec
import pytest

from api.turn_body import TurnBody, fingerprint, turn_request
from qlaud_actors.conversation.model import DEFAULT_MAX_ITERATIONS, MAX_ITERATIONS, TurnRequest
from qlaud_actors.errors import InvalidRequest

LEAST = {"model": "m", "max_tokens": 100, "content": "hello"}
SCHEMA = {"type": "object"}


def read(**fields: Any) -> TurnRequest:
    return turn_request(msgspec.convert({**LEAST, **fields}, TurnBody, strict=True))


def test_the_least_that_a_turn_needs() -> None:
    """Model, limit, content; the rest has defaults."""
    asked = read()
    assert (asked.model, asked.max_tokens, asked.system) == ("m", 100, None)
    assert (asked.tools, asked.tools_mode, asked.client_tools) == (None, "dynamic", [])
    assert (asked.max_iterations, asked.params) == (DEFAULT_MAX_ITERATIONS, {})


@pytest.mark.parametrize(
    ("fields", "mode", "tools"),
    [
        ({}, "dynamic", None),
        ({"tools": ["tool_a"]}, "explicit", ["tool_a"]),
        ({"tools": []}, "explicit", []),
        ({"tools": None}, "dynamic", None),
        ({"tools_mode": "tenant"}, "tenant", None),
        ({"tools_mode": "dynamic", "tools": []}, "dynamic", None),
        ({"tools_mode": "explicit", "tools": ["tool_a"]}, "explicit", ["tool_a"]),
        ({"tools_mode": "explicit"}, "explicit", None),
    ],
)
def test_the_mode_follows_from_the_tools(fields: dict[str, Any], mode: str, tools: list[str] | None) -> None:
    """`tools` present is explicit, absent is dynamic; a mode that is named is kept (reference 5.1)."""
    asked = read(**fields)
    assert (asked.tools_mode, asked.tools) == (mode, tools)


@pytest.mark.parametrize("mode", ["tenant", "dynamic"])
def test_tools_and_another_mode_contradict(mode: str) -> None:
    """Neither is dropped in silence."""
    with pytest.raises(InvalidRequest, match="tools_mode"):
        read(tools=["tool_a"], tools_mode=mode)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (None, DEFAULT_MAX_ITERATIONS),
        (1, 1),
        (0, 1),
        (-(2**70), 1),
        (MAX_ITERATIONS, MAX_ITERATIONS),
        (MAX_ITERATIONS + 1, MAX_ITERATIONS),
        (2**70, MAX_ITERATIONS),
    ],
)
def test_iterations_are_kept_in_bounds(asked: int | None, used: int) -> None:
    """`qlaud_runtime.max_iterations` counts from 1 to the limit; what lies outside is moved to the edge."""
    assert read(qlaud_runtime={"max_iterations": asked, "bridge_url": "ignored"}).max_iterations == used


def test_model_parameters_are_passed_on_as_they_are() -> None:
    """Only those that were sent."""
    sent = {
        "temperature": 0.5,
        "top_p": 1,
        "top_k": 0,
        "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 99},
        "tool_choice": {"type": "auto"},
        "metadata": {"user_id": "u"},
    }
    asked = read(**sent, service_tier="ignored")
    assert asked.params == sent


def test_client_tools_are_kept() -> None:
    """With an empty description where none was given."""
    tools = [
        {"name": "pick_file", "input_schema": SCHEMA},
        {"name": "a/b", "description": "d", "input_schema": {}},
    ]
    assert read(client_tools=tools).client_tools == [{"description": "", **tools[0]}, tools[1]]


@pytest.mark.parametrize("system", ["", [], None])
def test_an_empty_system_is_none(system: Any) -> None:
    """An empty text is what clients send for nothing."""
    if system == []:
        with pytest.raises(msgspec.ValidationError):
            read(system=system)
        return
    assert read(system=system).system is None


@pytest.mark.parametrize(
    "content",
    [
        "x",
        [{"type": "text", "text": "x"}],
        [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}],
        [{"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}}],
    ],
)
def test_content_may_be_text_or_blocks(content: Any) -> None:
    """Text, image and document blocks."""
    assert read(content=content).model == "m"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"content": [{"type": "tool_result", "tool_use_id": "x"}]}, r"content\[0\]\.type"),
        ({"content": [{"type": "text", "text": "x"}, {}]}, r"content\[1\]\.type"),
        ({"content": [{"type": ["text"]}]}, r"content\[0\]\.type"),
        ({"content": [{"type": {"a": 1}}]}, r"content\[0\]\.type"),
        ({"content": [{"type": "text"}]}, r"content\[0\]\.text"),
        ({"content": [{"type": "text", "text": ""}]}, r"content\[0\]\.text"),
        ({"content": [{"type": "text", "text": 5}]}, r"content\[0\]\.text"),
        ({"content": [{"type": "image"}]}, r"content\[0\]\.source"),
        ({"content": [{"type": "image", "source": "x"}]}, r"content\[0\]\.source"),
        ({"thinking": {"budget_tokens": 100}}, "budget_tokens"),
        ({"thinking": {"budget_tokens": 0}}, "budget_tokens"),
        ({"thinking": {"budget_tokens": True}}, "budget_tokens"),
        ({"thinking": {"budget_tokens": 5.5}}, "budget_tokens"),
        ({"thinking": {"budget_tokens": "5"}}, "budget_tokens"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(fields: dict[str, Any], named: str) -> None:
    """A sentence with the index, before anything is stored."""
    with pytest.raises(InvalidRequest, match=named):
        read(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("model", "x" * 201),
        ("model", None),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_tokens", "100"),
        ("max_tokens", True),
        ("max_tokens", 10_000_001),
        ("content", ""),
        ("content", []),
        ("content", None),
        ("content", ["x"]),
        ("content", [{"type": "text", "text": "x"}] * 1_001),
        ("stream", 1),
        ("system", 5),
        ("tools", "tool_a"),
        ("tools", [1]),
        ("tools", ["x"] * 129),
        ("tools_mode", "all"),
        ("client_tools", [{"name": "x"}]),
        ("client_tools", [{"name": "a b", "input_schema": {}}]),
        ("client_tools", [{"name": "x", "input_schema": []}]),
        ("client_tools", [{"name": "x\n", "input_schema": {}}]),
        ("qlaud_runtime", 5),
        ("qlaud_runtime", {"max_iterations": "8"}),
        ("temperature", 2.1),
        ("top_p", -0.1),
        ("top_k", -1),
        ("stop_sequences", ["x"] * 17),
        ("thinking", "on"),
    ],
)
def test_wrong_types_and_sizes_are_refused(field: str, value: Any) -> None:
    """By the parser, with the field's path; nothing is coerced."""
    with pytest.raises(msgspec.ValidationError, match=field):
        read(**{field: value})


@pytest.mark.parametrize("field", ["model", "max_tokens", "content"])
def test_required_fields_are_required(field: str) -> None:
    """Absent is an error that names the field."""
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({name: value for name, value in LEAST.items() if name != field}, TurnBody)


def test_a_fingerprint_is_of_the_bytes_and_the_place() -> None:
    """Another body or another thread is another request."""
    prints = {fingerprint(b, p) for b, p in [(b"a", "/x"), (b"b", "/x"), (b"a", "/y"), (b"x\na", "/")]}
    assert len(prints) == 4
    assert fingerprint(b"a", "/x") == fingerprint(b"a", "/x")
