"""The pages of connecting, as markup: everything escaped, no secret shown again, strict headers."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from aiohttp import web

from api.errors import error_response
from api.pages.connect import Form, browser_pattern, form_page, leaving_page, success_page
from api.pages.html import VOID, Html, joined, tag
from api.routes.connect import _set_cookie
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.catalog_files import fields_of
from qlaud_actors.connectors.connection import ConnectRefused
from qlaud_actors.connectors.links import LinkOver
from qlaud_actors.errors import QlaudError
from qlaud_actors.settings import Settings

CATALOG = ConnectorCatalog.load({})
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Every element with its attributes; fails on what is not closed in order."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(markup)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It closes the innermost."""
        assert self._open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for element, attributes in self.elements if element == name]


def form(slug: str, **fields: Any) -> Form:
    connector = CATALOG.connectors[slug]
    ways = dict(enumerate(connector.auth))
    return Form(connector, ways, "Acme", "ada", "/connect/x", "form-token", **fields)


def text_of(response: web.Response) -> str:
    assert response.text is not None
    return response.text


def test_markup_escapes_all_that_is_not_markup() -> None:
    """Texts and attributes alike, and only once."""
    made = tag("p", "<&>", tag("b", "x"), None, title='"<', class_="c", hidden=True, lang=None, open=False)
    assert made == '<p title="&quot;&lt;" class="c" hidden>&lt;&amp;&gt;<b>x</b></p>'
    assert joined(made, "&") == made + "&amp;"
    assert isinstance(made, Html)
    assert tag("input", aria_label="a", http_equiv="b") == '<input aria-label="a" http-equiv="b">'


@pytest.mark.parametrize("slug", sorted(CATALOG.connectors))
def test_every_connector_has_a_page_that_holds_together(slug: str) -> None:
    """Each way is a form; each input is labelled and described; secrets are hidden; nothing loads."""
    connector = CATALOG.connectors[slug]
    page = Reader(text_of(form_page(form(slug))))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(page.all("form")) == len(connector.auth)
    assert {attributes["method"] for attributes in page.all("form")} == {"post"}
    labelled = [attributes["for"] for attributes in page.all("label")]
    inputs = [attributes for attributes in page.all("input") if attributes["type"] != "hidden"]
    assert [attributes["id"] for attributes in inputs] == labelled
    fields = [one for auth in connector.auth for one in fields_of(connector, auth)]
    assert [a["type"] for a in inputs] == ["password" if one.secret else "text" for one in fields]
    for attributes in inputs:
        assert set((attributes["aria-describedby"] or "").split()) <= set(ids)
        assert (attributes["autocomplete"], attributes["spellcheck"]) == ("off", "false")
        assert attributes["type"] == "text" or "value" not in attributes
    for link in page.all("a"):
        assert (link["target"], link["rel"]) == ("_blank", "noopener noreferrer")
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    names = {name for name, _ in page.elements}
    assert not names & {"script", "img", "iframe", "link", "object", "base"}
    assert not [a for _, a in page.elements if any(key == "style" or key.startswith("on") for key in a)]


@pytest.mark.parametrize("slug", sorted(CATALOG.connectors))
def test_patterns_mean_the_same_in_a_browser(slug: str) -> None:
    """Those that are given to browsers have no character that their flag `v` reserves in a class."""
    connector = CATALOG.connectors[slug]
    for one in (one for auth in connector.auth for one in fields_of(connector, auth)):
        pattern = browser_pattern(one.pattern)
        if pattern is None:
            assert one.pattern is None or "\\s" in one.pattern or "(?" in one.pattern or "/" in one.pattern
            continue
        for inner in re.findall(r"\[([^\]]*)\]", pattern):
            assert not re.search(r"[()\[{}/|]", inner)
            assert not re.search(r"(?<!\\)-$|&&|--", inner)
        for sample in (one.example, one.default):
            assert sample is None or re.fullmatch(pattern, f" {sample}\n")


def test_hostile_words_stay_words() -> None:
    """Names of apps and users, vendors' messages, what was typed: none of it becomes markup."""
    refused = ConnectRefused("email", HOSTILE)
    given = {"email": HOSTILE, "subdomain": HOSTILE, "api_token": HOSTILE}
    drawn = form("zendesk", way=0, given=given, refused=refused)
    hostile = Form(drawn.connector, drawn.ways, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0, given, refused)
    pages = [
        form_page(hostile),
        success_page(drawn.connector, HOSTILE, HOSTILE),
        leaving_page(drawn.connector, f"https://vendor.example/?a={HOSTILE}"),
        error_response(LinkOver(HOSTILE), "/connect/x", "r"),
    ]
    for response in pages:
        page = Reader(text_of(response))
        assert not {name for name, _ in page.elements} & {"script", "img"}
        assert "<script" not in text_of(response)


def test_no_secret_is_shown_again() -> None:
    """After a refusal the other fields keep what was typed; one that is secret is empty."""
    given = {"subdomain": "acme", "email": "ada@acme.example", "api_token": "the-secret-token"}
    response = form_page(form("zendesk", way=0, given=given, refused=ConnectRefused(None, "No.")))
    page = text_of(response)
    assert response.status == 422
    assert 'value="acme"' in page
    assert 'value="ada@acme.example"' in page
    assert "the-secret-token" not in page
    assert 'role="alert"' in page


def test_what_was_typed_stays_in_its_own_way() -> None:
    """The same field of another way of signing in is as it was; the way that was tried is the open one."""
    given = {"subdomain": "acme"}
    page = text_of(form_page(form("zendesk", way=1, given=given, refused=ConnectRefused("subdomain", "No."))))
    values = {a["id"]: a.get("value") for a in Reader(page).all("input") if a["type"] != "hidden"}
    assert (values["way1-subdomain"], values["way0-subdomain"]) == ("acme", None)
    folded = page.index("<details", page.index("<section"))
    assert page.index('id="way1-subdomain"') < folded < page.index('id="way0-subdomain"')
    assert 'href="#way1-subdomain"' in page


def test_the_headers_of_a_page() -> None:
    """Nothing runs, nothing loads, nobody frames it or keeps it; the one style sheet is named by its hash."""
    for response in (
        form_page(form("linear")),
        success_page(CATALOG.connectors["linear"], "Acme", "Ada"),
        leaving_page(CATALOG.connectors["linear"], "https://linear.app"),
        error_response(QlaudError(), "/connect/x", "r"),
    ):
        style = re.search("<style>(.*?)</style>", text_of(response), re.DOTALL)
        assert style
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert response.headers["content-security-policy"] == (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        expected = {
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "x-robots-tag": "noindex, nofollow",
        }
        assert {name: response.headers[name] for name in expected} == expected
        assert "permissions-policy" in response.headers


def test_the_page_to_the_vendor_goes_on_by_itself() -> None:
    """Without a redirect, to which browsers would apply our form-action, and with a link for all others."""
    url = "https://vendor.example/authorize?a=1&b=2"
    page = Reader(text_of(leaving_page(CATALOG.connectors["linear"], url)))
    assert [a["content"] for a in page.all("meta") if a.get("http-equiv") == "refresh"] == [f"0; url={url}"]
    assert [a["href"] for a in page.all("a")] == [url]


def test_other_routes_still_get_json() -> None:
    """Only people get pages."""
    assert error_response(QlaudError(), "/v1/connections", "r").content_type == "application/json"
    assert error_response(LinkOver(), "/connect/x", "r").status == 410


def test_over_https_the_cookies_are_this_hosts_alone() -> None:
    """Secure, and with the prefix that keeps other hosts of the domain from setting them; cleared alike."""
    settings = Settings(public_url="https://qlaud.example")
    for value, max_age in (("v", 600), ("", 0)):
        response = web.Response()
        _set_cookie(settings, response, "qlaud-x", value, max_age=max_age)
        cookie = response.cookies["__Host-qlaud-x"]
        assert (cookie["secure"], cookie["httponly"]) == (True, True)
        assert (cookie["path"], cookie["domain"]) == ("/", "")
        assert (cookie["samesite"], int(cookie["max-age"])) == ("Lax", max_age)
