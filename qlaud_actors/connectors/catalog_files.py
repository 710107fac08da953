"""Connector files: TOML texts turned into connectors, each checked by itself."""

import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from qlaud_actors.connectors.filters import FILTERS
from qlaud_actors.connectors.hosts import host_problem
from qlaud_actors.connectors.inputs import input_schema
from qlaud_actors.connectors.model import Action, Auth, Connector, Field, Paging
from qlaud_actors.connectors.template import SPREAD, names
from qlaud_actors.settings import SettingsError

RESERVED = frozenset({"cursor", "limit", "idempotency_key"})
"""Names that the catalogue itself gives a value."""


class ConnectorFileError(SettingsError):
    """A connector file is not usable; the message begins with the file's name."""


def packaged() -> dict[str, str]:
    """The TOML texts that come with this package, by file name, in order of name."""
    directory = files("qlaud_actors.connectors").joinpath("catalog")
    found = [entry for entry in directory.iterdir() if entry.name.endswith(".toml")]
    return {entry.name: entry.read_text("utf-8") for entry in sorted(found, key=lambda e: e.name)}


def read_text(path: Path) -> str:
    """The text of a file of the operator's. Raises ConnectorFileError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectorFileError(f"{path}: {type(error).__name__}") from None


@lru_cache(256)  # half of the time that a catalogue takes to load, and one process may load several
def parse(name: str, text: str) -> Connector:
    """The connector of one file. Raises ConnectorFileError with everything that is wrong."""
    try:
        connector = msgspec.convert(tomllib.loads(text), type=Connector)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConnectorFileError(f"{name}: {error}") from None
    if found := list(_problems(connector)):
        raise ConnectorFileError("\n".join(f"{name}: {problem}" for problem in found))
    return connector


def fields_of(connector: Connector, auth: Auth) -> tuple[Field, ...]:
    """Everything that a person gives to sign in this way."""
    return (*connector.fields, *auth.fields)


def settings_of(connector: Connector, auth: Auth) -> set[str]:
    """Names of the connection's values that are no secrets: they may stand in addresses."""
    known = {field.name for field in fields_of(connector, auth) if not field.secret}
    if auth.oauth2:
        known |= auth.oauth2.keep.keys()
        known |= auth.oauth2.lookup.fields.keys() if auth.oauth2.lookup else set()
    return known


def _problems(connector: Connector) -> Iterator[str]:
    for number, auth in enumerate(connector.auth):
        for problem in auth_problems(connector, auth):
            yield f"auth[{number}]: {problem}"
    everywhere = set.intersection(*(settings_of(connector, auth) for auth in connector.auth))
    yield from _shared_problems(connector, everywhere)
    seen: set[str] = set()
    for action in connector.actions:
        doubled = [f"there are two actions named {action.name}"] if action.name in seen else []
        seen.add(action.name)
        found = doubled + list(_action_problems(connector, action, everywhere))
        yield from (f"{action.name}: {problem}" for problem in found)


def _shared_problems(connector: Connector, settings: set[str]) -> Iterator[str]:
    yield from _placeholders("headers", connector.headers, settings | {"idempotency_key"})
    for name, paging in connector.paging.items():
        yield from (f"paging.{name}: {problem}" for problem in _paging_problems(paging))
    verify = connector.verify
    if (verify.request is None) == (verify.document is None):
        yield "verify: needs `request` or `document`, and not both"
    if verify.document and not connector.graphql:
        yield "verify: a `document` needs the vendor's `graphql`"
    if verify.base_url and (problem := host_problem(verify.base_url, connector.hosts, settings)):
        yield f"verify: {problem}"
    if verify.request:
        yield from _placeholders("verify.request", verify.request, settings)
    used = {name for action in connector.actions for name in action.uses}
    if unused := connector.inputs.keys() - used:
        yield f"inputs: nothing uses {', '.join(sorted(unused))}"


def auth_problems(connector: Connector, auth: Auth) -> Iterator[str]:
    """What is wrong with a way of signing in."""
    fields = fields_of(connector, auth)
    given = [field.name for field in fields]
    if len(set(given)) < len(given):
        yield "two fields have the same name"
    for field in fields:
        yield from _field_problems(field)
    if (auth.scheme == "oauth2") != (auth.oauth2 is not None):
        yield "scheme `oauth2` and the table `oauth2` need each other"
    if (auth.scheme == "basic") != (auth.username is not None):
        yield "scheme `basic` and `username` need each other"
    if auth.scheme != "basic" and not (auth.headers or auth.query):
        yield "needs `headers` or `query` that carry the credential"
    known = set(given) | settings_of(connector, auth) | ({"access_token"} if auth.oauth2 else set())
    carried = [auth.headers, auth.query, auth.username or "", auth.password or ""]
    yield from _placeholders("credential", carried, known)
    settings = settings_of(connector, auth)
    if problem := host_problem(auth.base_url or connector.base_url, connector.hosts, settings):
        yield problem
    if auth.oauth2:
        if any(field.secret for field in fields):
            yield "a sign-in by OAuth asks for no secrets: its fields wait in the link"
        for url in (auth.oauth2.authorize_url, auth.oauth2.token_url, auth.oauth2.revoke_url or ""):
            yield from _placeholders("oauth2", url, {field.name for field in fields if not field.secret})


def _field_problems(field: Field) -> Iterator[str]:
    if field.pattern:
        try:
            matches = re.compile(field.pattern).fullmatch
        except re.error as error:
            yield f"field {field.name}: pattern: {error}"
            return
        for sample in (field.example, field.default):
            if sample and not matches(sample):
                yield f"field {field.name}: its pattern refuses {sample!r}"


def _paging_problems(paging: Paging) -> Iterator[str]:
    if paging.kind == "cursor" and not paging.next:
        yield "kind `cursor` needs `next`"
    if paging.kind == "link" and not paging.param:
        yield "kind `link` needs `param`"
    placed = {name for name, _ in names([paging.query, paging.body])}
    if "cursor" not in placed:
        yield "`query` or `body` must place {cursor}"
    yield from _placeholders("paging", [paging.query, paging.body], {"cursor", "limit"})


def _action_problems(connector: Connector, action: Action, settings: set[str]) -> Iterator[str]:
    if (action.request is None) == (action.document is None):
        yield "needs `request` or `document`, and not both"
        return
    if action.document and not connector.graphql:
        yield "a `document` needs the vendor's `graphql`"
    if unknown := [name for name in action.uses if name not in connector.inputs]:
        yield f"uses `{unknown[0]}`, which [inputs] does not have"
        return
    if action.paging and action.paging not in connector.paging:
        yield f"there is no [paging.{action.paging}]"
        return
    properties = input_schema(connector, action)["properties"]
    own = set(action.uses) | action.input.keys()
    if clash := own & (settings | RESERVED):
        yield f"input `{min(clash)}` has the name of a connection's field or of the catalogue's own"
    if unknown := [name for name in action.required if name not in properties]:
        yield f"requires `{unknown[0]}`, which is not an input"
    yield from _place_problems(connector, action, own, settings)
    if action.base_url and (problem := host_problem(action.base_url, connector.hosts, settings)):
        yield problem
    if connector.source(action).file is None and connector.source(action).unchecked is None:
        yield "needs a `spec` to be checked against, or `unchecked` that says why there is none"


def _place_problems(connector: Connector, action: Action, own: set[str], settings: set[str]) -> Iterator[str]:
    method, path = connector.request_line(action)
    if action.request and (method == "GET") and action.effect != "read":
        yield "a GET has the effect `read`"
    if method == "GET" and action.body is not None:
        yield "a GET has no body"
    if SPREAD in action.query:
        yield f"`{SPREAD}` in a query would let a model name parameters"
    known = own | settings | {"idempotency_key", "*"}
    yield from _placeholders("path", path, known - {"*"})
    yield from _placeholders("query, headers or body", [action.query, action.headers, action.body], known)
    definitions = {name: connector.inputs[name] for name in action.uses} | action.input
    for name, _ in names(path):
        if name in own and name not in action.required and "default" not in definitions[name]:
            yield f"`{name}` is part of the path, so it must be required or have a default"


def _placeholders(where: str, template: Any, known: set[str]) -> Iterator[str]:
    for name, spelling in names(template):
        if name not in known:
            yield f"{where}: {{{name}}} stands for nothing that may be used there"
        if spelling is not None and spelling not in FILTERS:
            yield f"{where}: there is no filter `{spelling}`; known are {', '.join(sorted(FILTERS))}"
