"""Request bodies and parameters: parsed and checked once, at the edge, into plain types.

Everything wrong with a request is an InvalidRequest that names the field.
"""

import re
import uuid
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from qlaud_actors.connectors.connection import OF_KEY
from qlaud_actors.errors import InvalidRequest, NotFound, PayloadTooLarge
from qlaud_actors.ids import parse_uuid
from qlaud_actors.money import usd_to_nanos
from qlaud_actors.outbound.guard import ForbiddenURL, check_url

T = TypeVar("T")

MAX_DEPTH = 64
MAX_IDEMPOTENCY_KEY = 255
MAX_END_USER = 512
NUL = "\x00"

MAX_BRACKETS = 1_000_000

# Unrolled and possessive: a string of many megabytes, escapes and all, takes a tenth of a second.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")


async def read_json(request: web.Request, kind: type[T], *, allow_empty: bool = False) -> T:
    """The body as a `kind`. Unknown fields are ignored, as the vendors' servers do.

    Raises InvalidRequest, PayloadTooLarge.
    """
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise PayloadTooLarge(error.text) from None
    except (web.RequestPayloadError, ConnectionResetError):
        raise InvalidRequest("The body broke off, or is not encoded as its headers say.") from None
    if allow_empty and not raw.strip():
        raw = b"{}"
    check_depth(raw)
    try:
        raw.decode()  # the parser does not look at the text of fields that it skips
        return msgspec.json.decode(raw, type=kind, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_in_words(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from None


async def read_at_most(request: web.Request, limit: int) -> bytes:
    """The body, where no key has been seen yet. Raises PayloadTooLarge as soon as it is."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise PayloadTooLarge
    return bytes(body)


def check_depth(raw: bytes) -> None:
    """Refuse JSON that is nested too deep for those who will walk it."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return  # whatever is opened where: it cannot be deeper than that
    brackets = _STRINGS.sub(b"", raw).translate(None, _NO_BRACKETS)
    if len(brackets) > MAX_BRACKETS:
        raise InvalidRequest("The body has too many objects and lists.")
    depth = 0
    for byte in brackets:
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")


def no_nul(name: str, value: Any) -> None:
    """Refuse NUL characters, which Postgres text cannot hold."""
    if _has_nul(value):
        raise InvalidRequest(f"`{name}` must not contain NUL characters.")


def usd_nanos(name: str, written: msgspec.Raw) -> int | None:
    """Nano-USD of a JSON number in dollars, as it was written; None for `null`."""
    text = bytes(written)
    if text == b"null":
        return None
    if not text[:1].isdigit() and not text.startswith(b"-"):
        raise InvalidRequest(f"`{name}` must be a number or null.")
    try:
        return usd_to_nanos(text.decode())
    except ValueError as error:
        raise InvalidRequest(f"`{name}`: {error}.") from None


def idempotency_key(request: web.Request) -> str | None:
    """What makes a request safe to send again, if the caller gave it. Raises InvalidRequest."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters."
        )
    return key


def webhook_url(name: str, url: str, *, allow_private: bool) -> str:
    """A URL that may be called from here; names are resolved and checked again on every call."""
    try:
        check_url(url, allow_private=allow_private)
    except ForbiddenURL as error:
        raise InvalidRequest(f"`{name}` {error}.") from None
    return url


def path_uuid(request: web.Request, name: str) -> uuid.UUID:
    """An id of the path; one that is not a UUID names nothing. Raises NotFound."""
    value = parse_uuid(request.match_info[name])
    if value is None:
        raise NotFound
    return value


def check_end_user(end_user_id: str | None) -> None:
    """Raises InvalidRequest for the name under which a key keeps its own connections."""
    if end_user_id is not None and end_user_id.startswith(OF_KEY):
        raise InvalidRequest(f"`end_user_id` must not begin with `{OF_KEY}`.")


def path_end_user(request: web.Request) -> str:
    """The id of an end user in the path: the caller's own name for someone. Raises InvalidRequest."""
    end_user_id = request.match_info["end_user_id"]
    if len(end_user_id) > MAX_END_USER:
        raise InvalidRequest(f"An end user id has at most {MAX_END_USER} characters.")
    no_nul("end_user_id", end_user_id)
    return end_user_id


def query_int(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number of the query."""
    text = request.query.get(name)
    if text is None or text == "":
        return default
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII) or not low <= int(text) <= high:
        raise InvalidRequest(f"`{name}` must be a whole number from {low} to {high}.")
    return int(text)


def query_text(request: web.Request, name: str, limit: int = 512) -> str | None:
    """A text of the query; an empty one is none."""
    text = request.query.get(name) or None
    if text is not None and (len(text) > limit or NUL in text):
        raise InvalidRequest(f"`{name}` must have at most {limit} characters and no NUL.")
    return text


def query_uuid(request: web.Request, name: str) -> uuid.UUID | None:
    """An id of the query; an empty one is none."""
    text = query_text(request, name)
    value = parse_uuid(text) if text else None
    if text and value is None:
        raise InvalidRequest(f"`{name}` must be an id.")
    return value


def query_choice(request: web.Request, name: str, default: str, allowed: tuple[str, ...]) -> str:
    """A word of the query."""
    value = request.query.get(name, default)
    if value not in allowed:
        raise InvalidRequest(f"`{name}` must be one of {', '.join(allowed)}.")
    return value


def _has_nul(value: Any) -> bool:
    match value:
        case str():
            return NUL in value
        case list():
            return any(map(_has_nul, value))
        case dict():
            return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return False


def _in_words(problem: str) -> str:
    """Msgspec's sentence with the field in front."""
    found = _PATH.search(problem)
    if not found:
        return f"{problem}."
    where = found.group(1) or "the body"
    return f"`{where}`: {problem[: found.start()]}."
