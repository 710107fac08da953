"""A vendor's answer turned into what a model gets: projected, cut to size, without any credential. Pure."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from qlaud_actors.connectors.failure import Failure, failure_of
from qlaud_actors.connectors.model import Action, Connector, Output, Paging
from qlaud_actors.connectors.paths import projected, value_at, worded

HIDDEN = "[hidden]"
NOTE = "_note"
"""Key under which a result says what was cut."""
NEXT_LINK = re.compile(r'<([^>]*)>\s*;([^,]*\brel="?next\b"?[^,]*)')


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave. With a failure, `output` is its message."""

    output: Any
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """One HTTP answer. Header names are in lower case; `now` is in unix seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    now: float


def shaped(
    connector: Connector,
    action: Action,
    arguments: Mapping[str, Any],
    received: Received,
    secrets: Iterable[str] = (),
) -> Answer:
    """The model's view of an answer. `secrets` are the connection's; they are blotted out everywhere."""
    hidden = tuple(secrets)
    failed = not 200 <= received.status < 300
    answer = hide(_decoded(received.body, "json" if failed else action.output.kind), hidden)
    failure = failure_of(connector, received.status, received.headers, answer, received.now)
    if failure:
        failure = _without(failure, hidden)
        return Answer(failure.message, failure)
    if action.output.kind == "none" or answer is None:
        return Answer({"done": True, **_shown_headers(action.output, received, hidden)})
    found = value_at(answer, action.output.at)
    if isinstance(found, list):
        cursor = _next_cursor(connector.pager(action), arguments, received, answer, len(found))
        return Answer(_list_result(action.output, found, hide(cursor, hidden)))
    return Answer(_object_result(action.output, found, _shown_headers(action.output, received, hidden)))


def verdict(
    connector: Connector, received: Received, secrets: Iterable[str] = ()
) -> tuple[str, str] | Failure:
    """Of a verification's answer: `connected as …` and the id of the account, or why not."""
    hidden = tuple(secrets)
    answer = hide(_decoded(received.body, "json"), hidden)
    failure = failure_of(connector, received.status, received.headers, answer, received.now)
    if failure:
        return _without(failure, hidden)
    return worded(connector.verify.connected_as, answer), worded(connector.verify.account_id, answer)


def _decoded(body: bytes, kind: str) -> Any:
    if not body.strip():
        return None
    if kind == "json":
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            pass
    return body.decode("utf-8", "replace")


def _without(failure: Failure, secrets: tuple[str, ...]) -> Failure:
    message, told = (hide(words, secrets) for words in (failure.message, failure.told))
    return replace(failure, message=message, told=told)


def hide(value: Any, secrets: tuple[str, ...]) -> Any:
    """The same without secrets. Before anything is cut, so that no half of one is left."""
    if not secrets:
        return value
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, list):
        return [hide(item, secrets) for item in value]
    if isinstance(value, dict):
        return {hide(key, secrets): hide(item, secrets) for key, item in value.items()}
    return value


def _shown_headers(output: Output, received: Received, hidden: tuple[str, ...]) -> dict[str, str]:
    named = {name: received.headers.get(header.lower()) for name, header in output.headers.items()}
    return {name: hide(value, hidden) for name, value in named.items() if value}


def _next_cursor(
    pager: Paging | None, arguments: Mapping[str, Any], received: Received, answer: Any, count: int
) -> str | None:
    if pager is None:
        return None
    match pager.kind:
        case "link":
            link = NEXT_LINK.search(received.headers.get("link", ""))
            # Sentry always names a next page, and says here that there is nothing on it.
            if link is None or 'results="false"' in link[2]:
                return None
            return _parameter(link[1], pager.param)
        case "cursor":
            more = value_at(answer, pager.more) if pager.more else True
            found = value_at(answer, pager.next) if more else None
            if found is None or isinstance(found, dict | list | bool) or found == "":
                return None
            return _parameter(str(found), pager.param) if pager.param else str(found)
        case _:
            return _counted_cursor(pager, arguments, answer, count)


def _counted_cursor(pager: Paging, arguments: Mapping[str, Any], answer: Any, count: int) -> str | None:
    limit = int(arguments.get("limit") or pager.limit)
    more = bool(value_at(answer, pager.more)) if pager.more else count >= limit
    if not more or count == 0:
        return None
    start = pager.first if pager.kind == "page" else 0
    current = arguments.get("cursor")
    here = int(current) if current is not None and str(current).isdecimal() else start
    return str(here + (1 if pager.kind == "page" else count))


def _parameter(url: str, name: str | None) -> str | None:
    try:
        values = parse_qs(urlsplit(url).query).get(name or "")
    except ValueError:
        return None
    return values[0] if values else None


def _list_result(output: Output, found: list[Any], cursor: str | None) -> dict[str, Any]:
    notes: list[str] = []
    items = [_clipped(item, output.max_text, notes) for item in projected(found, output.fields)]
    fits = _fitting(items, output)
    result: dict[str, Any] = {"items": items[:fits]}
    if fits < len(found):
        # The next cursor would jump over what was left out here.
        notes.append(f"Only the first {fits} of {len(found)} items fit; ask for fewer at once.")
    elif cursor:
        result["next_cursor"] = cursor
    return _noted(result, notes, output)


def _fitting(items: list[Any], output: Output) -> int:
    """How many items fit into the result; one is always given."""
    size = 0
    for number, item in enumerate(items[: output.max_items]):
        size += len(msgspec.json.encode(item)) + 1
        if size > output.max_chars and number:
            return number
    return min(len(items), output.max_items)


def _object_result(output: Output, found: Any, headers: dict[str, str]) -> Any:
    kept = projected(found, output.fields)
    notes: list[str] = []
    if not isinstance(kept, dict):
        limit = output.max_chars if output.kind == "text" else output.max_text
        kept = {"text" if isinstance(kept, str) else "value": kept}
        return _noted({**_clipped(kept, limit, notes), **headers}, notes, output)
    limit = output.max_text
    result = _clipped(kept, limit, notes)
    while len(msgspec.json.encode(result)) > output.max_chars and limit > 50:
        limit = max(50, limit // 2)
        result = _clipped(kept, limit, notes := [], most=max(3, limit // 40))
    if len(encoded := msgspec.json.encode(result)) > output.max_chars:
        # As a text inside JSON it can be twice as long: each quote gets a backslash.
        result, notes = {"text": encoded.decode()[: output.max_chars // 2]}, ["The answer was cut."]
    return _noted({**result, **headers}, notes, output)


def _clipped(value: Any, limit: int, notes: list[str], most: int = 1000) -> Any:
    """The value with every text cut to `limit` characters and every list to `most` items."""
    if isinstance(value, str):
        if len(value) <= limit:
            return value
        notes.append("Long texts were cut.")
        return f"{value[:limit]}… [{len(value)} characters in all]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        if len(value) > most:
            notes.append("Long lists were cut.")
        return [_clipped(item, limit, notes, most) for item in value[:most]]
    if isinstance(value, dict):
        return {key: _clipped(item, limit, notes, most) for key, item in value.items()}
    return value


def _noted(result: dict[str, Any], notes: list[str], output: Output) -> dict[str, Any]:
    if not notes:
        return result
    told = list(dict.fromkeys(notes)) + ([output.rest] if output.rest else [])
    return {**result, NOTE: " ".join(told)}
