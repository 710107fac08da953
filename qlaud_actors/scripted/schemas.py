"""Which JSON Schemas the vendors take for structured output, and what they say to the others.

Source: the error bodies in public issue threads (agentjido/req_llm 302, BerriAI/litellm 21016 and
ghostlobster/memorize-everything 93 for Anthropic; moeru-ai/xsai 202 and agentscope-ai/agentscope-java
2548 for OpenAI), November 2026.
"""

from collections.abc import Iterator
from typing import Any

_UNSUPPORTED = {
    "array": ("maxItems", "uniqueItems"),
    "integer": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "number": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "string": ("maxLength", "minLength"),
}

Path = tuple[str, ...]


def anthropic_complaint(schema: Any) -> str | None:
    """What Anthropic says of a schema; None when it takes it."""
    for _, part in _parts(schema):
        kind = part.get("type")
        if kind == "object" and part.get("additionalProperties") is not False:
            return "For 'object' type, 'additionalProperties' must be explicitly set to false"
        if names := [name for name in _UNSUPPORTED.get(str(kind), ()) if name in part]:
            named = f"property '{names[0]}' is" if len(names) == 1 else f"properties {', '.join(names)} are"
            return f"For '{kind}' type, {named} not supported"
        if kind == "array" and part.get("minItems", 0) > 1:
            return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


def openai_complaint(schema: Any) -> str | None:
    """What OpenAI says of a schema that is to be kept strictly; None when it takes it."""
    for path, part in _parts(schema):
        if part.get("type") != "object":
            continue
        where = f"In context={path!r}, "
        if part.get("additionalProperties") is not False:
            return f"{where}'additionalProperties' is required to be supplied and to be false."
        missing = [name for name in part.get("properties") or {} if name not in (part.get("required") or ())]
        if missing:
            return (
                f"{where}'required' is required to be supplied and to be an array including every key in"
                f" properties. Missing '{missing[0]}'."
            )
    return None


def _parts(schema: Any, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The schema and every schema inside it, with where each stands."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for group in ("properties", "$defs"):
        for name, inner in (schema.get(group) or {}).items():
            yield from _parts(inner, (*path, group, name))
    yield from _parts(schema.get("items"), (*path, "items"))
    for group in ("anyOf", "allOf", "oneOf"):
        for number, inner in enumerate(schema.get(group) or ()):
            yield from _parts(inner, (*path, group, str(number)))
