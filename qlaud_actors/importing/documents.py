"""JSON documents of a file: one, a list of them, or one on each line."""

from collections.abc import Iterator
from typing import Any

import msgspec

from qlaud_actors.importing.model import FormatError


def documents(raw: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each one is, and the document. Lists within the list are opened. Raises FormatError."""
    try:
        whole = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        yield from _lines(raw, str(error))
    else:
        yield from _flat("the document", whole)


def objects(value: object) -> Iterator[dict[str, Any]]:
    """The objects of a list, or of a list as OpenAI's API answers it (`data`)."""
    listed = value.get("data") if isinstance(value, dict) else value
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, dict):
            yield item


def table(value: dict[str, Any], name: str) -> dict[str, Any]:
    """An object within an object; an empty one for what is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _lines(raw: bytes, problem: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(raw.splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = msgspec.json.decode(line)
        except msgspec.DecodeError:
            words = problem if number == 1 else f"line {number} is not JSON"
            raise FormatError(f"neither one JSON document nor one on each line: {words}") from None
        yield from _flat(f"line {number}", document)


def _flat(where: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield where, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _flat(f"item {number} of {where}", item)
    else:
        raise FormatError(f"{where} is no object")
