"""A connected account at a vendor, whose it is, and what somebody gives to connect one. Pure."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from qlaud_actors.connectors.catalog_files import fields_of, settings_of
from qlaud_actors.connectors.model import Auth, Connector, Field
from qlaud_actors.settings import Secret

MAX_VALUE = 4_000
"""Characters of one field."""

ACCESS_TOKEN, REFRESH_TOKEN = "access_token", "refresh_token"

OF_SERVER = "mcp-"
"""With the slug of a hosted MCP server: what its connections are named. No connector file is called so."""

OF_KEY = "key:"
"""With a key's id: whose the connections of a standard key without end user are. No end user is called so."""

Status: TypeAlias = Literal["connected", "expired"]
"""`expired`: the vendor no longer takes the credential."""


@dataclass(frozen=True, slots=True)
class Owner:
    """On whose behalf a vendor is used: an end user of the account, or the account itself."""

    account_id: uuid.UUID
    end_user_id: str | None = None

    @property
    def account(self) -> "Owner":
        """The account itself."""
        return Owner(self.account_id)


@dataclass(frozen=True, slots=True)
class Connection:
    """A living connection. Its secrets are opened when a call is made, not before."""

    id: uuid.UUID
    owner: Owner
    connector: str
    scheme: int
    """Which of the connector's ways of signing in."""
    settings: Mapping[str, str]
    connected_as: str
    vendor_account_id: str
    status: Status
    generation: int = 1
    """Of its secrets; each refresh makes the next."""
    stale: bool = False
    """Whether the access token has ended, or is about to."""
    access_expires_at_ms: int | None = None
    created_at_ms: int = 0
    verified_at_ms: int = 0
    last_used_at_ms: int | None = None


class ConnectRefused(Exception):
    """What was given does not connect. The words are for who gave it; `field` is the one at fault, if any."""

    def __init__(self, field: str | None, words: str) -> None:
        super().__init__(words)
        self.field = field
        self.words = words


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a vendor's token endpoint gave; no refresh token: the one at hand stays."""

    access: Secret
    refresh: Secret | None = None
    expires_at: datetime | None = None


class RefreshRefused(Exception):
    """The vendor no longer takes the refresh token: the account has to be connected again."""


class RefreshFailed(Exception):
    """No new token this time, and nothing is known against the next time."""


class Refresher(Protocol):
    """Gets new access tokens; called by one process at a time for a connection."""

    async def refresh(
        self, connector: Connector, auth: Auth, settings: Mapping[str, str], token: Secret
    ) -> Tokens:
        """New tokens for a refresh token. Raises RefreshRefused, RefreshFailed."""


@dataclass(frozen=True, slots=True)
class Given:
    """The values of one way of signing in, checked, and parted into what is secret and what is not."""

    auth: Auth
    settings: Mapping[str, str]
    secrets: Mapping[str, Secret] = field(repr=False)


def check_given(connector: Connector, scheme: int, values: Mapping[str, str]) -> Given:
    """The values that somebody gave, ready for use. Raises ConnectRefused for the first that is wrong.

    Besides the fields of the form, a sign-in by OAuth gives its tokens and what it found out.
    """
    if not 0 <= scheme < len(connector.auth):
        raise ConnectRefused(None, f"{connector.name} has no such way of signing in.")
    auth = connector.auth[scheme]
    fields = fields_of(connector, auth)
    secret = {f.name for f in fields if f.secret} | ({ACCESS_TOKEN, REFRESH_TOKEN} if auth.oauth2 else set())
    known = secret | settings_of(connector, auth)
    if unknown := sorted(values.keys() - known):
        raise ConnectRefused(None, f"There is no field `{unknown[0][:64]}` for {connector.name}.")
    kept = {name: _checked(name, value) for name, value in values.items()}
    kept = {name: value for name, value in kept.items() if value}
    for one in fields:
        kept |= _field(one, kept.get(one.name))
    if auth.oauth2 and ACCESS_TOKEN not in kept:
        raise ConnectRefused(None, f"Signing in to {connector.name} gave no access token.")
    settings = {name: value for name, value in kept.items() if name not in secret}
    return Given(auth, settings, {name: Secret(kept[name]) for name in sorted(secret & kept.keys())})


def check_fields(connector: Connector, auth: Auth, values: Mapping[str, str]) -> dict[str, str]:
    """The fields of the form and nothing else, as they are known before a vendor is asked to sign in.

    Raises ConnectRefused.
    """
    fields = fields_of(connector, auth)
    if unknown := sorted(values.keys() - {one.name for one in fields}):
        raise ConnectRefused(None, f"There is no field `{unknown[0][:64]}` for {connector.name}.")
    kept: dict[str, str] = {}
    for one in fields:
        kept |= _field(one, _checked(one.name, values.get(one.name, "")))
    return kept


def _checked(name: str, value: str) -> str:
    stripped = value.strip()
    if len(stripped) > MAX_VALUE:
        raise ConnectRefused(name, f"This is longer than {MAX_VALUE} characters.")
    if not stripped.isprintable():
        raise ConnectRefused(name, "This holds characters that are not printable.")
    return stripped


def _field(one: Field, value: str | None) -> dict[str, str]:
    value = value or one.default
    if value is None:
        if one.optional:
            return {}
        raise ConnectRefused(one.name, f"{one.label} is missing.")
    if one.pattern and not re.fullmatch(one.pattern, value):
        example = f" It looks like {one.example}." if one.example else ""
        raise ConnectRefused(one.name, f"This does not look like what is asked for as {one.label}.{example}")
    return {one.name: value}
