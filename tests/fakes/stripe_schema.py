"""Stripe's own description of its objects and requests, as far as the double uses it.

The whole specification is too large to ship: `tests/data/stripe.json` is what `extract` takes of it.
Run this file to write it anew. What is newer than that specification (billing meters) is checked against
the typed parameters of the official library.
"""

import functools
import gzip
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from stripe import RequestOptions
from stripe.billing import MeterEvent
from stripe.params.billing import MeterEventCreateParams

ROOT = Path(__file__).parents[2]
EXTRACT = ROOT / "tests/data/stripe.json"
OBJECTS = ("checkout.session", "payment_intent", "charge", "event", "refund", "dispute", "error")
FORMS = ("/v1/checkout/sessions", "/v1/payment_intents")
SAID = ("description", "title")


def specification() -> Path | None:
    """The vendor's whole document, where it lies beside the project."""
    places = (parent / "shared/specs/stripe.json.gz" for parent in ROOT.parents)
    return next((place for place in places if place.exists()), None)


def extract(whole: dict[str, Any]) -> dict[str, Any]:
    """The schemas of our objects with those that they name; deeper ones are only said to be objects."""
    schemas = whole["components"]["schemas"]
    named = {name for kept in OBJECTS for name in _references(schemas[kept])}
    kept = sorted({*OBJECTS, *named})
    forms = {path: whole["paths"][path]["post"]["requestBody"]["content"] for path in FORMS}
    query = {p["name"]: p["schema"] for p in whole["paths"]["/v1/payment_intents"]["get"]["parameters"]}
    return {
        "schemas": {name: _plain(schemas[name], kept) for name in kept},
        "forms": {
            **{
                path: _plain(content["application/x-www-form-urlencoded"]["schema"], [])
                for path, content in forms.items()
            },
            "GET /v1/payment_intents": {
                "type": "object",
                "properties": _plain(query, []),
                "additionalProperties": False,
            },
        },
    }


def check(name: str, value: dict[str, Any]) -> None:
    """Fail when an object is not as Stripe describes it."""
    _validator("schemas", name).validate(value)


def read_form(name: str, form: dict[str, str]) -> dict[str, Any]:
    """A request's fields as Stripe types them; fail when it has one that Stripe does not know."""
    schema = _document()["forms"][name]
    fields: dict[str, Any] = typed(unflatten(form), schema)
    _validator("forms", name).validate(fields)
    return fields


def read_meter_event(form: dict[str, str]) -> dict[str, Any]:
    """As `read_form`, for the library's own description of a meter event."""
    fields = unflatten(form)
    assert set(fields) >= MeterEventCreateParams.__required_keys__
    assert set(fields) <= set(MeterEventCreateParams.__annotations__) - set(RequestOptions.__annotations__)
    assert all(isinstance(value, str) for value in fields["payload"].values())
    return fields


def check_meter_event(answer: dict[str, Any]) -> None:
    """Fail when a meter event has not just the fields that the library declares."""
    assert set(answer) == {name for name in MeterEvent.__annotations__ if name.islower()}


def unflatten(form: dict[str, str]) -> dict[str, Any]:
    """`a[b][0]=c` as nested objects; lists stay objects with numbers for names."""
    nested: dict[str, Any] = {}
    for name, value in form.items():
        first, *rest = name.replace("]", "").split("[")
        at = nested
        for here, following in zip([first, *rest], rest, strict=False):
            at = at.setdefault(here, {})
            assert isinstance(at, dict), following
        at[(rest or [first])[-1]] = value
    return nested


def typed(value: Any, schema: dict[str, Any]) -> Any:
    """Text as the type that the schema wants of it."""
    schema = next((option for option in schema.get("anyOf", ()) if _fits(value, option)), schema)
    kind = schema.get("type")
    if kind == "array":
        return [typed(item, schema["items"]) for _, item in sorted(value.items())]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return {name: typed(item, known.get(name, {})) for name, item in value.items()}
    if kind == "integer":
        return int(value)
    return {"true": True, "false": False}[value] if kind == "boolean" else value


def _fits(value: Any, option: dict[str, Any]) -> bool:
    """Whether this alternative of a schema is the one that a text means."""
    if isinstance(value, dict):
        return option.get("type") in ("object", "array")
    return {"boolean": value in ("true", "false"), "integer": value.isdigit()}.get(
        option.get("type", ""), option.get("type") == "string"
    )


@functools.cache
def _validator(part: str, name: str) -> Draft202012Validator:
    where = name.replace("~", "~0").replace("/", "~1").replace(" ", "%20")
    document = _document()
    return Draft202012Validator(
        {"$ref": f"#/{part}/{where}", **document, "components": {"schemas": document["schemas"]}}
    )


@functools.cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(EXTRACT.read_text())
    return document


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"].rpartition("/")[2]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*(_references(value) for name, value in node.items() if name[:2] != "x-"))


def _plain(node: Any, kept: list[str]) -> Any:
    """Without words and extensions, and with OpenAPI's `nullable` as JSON Schema spells it."""
    if isinstance(node, list):
        return [_plain(item, kept) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str) and node["$ref"].rpartition("/")[2] not in kept:
        return {"type": "object"}
    plain = {
        name: _plain(value, kept)
        for name, value in node.items()
        if name != "nullable" and name[:2] != "x-" and not (name in SAID and isinstance(value, str))
    }
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain


def read_specification(path: Path) -> dict[str, Any]:
    """The vendor's whole document."""
    whole: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return whole


def write_extract() -> None:
    """Write the extract anew, a schema per line."""
    found = specification()
    assert found is not None
    lines = []
    for part, entries in extract(read_specification(found)).items():
        rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        lines.append(f"{json.dumps(part)}: {{\n{rows}\n}}")
    EXTRACT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write_extract()
