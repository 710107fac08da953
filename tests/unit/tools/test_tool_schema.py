"""What a tool's definition may be, and what is said of an input that does not fit."""

from typing import Any

import pytest

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.tools.meta import META_TOOLS
from qlaud_actors.tools.schema import (
    MAX_DESCRIPTION,
    MAX_PROBLEMS,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    check_definition,
    check_schema,
    problems,
)

QUERY = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}


def nested(depth: int) -> dict[str, Any]:
    """A schema of `depth` levels."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth - 1):
        schema = {"type": "object", "not_a_keyword": schema}
    return schema


@pytest.mark.parametrize("name", ["web_search", "linear/create_issue", "v1.get-user", "x" * 128])
def test_a_plain_name_is_allowed(name: str) -> None:
    """Names may have slashes, dots and dashes, up to 128 characters."""
    check_definition(name, "Does it.", QUERY)


@pytest.mark.parametrize(
    "name",
    ["", "with space", "büro", "line\n", "a\x00", "x" * 129, "qlaud_x", "qlaud-builtin/x", "qlaud-mcp/x"],
)
def test_other_names_are_refused(name: str) -> None:
    """Odd characters, also a newline at the end, and reserved beginnings are refused."""
    with pytest.raises(InvalidRequest, match="`name`"):
        check_definition(name, "Does it.", QUERY)


@pytest.mark.parametrize("description", ["", "x" * (MAX_DESCRIPTION + 1)])
def test_a_description_is_needed_and_bounded(description: str) -> None:
    """An empty description and one that is too long are refused."""
    with pytest.raises(InvalidRequest, match="`description`"):
        check_definition("tool", description, QUERY)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": ["object", "null"]},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/a.json"}}},
        {"type": "object", "properties": {"a": {"$dynamicRef": "other.json#a"}}},
        {"type": "object", "properties": {"a": [{"$ref": "file:///etc/passwd"}]}},
        {"type": "object", "description": "x" * MAX_SCHEMA_BYTES},
        nested(MAX_SCHEMA_DEPTH + 1),
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_a_schema_that_is_no_whole_schema_of_an_object_is_refused(schema: dict[str, Any]) -> None:
    """Other types, malformed keywords, references elsewhere, and too much size or depth are refused."""
    with pytest.raises(InvalidRequest, match="input_schema"):
        check_schema(schema)


def test_limits_and_local_references_are_allowed() -> None:
    """The deepest allowed schema passes, and so do references into the schema itself."""
    check_schema(nested(MAX_SCHEMA_DEPTH))
    schema = {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/address"}, "$ref": {"type": "string"}},
        "$defs": {"address": {"type": "string"}},
    }
    check_schema(schema)
    assert problems(schema, {"to": "a@example.com"}) == []
    assert len(problems(schema, {"to": 1})) == 1


def test_problems_say_where_and_are_few() -> None:
    """A fitting input has none; others are told by path, five at most, without long quotations."""
    assert problems(QUERY, {"query": "x"}) == []
    assert "query" in problems(QUERY, {})[0]
    deep = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
    found = problems(deep, {"a": [1, "x" * 5000, *("y" * 9)]})
    assert len(found) == MAX_PROBLEMS
    assert "a[1]" in found[0]
    assert len(found[0]) < 400


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "$ref": "#"},
        {"type": "object", "$ref": "#/$defs/missing"},
        {"type": "object", "$id": "http://127.0.0.1:9/x", "$ref": "#missing"},
    ],
)
def test_a_schema_that_cannot_be_applied_is_a_problem_and_no_crash(schema: dict[str, Any]) -> None:
    """References to nowhere or in a circle are told to the model; nothing is fetched for them."""
    assert len(problems(schema, {})) == 1


def test_nobodys_regular_expression_holds_up_the_process() -> None:
    """A pattern with catastrophic backtracking costs nothing."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    check_schema(schema)
    assert problems(schema, {"a": "a" * 64 + "b"}) == []


def test_a_check_ends_after_bounded_work() -> None:
    """References that double at every level end in a problem, not in a million checks."""
    levels = {f"n{n}": {"allOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(30)}
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n0"}}, "$defs": {**levels, "n30": {}}}
    assert len(problems(schema, {"a": 1})) == 1


@pytest.mark.parametrize("tool", META_TOOLS, ids=lambda tool: tool.name)
def test_our_own_schemas_keep_the_rules(tool: Any) -> None:
    """The meta-tools' schemas pass the check that everybody's do: models refuse what it refuses."""
    check_schema(tool.input_schema)
