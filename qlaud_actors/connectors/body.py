"""Bodies, and values in queries and forms. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote_plus

from qlaud_actors.connectors.model import Lists
from qlaud_actors.connectors.template import text


def merged(under: Any, over: Any) -> Any:
    """Two tables as one, the second's values before the first's; None is no table."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        keys = [*under, *(key for key in over if key not in under)]
        return {key: merged(under.get(key), over.get(key)) for key in keys}
    return under if over is None else over


def placed_under(path: str, body: Any) -> dict[str, Any]:
    """The body wrapped into one table per step of a dotted path."""
    for step in reversed(path.split(".")):
        body = {step: body}
    return dict(body)


def form_pairs(values: Mapping[str, Any], lists: Lists) -> list[tuple[str, str]]:
    """Values as names and texts: tables as `a[b]`, lists as the vendor takes them."""
    return [pair for name, value in values.items() for pair in _pairs(name, value, lists)]


def form_text(pairs: list[tuple[str, str]]) -> str:
    """Names and texts as a query or form; everything escaped but the brackets of our own names."""
    return "&".join(f"{quote_plus(name, safe='[]')}={quote_plus(value)}" for name, value in pairs)


def _pairs(name: str, value: Any, lists: Lists) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # A bracket in a key would name another table than the one that it stands in.
            yield from _pairs(f"{name}[{str(key).replace('[', '(').replace(']', ')')}]", inner, lists)
    elif isinstance(value, list):
        yield from _list_pairs(name, value, lists)
    elif value is not None:
        yield name, text(value)


def _list_pairs(name: str, items: list[Any], lists: Lists) -> Iterator[tuple[str, str]]:
    if lists == "comma":
        yield name, text(items)
        return
    for number, item in enumerate(items):
        spelled = {"repeat": name, "brackets": f"{name}[]", "indexed": f"{name}[{number}]"}[lists]
        yield from _pairs(spelled, item, lists)
