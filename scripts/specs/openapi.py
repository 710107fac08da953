"""Operations of OpenAPI, Swagger and Slack documents, cut down to what is sent, and the check against it."""

from collections.abc import Callable, Iterator
from typing import Any

from specs.sent import Sent, template

Node = dict[str, Any]
"""What a specification says of one value: types, enum, required, properties, items, open."""

Resolve = Callable[[Any], Any]
MAX_VARIANTS = 60
JSON_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def find(paths: Any, method: str, path: str) -> tuple[str, Any] | None:
    """The specification's own path and operation for ours."""
    ours = template(path)
    for theirs, item in paths.items():
        if method.lower() in item and template(theirs) == ours:
            return theirs, item
    for theirs, item in paths.items():  # a constant of ours where theirs has a parameter
        steps = zip(ours.split("/"), template(theirs).split("/"), strict=False)
        same = ours.count("/") == template(theirs).count("/") and all(b in (a, "{}") for a, b in steps)
        if method.lower() in item and same:
            return theirs, item
    return None


def operation_node(document: Any, item: Any, method: str, requests: list[Sent]) -> Node:
    """What an operation says of what these requests send, and what it requires."""

    def resolve(node: Any) -> Any:
        while isinstance(node, dict) and isinstance(node.get("$ref"), str):
            reference, node = node["$ref"], document
            for part in reference.removeprefix("#/").split("/"):
                step = part.replace("~1", "/").replace("~0", "~").replace("%7B", "{").replace("%7D", "}")
                node = node[int(step)] if isinstance(node, list) else node[step]
        return node

    operation = item[method.lower()]
    parameters = [resolve(p) for p in (*item.get("parameters", ()), *operation.get("parameters", ()))]
    queries = {p["name"]: p for p in parameters if p.get("in") == "query"}
    query: Node = {"properties": {}, "required": sorted(n for n, p in queries.items() if p.get("required"))}
    wanted = {name for request in requests for name in request.query} | set(query["required"])
    for name, parameter in queries.items():
        plain = name.split("[")[0]
        if plain in wanted:
            query["properties"][plain] = node(resolve, [schema_of(parameter)], _values(requests, plain))
    result: Node = {"query": query}
    if (schema := body_schema(resolve, operation, parameters)) is not None:
        result["body"] = node(resolve, [schema], [r.body for r in requests if r.body is not None])
    return result


def slack_node(method: Any, requests: list[Sent]) -> Node:
    """A method of Slack's: its arguments, wherever they are sent."""
    arguments = method["arguments"]
    wanted = {name for r in requests for name in {**r.query, **(r.body or {})}}
    wanted |= {name for name, argument in arguments.items() if argument["required"]}
    required = sorted(n for n, argument in arguments.items() if argument["required"] and n != "token")
    known = {name: {} for name in arguments if name in wanted and name != "token"}
    return {"arguments": {"properties": known, "required": required}}


def node(resolve: Resolve, schemas: list[Any], values: list[Any]) -> Node:
    """What schemas say of a place where these values are sent."""
    variants = [variant for schema in schemas for variant in _variants(resolve, schema)][:MAX_VARIANTS]
    said: Node = {}
    types = {kind for v in variants for kind in _types(v)}
    if types and all(_types(v) for v in variants):
        said["types"] = sorted(types)
    enums = [v["enum"] for v in variants if v.get("enum")]
    if enums and all(v.get("enum") or _types(v) == ["null"] for v in variants):
        said["enum"] = list(dict.fromkeys(x for enum in enums for x in enum))
    inner = [value for value in values if isinstance(value, dict)]
    if inner:
        _describe_object(said, resolve, variants, inner)
    items = [v["items"] for v in variants if isinstance(v.get("items"), dict)]
    elements = [e for value in values if isinstance(value, list) for e in value]
    if items and elements:
        said["items"] = node(resolve, items, elements)
    return said


def problems(said: Node, requests: list[Sent]) -> list[str]:
    """Where these requests do not fit what was extracted."""
    found: list[str] = []
    for request in requests:
        if "arguments" in said:
            found += _check(said["arguments"], {**request.query, **(request.body or {})}, "", typed=False)
            continue
        found += _check(said["query"], request.query, "query.", typed=False)
        if "body" in said:
            body = {} if request.body is None else request.body
            found += _check(said["body"], body, "body.", typed=request.typed)
        elif request.body:
            found.append("a body is sent, and the operation has none")
    return list(dict.fromkeys(found))


def _check(said: Node, value: Any, where: str, *, typed: bool) -> Iterator[str]:
    place = where.rstrip(".")
    if typed and "types" in said and not _fits(value, said["types"]):
        yield f"{place} is {type(value).__name__}, the specification says {' or '.join(said['types'])}"
    elif isinstance(value, dict):
        yield from _check_table(said, value, where, typed=typed)
    elif isinstance(value, list):
        for element in value:
            yield from _check(said.get("items", {}), element, f"{place}[].", typed=typed)
    elif "enum" in said:
        chosen = value.split(",") if isinstance(value, str) and not typed else [value]
        if any(str(v) not in map(str, said["enum"]) for v in chosen):
            allowed = ", ".join(map(str, said["enum"]))
            yield f"{place} is {value!r}, the specification allows {allowed}"


def _check_table(said: Node, value: dict[str, Any], where: str, *, typed: bool) -> Iterator[str]:
    for name in said.get("required", ()):
        if name not in value:
            yield f"{where}{name} is required and not sent"
    for name, inner in value.items():
        known = said.get("properties", {}).get(name)
        if known is not None:
            yield from _check(known, inner, f"{where}{name}.", typed=typed)
        elif not said.get("open") and "properties" in said:
            yield f"{where}{name} is not in the specification"


def _fits(value: Any, types: list[str]) -> bool:
    kind = JSON_TYPES.get(type(value), "null")
    return kind in types or (kind == "integer" and "number" in types)


def _describe_object(said: Node, resolve: Resolve, variants: list[Any], values: list[Any]) -> None:
    tables = [v for v in variants if not _types(v) or "object" in _types(v)]
    required = [set(v.get("required", ())) for v in tables]
    said["required"] = sorted(set.intersection(*required)) if required else []
    known: Node = {}
    for name in sorted({key for value in values for key in value} | set(said["required"])):
        schemas = [v["properties"][name] for v in tables if name in v.get("properties", {})]
        if schemas:
            known[name] = node(resolve, schemas, [v[name] for v in values if name in v])
    said["properties"] = known
    if any(v.get("additionalProperties") or not v.get("properties") for v in tables):
        said["open"] = True


def _variants(resolve: Resolve, schema: Any, depth: int = 0) -> list[Any]:
    """The schema's alternatives, each with what it is composed of taken in."""
    schema = resolve(schema)
    if not isinstance(schema, dict) or depth > 6:
        return [{}]
    own = {k: v for k, v in schema.items() if k not in ("allOf", "oneOf", "anyOf")}
    variants = [own]
    for part in schema.get("allOf", ()):
        variants = [_joined(a, b) for a in variants for b in _variants(resolve, part, depth + 1)]
    alternatives = [v for key in ("oneOf", "anyOf") for part in schema.get(key, ())
                    for v in _variants(resolve, part, depth + 1)]  # fmt: skip
    if alternatives:
        variants = [_joined(a, b) for a in variants for b in alternatives]
    return variants[:MAX_VARIANTS]


def _joined(first: Any, second: Any) -> Any:
    joined = {**first, **second}
    joined["properties"] = {**first.get("properties", {}), **second.get("properties", {})}
    joined["required"] = [*first.get("required", ()), *second.get("required", ())]
    return joined


def _types(schema: Any) -> list[str]:
    kind = schema.get("type")
    types = list(kind) if isinstance(kind, list) else [kind] if kind else []
    if not types and schema.get("properties"):
        types = ["object"]
    return [*types, "null"] if types and schema.get("nullable") else types


def schema_of(parameter: Any) -> Any:
    """The schema of a parameter, which Swagger 2 writes into the parameter itself."""
    return parameter.get("schema", {k: v for k, v in parameter.items() if k in ("type", "enum", "items")})


def _values(requests: list[Sent], name: str) -> list[Any]:
    return [request.query[name] for request in requests if name in request.query]


def body_schema(resolve: Resolve, operation: Any, parameters: list[Any]) -> Any:
    """The schema of an operation's body, however its version of OpenAPI says it; None when it has none."""
    if "requestBody" in operation:
        content = resolve(operation["requestBody"]).get("content", {})
        for kind in ("application/json", "application/x-www-form-urlencoded", *content):
            if kind in content:
                return content[kind].get("schema", {})
    if whole := next((p for p in parameters if p.get("in") == "body"), None):
        return whole.get("schema", {})
    form = {p["name"]: schema_of(p) for p in parameters if p.get("in") == "formData"}
    required = [p["name"] for p in parameters if p.get("in") == "formData" and p.get("required")]
    return {"type": "object", "properties": form, "required": required} if form else None
