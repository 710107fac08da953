"""Stripe's own description of its objects, where it is at hand (it is too large to ship with the tests)."""

import functools
import gzip
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SPECIFICATION = Path("/work/shared/specs/stripe.json.gz")


def check(name: str, value: dict[str, Any]) -> None:
    """Fail when an object is not as Stripe describes it."""
    if SPECIFICATION.exists():
        _validator(name).validate(value)


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **_document()})


@functools.cache
def _document() -> dict[str, Any]:
    """The schemas, with OpenAPI's `nullable` as JSON Schema spells it."""
    whole = json.loads(gzip.decompress(SPECIFICATION.read_bytes()))
    return {"components": {"schemas": _plain(whole["components"]["schemas"])}}


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {name: _plain(value) for name, value in node.items() if name != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain
