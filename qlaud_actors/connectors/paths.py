"""Dotted paths into an answer: `user.name`, `items.*.id`, `data.-1.id`. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

DOTTED = re.compile(r"\{([\w.*-]+)\}")

MAX_WORDED = 300
"""Characters."""


def value_at(answer: Any, path: str | None) -> Any:
    """The value there, None when there is none; the whole answer without a path."""
    return next(_walk(answer, path.split(".")), None) if path else answer


def texts_at(answer: Any, path: str) -> list[str]:
    """Every text or number that the path reaches, as text."""
    return [str(found) for found in _walk(answer, path.split(".")) if isinstance(found, str | int | float)]


def first_text(answer: Any, paths: Iterable[str]) -> str | None:
    """The first text that one of the paths reaches."""
    return next((found for path in paths for found in texts_at(answer, path) if found.strip()), None)


def worded(template: str, answer: Any) -> str:
    """A short sentence with `{dotted.paths}` into an answer; what is not there is empty.

    It is kept, shown and told to models: no control characters, which the database would not take either.
    """
    filled = DOTTED.sub(lambda match: first_text(answer, (match[1],)) or "", template)
    printable = "".join(c if c.isprintable() else " " for c in filled.replace("()", ""))
    return " ".join(printable.split())[:MAX_WORDED]


def projected(value: Any, fields: Iterable[str]) -> Any:
    """Only these fields, where they stand; without fields everything. Nulls are left out."""
    tree: dict[str, Any] = {}
    for path in fields:
        node = tree
        for step in path.split("."):
            node = node.setdefault(step, {})
    return _kept(value, tree)


def _walk(value: Any, steps: list[str]) -> Iterator[Any]:
    if not steps:
        if value is not None:
            yield value
        return
    step, rest = steps[0], steps[1:]
    if step == "*":
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from _walk(item, rest)
    elif isinstance(value, dict):
        if step in value:
            yield from _walk(value[step], rest)
    elif isinstance(value, list) and step.lstrip("-").isdecimal() and -len(value) <= int(step) < len(value):
        yield from _walk(value[int(step)], rest)


def _kept(value: Any, tree: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_kept(item, tree.get("*", tree)) for item in value]
    if not isinstance(value, dict):
        return value
    if not tree:
        return {key: _kept(inner, {}) for key, inner in value.items() if inner is not None}
    if "*" in tree:
        return {key: _kept(inner, tree["*"]) for key, inner in value.items() if inner is not None}
    return {key: _kept(value[key], sub) for key, sub in tree.items() if value.get(key) is not None}
