"""Arguments for a tool, made from its JSON Schema and what the user said: a demo's guess."""

import re
from typing import Any

_PLACE = re.compile(r"\b(?:in|at|for|near|from|to)\s+([A-Z][\w’'-]*(?:\s+[A-Z][\w’'-]*)*)")
_CODE = re.compile(r"#?([\w-]*\d[\w-]*)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def arguments(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """A value for each required property; for the first string property when none is required."""
    known = schema.get("properties") or {}
    wanted = list(schema.get("required") or [])
    if not wanted:
        wanted = [name for name, part in known.items() if _type(part) == "string"][:1]
    return {name: _value(name, known.get(name) or {}, text) for name in wanted}


def _value(name: str, schema: dict[str, Any], text: str) -> Any:
    if "const" in schema:
        return schema["const"]
    if options := schema.get("enum"):
        return next((option for option in options if str(option).lower() in text.lower()), options[0])
    if "default" in schema:
        return schema["default"]
    return _guess(name, schema, text)


def _guess(name: str, schema: dict[str, Any], text: str) -> Any:
    match _type(schema):
        case "integer" | "number" as kind:
            number = _number(schema, text)
            return int(number) if kind == "integer" else number
        case "boolean":
            return False
        case "array":
            return [_value(name, schema.get("items") or {}, text)] if schema.get("minItems") else []
        case "object":
            return arguments(schema, text)
        case _:
            return _words(name, text)[: schema.get("maxLength") or 500]


def _type(schema: dict[str, Any]) -> str:
    """The schema's own type, or that of its first alternative; a string when it says nothing."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "string")
    for alternatives in (schema.get("anyOf"), schema.get("oneOf")):
        if kind is None and alternatives:
            return _type(alternatives[0])
    return kind or ("object" if "properties" in schema else "string")


def _number(schema: dict[str, Any], text: str) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    found = _NUMBER.search(text)
    value = float(found[0]) if found else float(low if low is not None else 1)
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def _words(name: str, text: str) -> str:
    """The words of `text` that the property seems to ask for, else all of it."""
    plain = name.lower()
    if any(word in plain for word in ("city", "place", "location", "town")) and (
        place := _PLACE.search(text)
    ):
        return place[1]
    if plain.endswith(("id", "number", "code")) and (code := _CODE.search(text)):
        return code[1]
    return text
