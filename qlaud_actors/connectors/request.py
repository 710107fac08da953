"""An action, its arguments and a connection turned into one HTTP request. Pure.

Arguments come from a model that reads strangers' texts. So none of them can leave its segment of the
path, add a parameter or header, or change the host: names come from the file alone, and every value is
escaped where it stands.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.errors import MessageError
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from qlaud_actors.connectors.body import form_pairs, form_text, merged, placed_under
from qlaud_actors.connectors.hosts import is_allowed, is_name
from qlaud_actors.connectors.inputs import defaults, input_schema
from qlaud_actors.connectors.model import Action, Auth, Connector
from qlaud_actors.connectors.template import ABSENT, PLACEHOLDER, fill, fill_text, names, text
from qlaud_actors.settings import Secret

MAX_URL = 8_000
MAX_BODY = 1024 * 1024
MAX_HEADER = 4_000


class RequestProblem(Exception):
    """The request cannot be built; the message says why, for a model, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Access:
    """A connection as a request needs it: how it signs in, its settings, its secrets."""

    auth: Auth
    settings: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def spelled(self) -> tuple[str, ...]:
        """The secrets in every spelling that a request has, longest first; none may come back."""
        plain = {secret.reveal() for secret in self.secrets.values()}
        carried = {value.rpartition(" ")[2] for value in credential_headers(self).values()}
        escaped = {quote(value, safe="") for value in plain}
        return tuple(sorted((v for v in plain | carried | escaped if len(v) >= 6), key=len, reverse=True))


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """What is sent. It holds the credential, so it has no repr."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None = None


def build(
    connector: Connector,
    action: Action,
    arguments: Mapping[str, Any],
    access: Access,
    *,
    idempotency_key: str | None = None,
    override: str | None = None,
) -> Request:
    """The request of one call; `override` is another address for the vendor. Raises RequestProblem.

    Arguments must fit the action's input schema already.
    """
    values = _values(connector, action, arguments)
    known = {**values, **access.settings}
    if idempotency_key and action.effect != "read":
        known["idempotency_key"] = idempotency_key
    method, path = connector.request_line(action)
    base_url = action.base_url or access.auth.base_url or connector.base_url
    query, body = _placed(connector, action, method, known, values)
    body, content_type = _encoded(connector, action, body)
    pairs = form_pairs(query, connector.lists) + _credential_query(access)
    url = address(base_url, connector.hosts, access.settings, override) + _path(path, known)
    url += f"?{form_text(pairs)}" if pairs else ""
    if len(url) > MAX_URL:
        raise RequestProblem("The arguments are too long for an address; shorten them.")
    headers = {"Content-Type": content_type} if content_type else {}
    headers |= _headers({**connector.headers, **action.headers}, known)
    return Request(method, url, headers | credential_headers(access), body)


def verification(connector: Connector, access: Access, override: str | None = None) -> Request:
    """The request that proves a credential and says whose it is. Raises RequestProblem."""
    verify = connector.verify
    method, _, path = (verify.request or connector.graphql or "").partition(" ")
    base_url = verify.base_url or access.auth.base_url or connector.base_url
    url = address(base_url, connector.hosts, access.settings, override) + _path(path, access.settings)
    pairs = form_pairs(verify.query, connector.lists) + _credential_query(access)
    url += f"?{form_text(pairs)}" if pairs else ""
    content = {"query": verify.document, "variables": verify.body or {}} if verify.document else verify.body
    body = None if content is None else msgspec.json.encode(content)
    headers = {} if body is None else {"Content-Type": "application/json"}
    headers |= _headers(connector.headers, access.settings) | credential_headers(access)
    return Request(method, url, headers, body)


def address(
    base_url: str, hosts: tuple[str, ...], settings: Mapping[str, str], override: str | None = None
) -> str:
    """A declared address, filled with a connection's settings. Raises RequestProblem for other hosts."""
    host, slash, path = base_url.removeprefix("https://").partition("/")
    filled = fill_text(host, settings)
    tail = _path(slash + path, settings)
    if filled is None or not is_name(filled):
        raise RequestProblem("The connection's address is not complete; connect again.")
    url = f"https://{filled}{tail}"
    if not is_allowed(url, base_url, hosts):
        raise RequestProblem("The connection's address is not one of this vendor's; connect again.")
    if override is None:
        return url
    below = override.rstrip("/")
    return below if tail and urlsplit(below).path.endswith(tail) else below + tail


def credential_headers(access: Access) -> dict[str, str]:
    """The headers that carry the credential. Raises RequestProblem when it cannot stand in one."""
    auth, known = access.auth, _revealed(access)
    headers = _headers(auth.headers, known, "The credential")
    if auth.username is not None:
        user, password = fill_text(auth.username, known), fill_text(auth.password or "", known)
        pair = f"{user or ''}:{password or ''}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return headers


def _credential_query(access: Access) -> list[tuple[str, str]]:
    filled = {name: fill_text(value, _revealed(access)) for name, value in access.auth.query.items()}
    return [(name, value) for name, value in filled.items() if value is not None]


def _revealed(access: Access) -> dict[str, str]:
    return {**access.settings, **{name: secret.reveal() for name, secret in access.secrets.items()}}


def _values(connector: Connector, action: Action, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = input_schema(connector, action)["properties"]
    if unknown := sorted(arguments.keys() - known.keys()):
        raise RequestProblem(f"There is no input `{unknown[0][:64]}`.")
    try:
        msgspec.json.encode(arguments)
    except (UnicodeEncodeError, RecursionError):  # half of a surrogate pair, which no wire can carry
        raise RequestProblem("The arguments hold characters that cannot be sent.") from None
    values = {**defaults(connector, action), **arguments}
    pager = connector.pager(action)
    if pager and pager.kind in ("page", "offset") and "cursor" in values:
        if not (str(values["cursor"]).isdecimal() and len(str(values["cursor"])) <= 9):
            raise RequestProblem("`cursor` must be the `next_cursor` of an earlier answer.")
        values["cursor"] = int(values["cursor"])
    return values


def _placed(
    connector: Connector, action: Action, method: str, known: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], Any]:
    """Query and body: templates first, then what no template places, under its own name."""
    pager = connector.pager(action)
    query_template: dict[str, Any] = {**action.query, **(pager.query if pager else {})}
    body_template = merged(action.body, (pager.body or None) if pager else None)
    used = {name for name, _ in names([action.request or "", query_template, body_template])}
    used |= {name for name, _ in names(action.headers)}
    loose = {} if "*" in used else {k: v for k, v in values.items() if k not in used and v is not None}
    loose.pop("cursor", None)
    loose.pop("limit", None)
    query = _filled(query_template, known) or {}
    body = _filled(body_template, known)
    if method in ("GET", "DELETE"):
        return {**query, **loose}, body
    return query, merged(body, loose or None)


def _filled(template: Any, known: Mapping[str, Any]) -> Any:
    try:
        filled = fill(template, known)
    except (ValueError, LookupError, MessageError):
        raise RequestProblem("A value cannot be written as this vendor wants it.") from None
    return None if filled is ABSENT else filled


def _encoded(connector: Connector, action: Action, body: Any) -> tuple[bytes | None, str | None]:
    encoding = action.encoding or connector.encoding
    under = action.body_under or connector.body_under
    if action.document is not None:
        body, encoding = {"query": action.document, "variables": body or {}}, "json"
    elif body is not None and under:
        body = placed_under(under, body)
    if body is None:
        return None, None
    if encoding == "form":
        raw = form_text(form_pairs(body, connector.lists)).encode()
    else:
        raw = msgspec.json.encode(body)
    if len(raw) > MAX_BODY:
        raise RequestProblem(f"The arguments are larger than {MAX_BODY} bytes; send less at once.")
    return raw, "application/json" if encoding == "json" else "application/x-www-form-urlencoded"


def _path(template: str, known: Mapping[str, Any]) -> str:
    return "/".join(_segment(segment, known) for segment in template.split("/"))


def _segment(template: str, known: Mapping[str, Any]) -> str:
    if not PLACEHOLDER.search(template):
        return template
    whole = PLACEHOLDER.fullmatch(template)
    if whole and whole[2] == "segments":
        steps = text(known.get(whole[1], "")).strip("/").split("/")
        return "/".join(_step(whole[1], step) for step in steps)
    filled = fill_text(template, known, lambda value: quote(value, safe=""))
    return _checked_step(next(names(template))[0], filled or "")


def _step(name: str, value: str) -> str:
    return _checked_step(name, quote(value, safe=""))


def _checked_step(name: str, step: str) -> str:
    if step in ("", ".", ".."):  # a client or a proxy would fold them away
        raise RequestProblem(f"`{name}` must not be empty or consist of dots.")
    return step


def _headers(
    templates: Mapping[str, str], known: Mapping[str, Any], what: str | None = None
) -> dict[str, str]:
    headers = {}
    for name, template in templates.items():
        value = fill_text(template, known)
        if value is None:
            continue
        if not (value.isascii() and value.isprintable()) or len(value) > MAX_HEADER:
            raise RequestProblem(f"{what or f'What becomes the header {name}'} must be printable ASCII.")
        headers[name] = value
    return headers
