"""The requests and answers of OAuth's authorization-code flow with PKCE (RFC 6749, 7636). Pure."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from qlaud_actors.connectors.answer import HIDDEN, Received
from qlaud_actors.connectors.model import Connector, OAuth2
from qlaud_actors.connectors.oauth_apps import OAuthApp
from qlaud_actors.connectors.paths import first_text, value_at
from qlaud_actors.connectors.request import Access, Request, address, credential_headers
from qlaud_actors.settings import Secret

MAX_WORDS = 300
MAX_FOUND = 300
"""Characters of a connection's field that a vendor tells."""
MAX_TOKEN = 16_000
MAX_LIFETIME_S = 10 * 366 * 86_400

CODES = ("error", "error.code", "error.type", "code", "status")
WORDS = ("error_description", "error.message", "message", "error_message", "error")
DEAD = frozenset(
    {"invalid_grant", "bad_refresh_token", "invalid_refresh_token", "token_revoked", "token_expired"}
)
"""What vendors call a refresh token that is no longer taken: RFC 6749 5.2, and GitHub, HubSpot, Slack."""


class GrantRefused(Exception):
    """The vendor gives no token. The words are the vendor's, without any secret of ours."""

    def __init__(self, words: str, *, dead: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.dead = dead
        """Whether what was presented is dead for good."""


@dataclass(frozen=True, slots=True, repr=False)
class Leaving:
    """What goes along to the vendor."""

    state: str
    challenge: str


@dataclass(frozen=True, slots=True)
class Client:
    """One vendor's flow with the operator's application, at the vendor's addresses or their stand-in."""

    connector: Connector
    oauth2: OAuth2
    app: OAuthApp
    settings: Mapping[str, str]
    override: str | None = None

    def at(self, url: str) -> str:
        """A declared address, filled. A stand-in replaces its origin; the path stays.

        Raises RequestProblem for hosts that are not the vendor's.
        """
        return address(url, self.connector.hosts, self.settings, _origin(self.override))


@dataclass(frozen=True, slots=True)
class Grant:
    """A token endpoint's answer."""

    access: Secret
    refresh: Secret | None
    lifetime_s: int | None
    """Seconds that the access token is good for, if the vendor says."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Connection fields that the answer told."""


def code_challenge(verifier: str) -> str:
    """S256 of RFC 7636."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def authorize_url(client: Client, leaving: Leaving, redirect_uri: str) -> str:
    """Where the browser goes to sign in. Raises RequestProblem."""
    oauth2 = client.oauth2
    query = {"response_type": "code", "client_id": client.app.client_id, "redirect_uri": redirect_uri}
    query |= {"state": leaving.state, **oauth2.authorize_params}
    if oauth2.scopes:
        query[oauth2.scope_param] = oauth2.scope_separator.join(oauth2.scopes)
    if oauth2.pkce:
        query |= {"code_challenge": leaving.challenge, "code_challenge_method": "S256"}
    return f"{client.at(oauth2.authorize_url)}?{urlencode(query, quote_via=quote)}"


def exchange_request(client: Client, code: str, verifier: str, redirect_uri: str) -> Request:
    """A code for tokens. Raises RequestProblem."""
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    return _token_request(client, fields | ({"code_verifier": verifier} if client.oauth2.pkce else {}))


def refresh_request(client: Client, token: Secret) -> Request:
    """A refresh token for new tokens. Raises RequestProblem."""
    return _token_request(client, {"grant_type": "refresh_token", "refresh_token": token.reveal()})


def revoke_request(client: Client, token: Secret) -> Request:
    """A token that is needed no longer (RFC 7009, 2.1). Raises RequestProblem."""
    return _token_request(client, {"token": token.reveal()}, client.oauth2.revoke_url)


def lookup_request(client: Client, access: Access) -> Request | None:
    """The call that finds the connection's further fields, where the vendor needs one."""
    lookup = client.oauth2.lookup
    if lookup is None:
        return None
    headers = {"Accept": "application/json", **credential_headers(access)}
    return Request("GET", client.at(lookup.url), headers)


def grant_from(client: Client, received: Received, sent: tuple[str, ...] = ()) -> Grant:
    """The tokens of an answer. Raises GrantRefused; `sent` are secrets that must not be in its words."""
    answer = _answer(client, received, sent)
    oauth2 = client.oauth2
    parent, _, _ = oauth2.token_path.rpartition(".")
    token = value_at(answer, oauth2.token_path)
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN:
        raise GrantRefused("it gave no access token")
    home = value_at(answer, parent) if parent else answer
    refresh = value_at(home, "refresh_token")
    return Grant(
        Secret(token),
        Secret(refresh) if isinstance(refresh, str) and 0 < len(refresh) <= MAX_TOKEN else None,
        _lifetime(value_at(home, "expires_in")),
        _found(answer, oauth2.keep),
    )


def looked_up(client: Client, received: Received, sent: tuple[str, ...] = ()) -> dict[str, str]:
    """The fields that a look-up's answer tells. Raises GrantRefused."""
    lookup = client.oauth2.lookup
    return _found(_answer(client, received, sent), lookup.fields) if lookup else {}


def _token_request(client: Client, fields: dict[str, str], url: str | None = None) -> Request:
    app, secret = client.app, client.app.client_secret.reveal()
    headers = {"Accept": "application/json"}  # GitHub answers as a form otherwise
    if client.oauth2.client_auth == "basic":
        pair = f"{quote(app.client_id, safe='')}:{quote(secret, safe='')}"  # RFC 6749, 2.3.1
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    else:
        fields = {**fields, "client_id": app.client_id, "client_secret": secret}
    as_json = client.oauth2.token_body == "json"  # noqa: S105 - the name of an encoding
    headers["Content-Type"] = "application/json" if as_json else "application/x-www-form-urlencoded"
    body = msgspec.json.encode(fields) if as_json else urlencode(fields).encode()
    return Request("POST", client.at(url or client.oauth2.token_url), headers, body)


def _answer(client: Client, received: Received, sent: tuple[str, ...]) -> Any:
    try:
        answer = msgspec.json.decode(received.body)
    except (msgspec.DecodeError, RecursionError):
        answer = None
    told = answer if isinstance(answer, dict) else {}
    # GitHub and Slack tell errors with status 200.
    if 200 <= received.status < 300 and answer is not None and not told.get("error") and told.get("ok", True):
        return answer
    code = (first_text(told, CODES) or "").lower()
    words = first_text(told, WORDS) or f"HTTP {received.status}"
    for secret in (*sent, client.app.client_secret.reveal()):
        words = words.replace(secret, HIDDEN)
    raise GrantRefused(words[:MAX_WORDS], dead=code in DEAD)


def _found(answer: Any, paths: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, path in paths.items():
        value = value_at(answer, path)
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not 0 < len(text) <= MAX_FOUND or not text.isprintable():
            raise GrantRefused(f"it did not say what the connection's {name.replace('_', ' ')} is")
        found[name] = text
    return found


def _lifetime(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_LIFETIME_S:
        return None
    return int(value)


def _origin(override: str | None) -> str | None:
    if override is None:
        return None
    parts = urlsplit(override)
    return f"{parts.scheme}://{parts.netloc}"
