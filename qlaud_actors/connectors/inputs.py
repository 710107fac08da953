"""The JSON Schema of an action's input, as models see it."""

from typing import Any

from qlaud_actors.connectors.model import Action, Connector
from qlaud_actors.connectors.template import names

MAX_LENGTH = 10_000
MAX_ITEMS = 100
CURSOR = "The `next_cursor` of the previous answer, to go on from there."


def input_schema(connector: Connector, action: Action) -> dict[str, Any]:
    """Whole in itself: shared inputs taken in, every text and list bounded, nothing else allowed."""
    properties = {name: connector.inputs[name] for name in action.uses}
    properties |= action.input
    if pager := connector.pager(action):
        limit = {"type": "integer", "minimum": 1, "maximum": pager.max, "default": pager.limit}
        if "limit" in {name for name, _ in names([pager.query, pager.body])}:
            properties["limit"] = {**limit, "description": "How many at most."}
        properties["cursor"] = {"type": "string", "description": CURSOR}
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {name: bounded(definition) for name, definition in properties.items()}
    if action.required:
        schema["required"] = list(action.required)
    if action.at_least:
        schema["minProperties"] = action.at_least
    return {**schema, "additionalProperties": False}


def defaults(connector: Connector, action: Action) -> dict[str, Any]:
    """What is sent for inputs that the model leaves out."""
    properties = input_schema(connector, action)["properties"]
    return {name: prop["default"] for name, prop in properties.items() if "default" in prop}


def bounded(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with a limit on every text and list that states none."""
    result = dict(definition)
    kinds = definition.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "string" in kinds and not {"enum", "const", "maxLength"} & definition.keys():
        result["maxLength"] = MAX_LENGTH
    if "array" in kinds:
        result.setdefault("maxItems", MAX_ITEMS)
        if isinstance(definition.get("items"), dict):
            result["items"] = bounded(definition["items"])
    if isinstance(definition.get("properties"), dict):
        result["properties"] = {name: bounded(prop) for name, prop in definition["properties"].items()}
    return result
