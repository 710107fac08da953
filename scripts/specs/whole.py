"""Whole operations, for servers that stand in for a vendor: what a request may hold, what is answered.

Other than `openapi.py`, which keeps what our own requests use, nothing here depends on what we send: a
stand-in must refuse what the vendor would refuse.
"""

from typing import Any

from specs.openapi import body_schema, find, schema_of

OPERATIONS: dict[str, tuple[str, ...]] = {
    "github": (
        "GET /user",
        "GET /repos/{owner}/{repo}/issues",
        "POST /repos/{owner}/{repo}/issues",
    ),
    "notion": (
        "GET /v1/users/me",
        "POST /v1/search",
        "POST /v1/pages",
        "PATCH /v1/blocks/{block_id}/children",
    ),
    "stripe": ("GET /v1/account", "GET /v1/customers", "POST /v1/customers"),
    "slack-methods": ("auth.test", "conversations.list", "chat.postMessage"),
}
"""By specification, what the stand-ins answer."""

WORDS = ("description", "title", "summary", "example", "examples", "externalDocs", "discriminator", "xml")
ANSWER_DEPTH = 2
"""Levels of objects that are kept of an answer; what is deeper may be anything."""
SLACK_TYPES = {"string", "boolean", "number", "integer", "array", "object"}


def whole_operations(document: Any, name: str) -> dict[str, Any]:
    """The operations of a specification, each under its own name."""
    wanted = OPERATIONS[name]
    if name == "slack-methods":
        return {method: _slack(document[method]) for method in wanted}
    return {operation: _openapi(document, *operation.split(" ")) for operation in wanted}


def _openapi(document: Any, method: str, path: str) -> dict[str, Any]:
    found = find(document["paths"], method, path)
    assert found is not None, path
    item = found[1]
    operation = item[method.lower()]
    listed = [_resolved(document, p) for p in (*item.get("parameters", ()), *operation.get("parameters", ()))]
    parameters = [
        {
            "name": p["name"],
            "in": p["in"],
            "required": bool(p.get("required")),
            "schema": _plain(document, schema_of(p)),
        }
        for p in listed
    ]
    said: dict[str, Any] = {"parameters": parameters}
    content = _resolved(document, operation.get("requestBody", {})).get("content", {})
    schema = body_schema(lambda node: _resolved(document, node), operation, listed)
    if schema is not None and (plain := _plain(document, schema, closed=True)).get("properties"):
        said |= {"body": plain, "content_type": next(iter(content))}
    return said | _answer(document, operation)


def _answer(document: Any, operation: Any) -> dict[str, Any]:
    """Status, schema and the vendor's own example of the answer when all is well."""
    status = min(code for code in operation["responses"] if code.startswith("2"))
    content = _resolved(document, operation["responses"][status])["content"]["application/json"]
    said = {"status": int(status), "answer": _plain(document, content["schema"], depth=ANSWER_DEPTH)}
    examples = [_resolved(document, example) for example in content.get("examples", {}).values()]
    return said | ({"example": examples[0]["value"]} if examples else {})


def _slack(method: Any) -> dict[str, Any]:
    """A method's arguments as a schema, and the errors that it may answer."""
    arguments = {name: argument for name, argument in method["arguments"].items() if name != "token"}
    body = {
        "type": "object",
        "properties": {name: {"type": _slack_type(a["type"])} for name, a in arguments.items()},
        "required": sorted(name for name, a in arguments.items() if a["required"]),
        "additionalProperties": False,
    }
    return {"body": body, "errors": sorted(method["errors"])}


def _slack_type(kind: Any) -> list[str]:
    """JSON types of an argument; Slack's own kinds (channel, timestamp) are texts."""
    kinds = kind if isinstance(kind, list) else [kind]
    return sorted({one if one in SLACK_TYPES else "string" for one in kinds})


def _resolved(document: Any, node: Any) -> Any:
    while isinstance(node, dict) and isinstance(node.get("$ref"), str):
        reference, node = node["$ref"], document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def _plain(document: Any, node: Any, *, depth: int = 12, closed: bool = False) -> Any:
    """A schema without references, words and extensions, with `nullable` as JSON Schema spells it.

    `closed` refuses fields that an object with known fields does not name.
    """
    node = _resolved(document, node)
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for name, value in node.items():
        if name in WORDS or name == "nullable" or name.startswith("x-"):
            continue
        if name == "properties":
            if depth > 0:
                fields = value.items()
                kept[name] = {k: _plain(document, v, depth=depth - 1, closed=closed) for k, v in fields}
        elif name == "required" and depth <= 0:
            continue
        elif isinstance(value, dict):
            kept[name] = _plain(document, value, depth=depth, closed=closed)
        elif name in ("allOf", "anyOf", "oneOf"):
            kept[name] = [_plain(document, part, depth=depth, closed=closed) for part in value]
        else:
            kept[name] = value
    if closed and kept.get("properties"):
        kept.setdefault("additionalProperties", False)
    return {"anyOf": [kept, {"type": "null"}]} if node.get("nullable") is True else kept
