"""The one grammar of placeholders: `{name}` or `{name:filter}`, in paths, queries, headers and bodies.

A text that is one placeholder becomes the value itself, of its own type. Within more text it becomes
text. What names a value that is not there is left out, and so is an inner table or list none of whose
values are there, with its constants.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from qlaud_actors.connectors.filters import FILTERS

PLACEHOLDER = re.compile(r"\{(\*|[a-z][a-z0-9_]*)(?::([a-z][a-z0-9_]*))?\}")
Template: TypeAlias = str | int | float | bool
ABSENT: Any = object()
SPREAD = "..."
"""Key of a table in a body that takes in a table of the model's."""


def names(template: Any) -> Iterator[tuple[str, str | None]]:
    """Every placeholder's name and filter, at any depth."""
    if isinstance(template, str):
        for match in PLACEHOLDER.finditer(template):
            yield match[1], match[2]
    elif isinstance(template, Mapping):
        for value in template.values():
            yield from names(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from names(value)


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its placeholders replaced; ABSENT when nothing of it is left."""
    if isinstance(template, Mapping):
        filled = _kept({key: _fill_inner(value, values) for key, value in template.items()})
        return ABSENT if template and not filled else filled
    return _fill_inner(template, values)


def _fill_inner(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, str):
        return _fill_text(template, values)
    if isinstance(template, Mapping):
        pairs = {key: _fill_inner(value, values) for key, value in template.items()}
        asked = [pairs[key] for key, value in template.items() if any(names(value))]
        # Constants beside values that are all left out would say something of their own.
        return ABSENT if asked and all(value is ABSENT for value in asked) else _kept(pairs)
    if isinstance(template, list | tuple):
        items = [item for item in (_fill_inner(value, values) for value in template) if item is not ABSENT]
        return ABSENT if template and not items else items
    return template


def _kept(filled: dict[str, Any]) -> dict[str, Any]:
    """What is there; the table under SPREAD is taken in, and does not replace what the file names."""
    more = filled.pop(SPREAD, ABSENT)
    kept = {key: value for key, value in filled.items() if value is not ABSENT}
    return {**more, **kept} if isinstance(more, Mapping) else kept


def fill_text(template: str, values: Mapping[str, Any], spell: Callable[[str], str] = str) -> str | None:
    """The template as text, each value spelled by `spell`; None when a value is not there."""
    missing = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal missing
        value = _value(match, values)
        missing = missing or value is ABSENT
        return "" if value is ABSENT else spell(text(value))

    result = PLACEHOLDER.sub(replaced, template)
    return None if missing else result


def text(value: Any) -> str:
    """A value in a path, query or header: booleans as `true` and `false`, lists joined by commas."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(text(item) for item in value)
    return str(value)


def _fill_text(template: str, values: Mapping[str, Any]) -> Any:
    if whole := PLACEHOLDER.fullmatch(template):
        return _value(whole, values)
    filled = fill_text(template, values)
    return ABSENT if filled is None else filled


def _value(match: re.Match[str], values: Mapping[str, Any]) -> Any:
    value = dict(values) if match[1] == "*" else values.get(match[1], ABSENT)
    if value is None:
        value = ABSENT
    return value if value is ABSENT or match[2] is None else FILTERS[match[2]](value)
