"""OAuth's requests and answers, for every vendor of the catalogue that has it."""

import base64
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from qlaud_actors.connectors.answer import Received
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.catalog_files import ConnectorFileError
from qlaud_actors.connectors.oauth import (
    Client,
    GrantRefused,
    Leaving,
    authorize_url,
    code_challenge,
    exchange_request,
    grant_from,
    looked_up,
    lookup_request,
    refresh_request,
)
from qlaud_actors.connectors.oauth_apps import OAuthApp, OAuthAppError, read_apps
from qlaud_actors.connectors.request import Access, RequestProblem
from qlaud_actors.settings import Secret, Settings

CATALOG = ConnectorCatalog.load({})
WITH_OAUTH = [slug for slug, c in CATALOG.connectors.items() if any(auth.oauth2 for auth in c.auth)]
APP = OAuthApp("app id/1", Secret("app:secret"))
BACK = "https://qlaud.example/connect/oauth/callback"
SETTINGS = {
    "host": "api.eu.intercom.io",
    "shop": "my-shop",
    "subdomain": "acme",
    "api_host": "api.typeform.com",
    "site": "acme",
}


def client(slug: str, override: str | None = None, **settings: str) -> Client:
    connector = CATALOG.connectors[slug]
    oauth2 = next(auth.oauth2 for auth in connector.auth if auth.oauth2)
    return Client(connector, oauth2, APP, {**SETTINGS, **settings}, override)


def received(answer: Any, status: int = 200) -> Received:
    return Received(status, {}, msgspec.json.encode(answer), time.time())


def test_the_challenge_is_that_of_the_rfc() -> None:
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize("slug", WITH_OAUTH)
def test_every_vendor_is_asked_as_its_file_says(slug: str) -> None:
    """At the vendor's own addresses; scopes, PKCE, client and encoding as declared."""
    vendor = client(slug)
    oauth2 = vendor.oauth2
    url = urlsplit(authorize_url(vendor, Leaving("the-state", "the-challenge"), BACK))
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert url.scheme == "https"
    assert "{" not in url.netloc + url.path
    assert (query["state"], query["redirect_uri"], query["client_id"]) == ("the-state", BACK, "app id/1")
    assert ("code_challenge" in query) == oauth2.pkce
    assert query.get(oauth2.scope_param, "") == oauth2.scope_separator.join(oauth2.scopes)
    assert query.items() >= dict(oauth2.authorize_params).items()
    for request, expected in (
        (exchange_request(vendor, "the-code", "the-verifier", BACK), "authorization_code"),
        (refresh_request(vendor, Secret("the-token")), "refresh_token"),
    ):
        assert request.body is not None
        if oauth2.token_body == "json":
            fields = msgspec.json.decode(request.body)
        else:
            fields = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        assert (request.method, request.headers["Accept"]) == ("POST", "application/json")
        assert fields["grant_type"] == expected
        assert ("client_secret" in fields) == (oauth2.client_auth == "body")
        if oauth2.client_auth == "basic":
            pair = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
            assert pair == "app%20id%2F1:app%3Asecret"
        if expected == "authorization_code":
            assert (fields["code"], fields["redirect_uri"]) == ("the-code", BACK)
            assert ("code_verifier" in fields) == oauth2.pkce


@pytest.mark.parametrize("slug", WITH_OAUTH)
def test_a_stand_in_takes_the_origin_and_leaves_the_path(slug: str) -> None:
    """With another address for a vendor, its authorize and token addresses go there too."""
    vendor, double = client(slug), client(slug, "http://127.0.0.1:9/graphql")
    for mine, theirs in (
        (authorize_url(double, Leaving("s", "c"), BACK), authorize_url(vendor, Leaving("s", "c"), BACK)),
        (refresh_request(double, Secret("t")).url, refresh_request(vendor, Secret("t")).url),
    ):
        assert mine == urlsplit(theirs)._replace(scheme="http", netloc="127.0.0.1:9").geturl()


def test_a_setting_cannot_send_the_applications_secret_elsewhere() -> None:
    """A shop or host that is not the vendor's is refused before anything is built."""
    for slug, settings in (
        ("shopify", {"shop": "evil.example/"}),
        ("intercom", {"host": "evil.example"}),
        ("zendesk", {"subdomain": "x@evil.example"}),
    ):
        with pytest.raises(RequestProblem):
            exchange_request(client(slug, None, **settings), "c", "v", BACK)


def test_tokens_are_read_where_the_vendor_puts_them() -> None:
    """At the top, or in Slack's user; with lifetime as number or text; other fields are kept as declared."""
    linear = {"access_token": "a", "refresh_token": "r", "expires_in": "60"}
    grant = grant_from(client("linear"), received(linear))
    assert grant.refresh is not None
    assert (grant.access.reveal(), grant.refresh.reveal(), grant.lifetime_s) == ("a", "r", 60)
    slack = {"ok": True, "access_token": "bot", "authed_user": {"access_token": "xoxp-user"}}
    assert grant_from(client("slack"), received(slack)).access.reveal() == "xoxp-user"
    force = {"access_token": "a", "instance_url": "https://na1.my.salesforce.com"}
    kept = grant_from(client("salesforce"), received(force)).kept
    assert kept == {"instance_url": "https://na1.my.salesforce.com"}
    for lifetime in (None, 0, -5, True, "soon", 1e300, {}):
        answer = {"access_token": "a", "expires_in": lifetime}
        assert grant_from(client("linear"), received(answer)).lifetime_s is None


def test_a_look_up_finds_the_rest() -> None:
    """Atlassian tells a token's sites elsewhere; an account without one is told so."""
    jira = client("jira")
    auth = next(auth for auth in jira.connector.auth if auth.oauth2)
    request = lookup_request(jira, Access(auth, {}, {"access_token": Secret("a")}))
    assert request is not None
    assert request.headers["Authorization"] == "Bearer a"
    assert request.url == "https://api.atlassian.com/oauth/token/accessible-resources"
    sites = [{"id": "cloud-1", "url": "https://acme.atlassian.net"}]
    assert looked_up(jira, received(sites)) == {
        "cloud_id": "cloud-1",
        "site_url": "https://acme.atlassian.net",
    }
    for nothing in ([], {}, [{"id": "x" * 301, "url": "u"}], [{"id": "a\nb", "url": "u"}]):
        with pytest.raises(GrantRefused, match="did not say"):
            looked_up(jira, received(nothing))
    assert lookup_request(client("linear"), Access(auth)) is None


@pytest.mark.parametrize(
    ("answer", "status", "dead"),
    [
        ({"error": "invalid_grant"}, 400, True),
        ({"error": "bad_refresh_token"}, 200, True),
        ({"status": "BAD_REFRESH_TOKEN", "message": "no"}, 400, True),
        ({"ok": False, "error": "invalid_refresh_token"}, 200, True),
        ({"error": "invalid_client"}, 401, False),
        ({"error": {"type": "temporarily", "message": "later"}}, 503, False),
        ("gone", 502, False),
        ({}, 200, False),
        ({"access_token": ["a"]}, 200, False),
    ],
)
def test_a_dead_token_is_told_from_other_trouble(answer: Any, status: int, dead: bool) -> None:
    """Only what the vendor calls dead is dead; whatever else may pass."""
    with pytest.raises(GrantRefused) as refused:
        grant_from(client("linear"), received(answer, status))
    assert refused.value.dead is dead


def test_no_secret_is_in_a_refusals_words() -> None:
    """A vendor that repeats what it was sent repeats nothing here."""
    words = "code the-code, secret app:secret, " + "x" * 500
    with pytest.raises(GrantRefused) as refused:
        grant_from(client("linear"), received({"error": "e", "error_description": words}, 400), ("the-code",))
    assert refused.value.words.startswith("code [hidden], secret [hidden], ")
    assert len(refused.value.words) <= 300


def test_applications_are_read_from_the_environment() -> None:
    """By the vendor's name, both or none; a way of signing in is offered only with its application."""
    environ = {"QLAUD_OAUTH_GOOGLE_DRIVE_CLIENT_ID": "i", "QLAUD_OAUTH_GOOGLE_DRIVE_CLIENT_SECRET": "s"}
    settings = Settings.from_env(environ)
    assert "'s'" not in repr(settings)
    found = ConnectorCatalog.load(settings.environ)
    assert list(found.apps) == ["google-drive"]
    assert "'s'" not in repr(found.apps)
    assert list(found.ways(found.connectors["google-drive"])) == [0]
    assert list(found.ways(found.connectors["gmail"])) == []
    assert list(found.ways(found.connectors["jira"])) == [1]
    for wrong in (
        {"QLAUD_OAUTH_LINEAR_CLIENT_ID": "i"},
        {"QLAUD_OAUTH_LINEAR_CLIENT_SECRET": "hush"},
        {"QLAUD_OAUTH_LINAER_CLIENT_ID": "i"},
        {"QLAUD_OAUTH_TWILIO_CLIENT_ID": "i"},
    ):
        with pytest.raises(ConnectorFileError) as refused:
            ConnectorCatalog.load(wrong)
        assert "hush" not in str(refused.value)
    with pytest.raises(OAuthAppError):
        read_apps({"QLAUD_OAUTH_LINEAR_CLIENT_ID": "i", "QLAUD_OAUTH_LINEAR_CLIENT_SECRET": " "}, ["linear"])
