"""JSON Schemas of wanted output: which of them each vendor takes, and how one is made to fit. Pure.

OpenAI, where a schema is to be kept strictly, wants every property required and no others allowed.
Anthropic wants no others allowed either, takes optional ones, and knows no bounds on values: its own SDK
moves those into the description, where the model reads them (anthropic 2.12, `lib/_parse/_transform.py`).
"""

from typing import Any

import msgspec

_BOUNDS = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "maximum",
        "minLength",
        "minimum",
        "multipleOf",
        "pattern",
        "uniqueItems",
    }
)
_BY_NAME = ("properties", "$defs", "definitions")
_IN_LINE = ("anyOf", "allOf", "oneOf")


def can_be_strict(schema: Any) -> bool:
    """Whether OpenAI takes a schema that is to be kept strictly."""
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        required = schema.get("required") or ()
        if schema.get("additionalProperties") is not False:
            return False
        if any(name not in required for name in schema.get("properties") or ()):
            return False
    inner: list[Any] = [schema.get("items")]
    inner += [part for name in _BY_NAME for part in (schema.get(name) or {}).values()]
    inner += [part for name in _IN_LINE for part in schema.get(name) or ()]
    return all(map(can_be_strict, inner))


def for_anthropic(schema: Any) -> Any:
    """The schema as Anthropic takes it: closed objects, and bounds as words."""
    if not isinstance(schema, dict):
        return schema
    bounds = {name: value for name, value in schema.items() if name in _BOUNDS}
    if isinstance(least := schema.get("minItems"), int) and least > 1:
        bounds["minItems"] = least
    kept = {name: _inside(name, value) for name, value in schema.items() if name not in bounds}
    if schema.get("type") == "object":
        kept.setdefault("additionalProperties", False)
    if bounds:
        said = [str(schema["description"])] if schema.get("description") else []
        kept["description"] = "\n\n".join([*said, msgspec.json.encode(bounds).decode()])
    return kept


def _inside(name: str, value: Any) -> Any:
    if name in _BY_NAME and isinstance(value, dict):
        return {key: for_anthropic(part) for key, part in value.items()}
    if name in _IN_LINE and isinstance(value, list):
        return [for_anthropic(part) for part in value]
    return for_anthropic(value) if name == "items" else value
