"""The connect page: a link is good for one connection of one owner, and for nobody's curiosity."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sign_in_double import KEY, Desk, Page, running_desk
from structlog.testing import capture_logs

from qlaud_actors.connectors.connections import Owner
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT

POLICY = ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'")
WRONG_KEY = "lin_api_" + "q" * 40


@pytest.fixture
async def desk(pool: Pool, vault: Vault, redis_url: str) -> AsyncIterator[Desk]:
    """A front door with a vendor behind it."""
    async with running_desk(pool, vault, redis_url) as desk:
        yield desk


async def connected(pool: Pool) -> list[tuple[Any, ...]]:
    """Every living connection: whose, where, as whom."""
    rows = await pool.fetch(
        "SELECT end_user_id, connector, connected_as FROM connections WHERE status = 'connected'"
    )
    return [tuple(row) for row in rows]


def is_page(page: Page) -> bool:
    """Whether it is HTML with the headers that every page has."""
    right = page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    return (
        right
        and page.text.startswith("<!doctype html>")
        and page.headers["cache-control"] == "no-store"
        and all(f"{word};" in f"{policy};" for word in POLICY)
        and page.headers["x-frame-options"] == "DENY"
        and page.headers["referrer-policy"] == "no-referrer"
    )


async def test_a_key_is_verified_and_connected_for_the_links_owner(desk: Desk) -> None:
    """The page says for whom, takes the key, says as whom, and the link is over."""
    path, browser = await desk.link("ada"), await desk.browser()
    shown = await browser.ask("GET", path)
    assert shown.status == 200
    assert is_page(shown)
    assert "Connect Linear to qlaud.test" in shown.text
    assert "<dd>ada</dd>" in shown.text
    made = await browser.send(path, 0, api_key=f" {KEY}\n")
    assert made.status == 200
    assert is_page(made)
    assert "Connected as <strong>Ada (Acme)</strong>" in made.text
    assert KEY not in made.text
    assert await connected(desk.pool) == [("ada", "linear", "Ada (Acme)")]
    found = await desk.connections.find(Owner(ACCOUNT, "ada"), "linear")
    assert found is not None
    assert found.connected_as == "Ada (Acme)"
    for method in ("GET", "POST"):
        data = {"_form": shown.form_token} if method == "POST" else None
        again = await browser.ask(method, path, data=data)
        assert (again.status, "was used already" in again.text, is_page(again)) == (410, True, True)


async def test_looking_at_a_link_changes_nothing(desk: Desk) -> None:
    """Previews of chat apps ask as often as they like, with GET or HEAD; the page still connects."""
    path = await desk.link()
    before = await desk.pool.fetch("SELECT * FROM connect_links")
    for method in ("HEAD", "GET", "HEAD", "GET"):
        preview = await desk.browser()
        assert (await preview.ask(method, path)).status == 200
    assert await desk.pool.fetch("SELECT * FROM connect_links") == before
    browser = await desk.browser()
    assert (await browser.send(path, 0, api_key=KEY)).status == 200


async def test_what_is_no_link_any_more_is_410(desk: Desk) -> None:
    """Unknown, malformed and expired ones: by the database's clock, and nobody is asked."""
    browser, expired = await desk.browser(), await desk.link()
    form_token = (await browser.ask("GET", expired)).form_token
    await desk.pool.execute("UPDATE connect_links SET expires_at = now()")
    for path in (expired, "/connect/" + "A" * 43, "/connect/x", "/connect/%00", "/connect/" + "é" * 43):
        for method in ("GET", "POST"):
            data = {"_form": form_token, "_way": "0", "api_key": KEY} if method == "POST" else None
            page = await browser.ask(method, path, data=data)
            assert (page.status, is_page(page)) == (410, True)
            assert ("expired" in page.text) == (path == expired)
    assert desk.vendor.asked == []


async def test_old_links_are_forgotten(desk: Desk) -> None:
    """A day after its end a link leaves no row."""
    await desk.link()
    await desk.pool.execute("UPDATE connect_links SET expires_at = now() - interval '25 hours'")
    await desk.link()
    assert await desk.pool.fetchval("SELECT count(*) FROM connect_links") == 1


async def test_a_link_is_stored_as_a_hash(desk: Desk) -> None:
    """Whoever reads the table cannot open a page."""
    token = (await desk.link()).rpartition("/")[2]
    row = await desk.pool.fetchrow("SELECT l::text AS row FROM connect_links l")
    assert row is not None
    assert token not in row["row"]
    assert token.encode().hex() not in row["row"]


async def test_a_refused_key_may_be_tried_again(desk: Desk) -> None:
    """The vendor's words are shown, escaped; the key is not; nothing is kept; the next key connects."""
    path, browser = await desk.link(), await desk.browser()
    refused = await browser.send(path, 0, api_key=WRONG_KEY)
    assert refused.status == 422
    assert is_page(refused)
    assert "Authentication required &lt;b&gt;&amp;&lt;/b&gt;" in refused.text
    assert WRONG_KEY not in refused.text
    malformed = await browser.send(path, 0, api_key="not a key")
    assert malformed.status == 422
    assert 'aria-invalid="true"' in malformed.text
    assert re.search(r'aria-describedby="way0-api_key-help way0-api_key-wrong"', malformed.text)
    assert "not a key" not in malformed.text
    assert await connected(desk.pool) == []
    assert (await browser.send(path, 0, api_key=KEY)).status == 200


async def test_a_form_is_for_the_browser_that_it_was_drawn_for(desk: Desk) -> None:
    """Sent by another browser, without cookie, or with another link's token, it is refused and not tried."""
    path, other = await desk.link("ada"), await desk.link("bob")
    mine, theirs, fresh = [await desk.browser() for _ in range(3)]
    drawn = (await mine.ask("GET", path)).form_token
    await theirs.ask("GET", path)
    sent = {"_form": drawn, "_way": "0", "api_key": KEY}
    for browser, at, data in (
        (theirs, path, sent),
        (fresh, path, sent),
        (mine, other, sent),
        (mine, path, {**sent, "_form": ""}),
        (mine, path, {**sent, "_form": "é"}),
    ):
        page = await browser.ask("POST", at, data=data)
        assert (page.status, is_page(page)) == (400, True)
    assert desk.vendor.asked == []
    assert (await mine.ask("POST", path, data=sent)).status == 200


async def test_the_cookie_is_for_this_server_alone(desk: Desk) -> None:
    """Not for scripts, not for other sites' forms; drawn again, the page keeps it: both forms work."""
    path, browser = await desk.link(), await desk.browser()
    first = await browser.ask("GET", path)
    cookie = first.headers["set-cookie"]
    for word in ("qlaud-connect=", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"):
        assert word in cookie
    second = await browser.ask("GET", path)
    assert second.headers["set-cookie"] == cookie
    assert second.form_token == first.form_token


async def test_a_link_tries_ten_keys(desk: Desk) -> None:
    """The eleventh is not taken to the vendor, right or wrong."""
    path, browser = await desk.link(), await desk.browser()
    data = {"_form": (await browser.ask("GET", path)).form_token, "_way": "0"}
    tried = [await browser.ask("POST", path, data={**data, "api_key": WRONG_KEY}) for _ in range(10)]
    assert {page.status for page in tried} == {422}
    assert len(desk.vendor.asked) == 10
    worn = await browser.ask("POST", path, data={**data, "api_key": KEY})
    assert (worn.status, is_page(worn)) == (410, True)
    assert len(desk.vendor.asked) == 10


async def test_two_who_send_at_once_make_one_connection(desk: Desk) -> None:
    """Both keys are good and both are verified; one is kept, the other is told that the link was used."""
    path, browser = await desk.link(), await desk.browser()
    desk.vendor.before_answer = asyncio.Barrier(2).wait
    data = {"_form": (await browser.ask("GET", path)).form_token, "_way": "0", "api_key": KEY}
    pages = await asyncio.gather(*(browser.ask("POST", path, data=data) for _ in range(2)))
    assert sorted(page.status for page in pages) == [200, 410]
    assert await desk.pool.fetchval("SELECT count(*) FROM connections") == 1


async def test_whoever_dies_while_saving_has_changed_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection and the use of its link are one transaction: undone together, done together."""
    path, browser = await desk.link(), await desk.browser()
    save = desk.connections.save

    async def saved_and_gone(*given: Any) -> None:
        await save(*given)
        raise RuntimeError("the process dies before the commit")

    with monkeypatch.context() as patch:
        patch.setattr(desk.connections, "save", saved_and_gone)
        lost = await browser.send(path, 0, api_key=KEY)
    assert (lost.status, is_page(lost)) == (500, True)
    assert await connected(desk.pool) == []
    assert (await browser.send(path, 0, api_key=KEY)).status == 200
    assert len(await connected(desk.pool)) == 1


async def test_the_accounts_own_connection_says_so(desk: Desk) -> None:
    """A link without an end user is for everybody who uses the app."""
    path, browser = await desk.link(None), await desk.browser()
    assert "everybody who uses this app" in (await browser.ask("GET", path)).text
    assert (await browser.send(path, 0, api_key=KEY)).status == 200
    assert await connected(desk.pool) == [(None, "linear", "Ada (Acme)")]


async def test_a_vendor_that_is_not_set_up_says_so(desk: Desk) -> None:
    """Gmail has OAuth alone: without an application there is no form."""
    page = await (await desk.browser()).ask("GET", await desk.link(connector="gmail"))
    assert page.status == 200
    assert "not set up on this server" in page.text
    assert "<form" not in page.text


async def test_a_connector_that_is_gone_ends_its_links(desk: Desk) -> None:
    """A link to a vendor that the catalogue no longer has is over."""
    page = await (await desk.browser()).ask("GET", await desk.link(connector="no-such-vendor"))
    assert (page.status, is_page(page)) == (410, True)


async def test_other_sites_may_not_read_a_page(desk: Desk) -> None:
    """No CORS header, whoever asks."""
    page = await (await desk.browser()).ask(
        "GET", await desk.link(), headers={"origin": "https://evil.example"}
    )
    assert not [name for name in page.headers if name.startswith("access-control")]


async def test_neither_link_nor_key_is_logged(desk: Desk) -> None:
    """The log has the route and the outcome."""
    path, browser = await desk.link(), await desk.browser()
    with capture_logs() as lines:
        await browser.send(path, 0, api_key=WRONG_KEY)
        await browser.send(path, 0, api_key=KEY)
        await browser.ask("GET", path)
        await browser.ask("GET", path + "/more")
    assert {line["route"] for line in lines if line["event"] == "request"} == {"/connect/{token}", "unknown"}
    for secret in (path.rpartition("/")[2], KEY, WRONG_KEY):
        assert secret not in str(lines)
