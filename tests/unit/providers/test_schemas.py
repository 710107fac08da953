"""Schemas of wanted output are made to fit the vendor that keeps them."""

from typing import Any

import pytest

from qlaud_actors.providers.schemas import can_be_strict, for_anthropic
from qlaud_actors.scripted import schemas as vendors

CITY = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    shape = {"type": "object", "properties": properties, "required": list(properties)}
    return {**shape, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (closed(city=CITY), True),
        (closed(at=closed(city=CITY)), True),
        ({**closed(city=CITY), "required": []}, False),
        ({"type": "object", "properties": {}}, False),
        (closed(at={"anyOf": [{"type": "object"}, {"type": "null"}]}), False),
        (closed(all={"type": "array", "items": {"type": "object"}}), False),
        ({**closed(), "$defs": {"Place": {"type": "object"}}}, False),
        ({"$ref": "#/$defs/Place", "$defs": {"Place": closed(city=CITY)}}, True),
    ],
)
def test_strict_where_it_is_possible(schema: dict[str, Any], strict: bool) -> None:
    """Our judgement is the vendor's: what it refuses to keep strictly is not asked for."""
    assert can_be_strict(schema) is strict
    assert (vendors.openai_complaint(schema) is None) is strict


def test_bounds_become_words() -> None:
    """Objects are closed and bounds described, at every depth; the caller's schema stays as it was."""
    age = {"type": "integer", "minimum": 1, "description": "In years."}
    schema = {
        "type": "object",
        "properties": {
            "minimum": {"type": "string", "maxLength": 9},
            "ages": {"type": "array", "items": age, "minItems": 2},
            "other": {"anyOf": [{"type": "object"}, {"$ref": "#/$defs/Age"}]},
        },
        "$defs": {"Age": age},
    }
    before = repr(schema)
    fitted = for_anthropic(schema)
    assert repr(schema) == before
    assert vendors.anthropic_complaint(schema) is not None
    assert vendors.anthropic_complaint(fitted) is None
    worded = {"type": "integer", "description": 'In years.\n\n{"minimum":1}'}
    assert fitted == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "minimum": {"type": "string", "description": '{"maxLength":9}'},
            "ages": {"type": "array", "items": worded, "description": '{"minItems":2}'},
            "other": {"anyOf": [{"type": "object", "additionalProperties": False}, {"$ref": "#/$defs/Age"}]},
        },
        "$defs": {"Age": worded},
    }
