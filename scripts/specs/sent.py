"""What an action sends: real requests, built from sample arguments, and read apart again."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from qlaud_actors.connectors.catalog_files import fields_of, settings_of
from qlaud_actors.connectors.inputs import input_schema
from qlaud_actors.connectors.model import Action, Auth, Connector
from qlaud_actors.connectors.request import Access, Request, build
from qlaud_actors.connectors.template import PLACEHOLDER
from qlaud_actors.settings import Secret

TEXTS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T10:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/page",
    "uuid": "8f6b8c1e-6a39-4a6f-9a52-0c5f0a3a7f10",
}


@dataclass(frozen=True)
class Sent:
    """One request. Values of a form are texts; of JSON they have types."""

    query: dict[str, Any]
    body: Any
    typed: bool


def requests(connector: Connector, action: Action) -> list[Sent]:
    """All inputs, the required ones alone, and one request per value of each list of choices."""
    schema = input_schema(connector, action)
    properties, required = schema["properties"], schema.get("required", [])
    everything = {name: sample(prop) for name, prop in properties.items()}
    everything |= {"cursor": "2"} if "cursor" in everything else {}  # fits every kind of paging
    least = list(dict.fromkeys([*required, *everything]))[: max(len(required), action.at_least)]
    variants = [everything, {name: everything[name] for name in least}]
    for name, prop in properties.items():
        variants += [{**everything, name: value} for value in _choices(prop)]
    return [sent(connector, action, arguments) for arguments in variants]


def access(connector: Connector, auth: Auth | None = None) -> Access:
    """A connection made of samples; by the first way of signing in that asks for something."""
    auth = auth or next((auth for auth in connector.auth if auth.oauth2 is None), connector.auth[0])
    fields = {field.name: field for each in connector.auth for field in fields_of(connector, each)}
    settings = dict.fromkeys(settings_of(connector, auth), "sample")
    settings |= {n: f.default or f.example or "sample" for n, f in fields.items() if n in settings}
    secrets = {f.name for f in fields_of(connector, auth) if f.secret}
    secrets |= {"access_token"} if auth.oauth2 else set()
    return Access(auth, settings, {name: Secret("sample-secret") for name in secrets})


def request(connector: Connector, action: Action, arguments: dict[str, Any]) -> Request:
    """The request that would be sent."""
    return build(connector, action, arguments, access(connector), idempotency_key="call_1")


def sent(connector: Connector, action: Action, arguments: dict[str, Any]) -> Sent:
    """The request read apart."""
    built = request(connector, action, arguments)
    query = _nested(parse_qsl(urlsplit(built.url).query, keep_blank_values=True))
    for name in access(connector).auth.query:
        query.pop(name, None)
    raw = built.body
    if raw is None:
        return Sent(query, None, True)
    if "json" in built.headers.get("Content-Type", ""):
        return Sent(query, msgspec.json.decode(raw), True)
    return Sent(query, _nested(parse_qsl(raw.decode(), keep_blank_values=True)), False)


def sample(schema: dict[str, Any]) -> Any:
    """A value that fits a schema."""
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return sample(schema[key][0])
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [sample(schema.get("items", {}))]
        case "object":
            return {name: sample(prop) for name, prop in schema.get("properties", {}).items()}
    return TEXTS.get(str(schema.get("format")), "sample")


def template(path: str) -> str:
    """A path with every placeholder spelled alike, so that two paths can be compared."""
    return re.sub(r"\{[^{}]*\}", "{}", PLACEHOLDER.sub("{}", path)).rstrip("/")


def _choices(schema: dict[str, Any]) -> Iterator[Any]:
    yield from schema.get("enum", ())
    for value in schema.get("items", {}).get("enum", ()) if schema.get("type") == "array" else ():
        yield [value]


def _nested(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """`a[b]=1&c[]=2&c[]=3` as tables and lists."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        steps = [name.split("[")[0], *re.findall(r"\[([^\]]*)\]", name)]
        node = found
        for step, following in itertools.pairwise(steps):
            node = node.setdefault(step, {}) if following else node
        node[steps[-1] or steps[-2]] = value
    return {name: _listed(value) for name, value in found.items()}


def _listed(value: Any) -> Any:
    """Tables whose keys are positions are lists."""
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(item) for name, item in value.items()}
    return list(inner.values()) if inner and all(name.isdecimal() for name in inner) else inner
