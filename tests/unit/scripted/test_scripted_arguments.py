"""Arguments made from a JSON Schema and what the user said."""

from typing import Any

import jsonschema
import pytest

from qlaud_actors.scripted.arguments import arguments

SAID = "Please ship order A-1042 to Berlin, 3 pieces"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, SAID),
        ({"type": "string", "maxLength": 6}, "Please"),
        ({"type": "string", "enum": ["send", "ship"]}, "ship"),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": ["null", "boolean"]}, False),
        ({"anyOf": [{"type": "array"}, {"type": "null"}]}, []),
        ({"type": "array", "items": {"const": 7}, "minItems": 1}, [7]),
        ({"type": "object", "properties": {"city": {}}, "required": ["city"]}, {"city": "Berlin"}),
        ({"type": "string", "default": "x"}, "x"),
    ],
)
def test_each_required_property_gets_a_value_of_its_type(schema: dict[str, Any], value: object) -> None:
    """The value satisfies the schema."""
    whole = {"type": "object", "properties": {"it": schema, "other": {"type": "string"}}, "required": ["it"]}
    made = arguments(whole, SAID)
    jsonschema.validate(made, whole)
    assert made == {"it": value}


def test_names_hint_at_the_words_that_are_meant() -> None:
    """A place and a number are picked out of the sentence."""
    schema = {
        "properties": {"order_id": {"type": "string"}, "location": {}},
        "required": ["order_id", "location"],
    }
    assert arguments(schema, SAID) == {"order_id": "A-1042", "location": "Berlin"}


def test_with_nothing_required_the_first_string_takes_the_words() -> None:
    """A tool with only optional fields still gets the question."""
    schema = {"properties": {"limit": {"type": "integer"}, "query": {"type": "string"}}}
    assert arguments(schema, "find it") == {"query": "find it"}
    assert arguments({}, "find it") == {}
