"""Signing in at a vendor by OAuth, from the connect page and back, and renewing tokens later."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sign_in_double import BASE_URL, CLIENT_ID, CLIENT_SECRET, KEY, Desk, running_desk
from structlog.testing import capture_logs

from qlaud_actors.connectors import connection_store
from qlaud_actors.connectors.connection import RefreshFailed, RefreshRefused
from qlaud_actors.connectors.connections import Owner
from qlaud_actors.connectors.model import Auth, Connector
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.settings import Secret

ADA = Owner(ACCOUNT, "ada")
OAUTH = 1
"""The number of this way at Linear."""


@pytest.fixture
async def desk(pool: Pool, vault: Vault, redis_url: str) -> AsyncIterator[Desk]:
    """A front door with a vendor behind it."""
    async with running_desk(pool, vault, redis_url) as desk:
        yield desk


def linear(desk: Desk) -> tuple[Connector, Auth]:
    connector = desk.catalog.find("linear")
    assert connector is not None
    return connector, connector.auth[OAUTH]


async def test_a_sign_in_goes_there_and_back(desk: Desk, vault: Vault) -> None:
    """State, PKCE and redirect are as the RFCs say; the tokens are verified, sealed and dated."""
    path, browser = await desk.link(), await desk.browser()
    leaving = await browser.send(path, OAUTH)
    assert leaving.status == 200
    assert leaving.headers["cache-control"] == "no-store"
    there = urlsplit(leaving.goes_to)
    assert f"{there.scheme}://{there.netloc}{there.path}" == f"{desk.vendor.url}/oauth/authorize"
    query = {name: values[0] for name, values in parse_qs(there.query).items()}
    assert query.pop("state")
    assert query.pop("code_challenge")
    assert query == {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": f"{BASE_URL}/connect/oauth/callback",
        "scope": "read,write",
        "code_challenge_method": "S256",
    }
    made = await browser.back(*desk.vendor.approve(leaving.goes_to))
    assert made.status == 200
    assert "Connected as <strong>Ada (Acme)</strong>" in made.text
    found = await desk.connections.find(ADA, "linear")
    assert found is not None
    assert found.scheme == OAUTH
    assert found.access_expires_at_ms is not None
    assert found.access_expires_at_ms - found.created_at_ms == pytest.approx(3_600_000, abs=60_000)
    opened = await connection_store.open_secrets(desk.pool, vault, found, "test")
    assert {name: value.reveal() for name, value in opened.items()} == {
        "access_token": "access-1",
        "refresh_token": "refresh-1",
    }
    assert (await browser.ask("GET", path)).status == 410


async def test_a_sign_in_ends_in_the_browser_that_began_it(desk: Desk) -> None:
    """Nobody can have somebody else finish what they began: the code is not even exchanged."""
    path, attacker, victim = await desk.link("attacker"), await desk.browser(), await desk.browser()
    leaving = await attacker.send(path, OAUTH)
    await victim.ask("GET", await desk.link("victim"))
    lost = await victim.back(*desk.vendor.approve(leaving.goes_to, "Victim"))
    assert lost.status == 400
    assert "another browser" in lost.text
    assert desk.vendor.asked == []
    assert await desk.pool.fetchval("SELECT count(*) FROM connections") == 0


async def test_a_sign_in_comes_back_once(desk: Desk) -> None:
    """Of two callbacks at once one connects; a later one, or one with another state, finds nothing."""
    path, browser = await desk.link(), await desk.browser()
    code, state = desk.vendor.approve((await browser.send(path, OAUTH)).goes_to)
    assert (await browser.back(code, state[::-1])).status == 400
    pages = await asyncio.gather(*(browser.back(code, state) for _ in range(3)))
    assert min(page.status for page in pages) == 200
    assert {page.status for page in pages} <= {200, 400, 410}
    assert desk.vendor.asked.count("/oauth/token") == 1
    assert (await browser.back(code, state)).status in (400, 410)


async def test_a_newer_sign_in_voids_the_older(desk: Desk) -> None:
    """Somebody who went back and began anew finishes the second one only."""
    path, browser = await desk.link(), await desk.browser()
    first = desk.vendor.approve((await browser.send(path, OAUTH)).goes_to)
    second = desk.vendor.approve((await browser.send(path, OAUTH)).goes_to)
    assert (await browser.back(*first)).status == 400
    assert (await browser.back(*second)).status == 200


async def test_two_sign_ins_in_one_browser(desk: Desk) -> None:
    """They do not disturb each other."""
    browser, paths = await desk.browser(), [await desk.link("ada"), await desk.link("bob")]
    begun = [desk.vendor.approve((await browser.send(path, OAUTH)).goes_to) for path in paths]
    assert [(await browser.back(*one)).status for one in begun] == [200, 200]


async def test_a_cancelled_sign_in_shows_the_form_again(desk: Desk) -> None:
    """What the vendor says is told in words, and the same link still takes a key."""
    path, browser = await desk.link(), await desk.browser()
    for error, words in (("access_denied", "was cancelled"), ("<b>&", "&lt;b&gt;&amp;"), ("", "no code")):
        leaving = await browser.send(path, OAUTH)
        _, state = desk.vendor.approve(leaving.goes_to)
        callback = {"state": state, **({"error": error} if error else {})}
        page = await browser.ask("GET", "/connect/oauth/callback", params=callback)
        assert page.status == 422
        assert words in page.text
        assert "<b>" not in page.text
        assert f'action="{path}"' in page.text
    data = {"_form": page.form_token, "_way": "0", "api_key": KEY}
    assert (await browser.ask("POST", path, data=data)).status == 200


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (400, {"error": "invalid_grant", "error_description": "Code <old>."}, "Code &lt;old&gt;."),
        (200, {"error": "bad_verification_code"}, "bad_verification_code"),
        (200, {"ok": False, "error": "invalid_code"}, "invalid_code"),
        (500, {}, "HTTP 500"),
        (200, {"token_type": "Bearer"}, "it gave no access token"),
        (200, {"access_token": "unknown-token"}, "Authentication required"),
        (400, {"error": "x", "error_description": f"bad secret {CLIENT_SECRET}"}, "bad secret [hidden]"),
    ],
)
async def test_a_vendor_that_gives_no_token(
    desk: Desk, status: int, answer: dict[str, Any], words: str
) -> None:
    """Its words are shown without any secret, nothing is kept, and the next attempt connects."""
    path, browser = await desk.link(), await desk.browser()
    desk.vendor.token_answer = (status, answer)
    refused = await browser.back(*desk.vendor.approve((await browser.send(path, OAUTH)).goes_to))
    assert refused.status == 422
    assert words in refused.text
    assert CLIENT_SECRET not in refused.text
    assert await desk.pool.fetchval("SELECT count(*) FROM connections") == 0
    desk.vendor.token_answer = None
    again = await browser.back(*desk.vendor.approve((await browser.send(path, OAUTH)).goes_to))
    assert again.status == 200


async def test_an_expired_link_ends_the_sign_in(desk: Desk) -> None:
    """Whoever stays at the vendor for too long gets a new link; their code is not used."""
    path, browser = await desk.link(), await desk.browser()
    begun = desk.vendor.approve((await browser.send(path, OAUTH)).goes_to)
    await desk.pool.execute("UPDATE connect_links SET expires_at = now()")
    assert (await browser.back(*begun)).status == 410
    assert desk.vendor.asked == []


async def test_what_waits_for_a_sign_in_is_sealed_or_hashed(desk: Desk) -> None:
    """State and verifier cannot be read from the table, and nothing of either is logged."""
    path, browser = await desk.link(), await desk.browser()
    with capture_logs() as lines:
        leaving = await browser.send(path, OAUTH)
        row = await desk.pool.fetchrow("SELECT l::text AS row, verifier FROM connect_links l")
        code, state = desk.vendor.approve(leaving.goes_to)
        assert (await browser.back(code, state)).status == 200
    assert row is not None
    assert row["verifier"] is not None
    for secret in (state, code, path.rpartition("/")[2], "access-1", "refresh-1", CLIENT_SECRET):
        assert secret not in str(lines)
        assert secret not in row["row"]
    left = await desk.pool.fetchrow("SELECT state_hash, verifier, settings FROM connect_links")
    assert left is not None
    assert tuple(left) == (None, None, None)


async def test_tokens_are_refreshed(desk: Desk) -> None:
    """A refresh token gives new ones; a dead one is told from a vendor, or an application, in trouble."""
    connector, auth = linear(desk)
    desk.vendor.refreshes["good"] = "Ada"
    new = await desk.sign_in.refresh(connector, auth, {}, Secret("good"))
    assert (new.access.reveal(), new.refresh and new.refresh.reveal()) == ("access-1", "refresh-1")
    assert new.expires_at is not None
    with pytest.raises(RefreshRefused):
        await desk.sign_in.refresh(connector, auth, {}, Secret("good"))
    trouble = ((401, {"error": "invalid_client"}), (503, {}), (200, {}), (429, {"error": "slow"}))
    for status, answer in trouble:
        desk.vendor.token_answer = (status, answer)
        with pytest.raises(RefreshFailed) as failed:
            await desk.sign_in.refresh(connector, auth, {}, Secret("good"))
        assert "good" not in str(failed.value)


async def sign_in(desk: Desk, end_user_id: str) -> None:
    """Connect by signing in as Ada."""
    path, browser = await desk.link(end_user_id), await desk.browser()
    leaving = await browser.send(path, OAUTH)
    assert (await browser.back(*desk.vendor.approve(leaving.goes_to))).status == 200


async def test_disconnecting_revokes_the_token_at_the_vendor(desk: Desk) -> None:
    """Once the connection is gone, on record, and not while somebody else uses the same account."""
    await sign_in(desk, "ada")
    await sign_in(desk, "bob")
    assert await desk.connections.disconnect(Owner(ACCOUNT, "bob"), "linear")
    await desk.revocations.close()
    assert "/oauth/revoke" not in desk.vendor.asked
    gone: list[int] = []

    async def look() -> None:
        gone.append(await desk.pool.fetchval("SELECT count(*) FROM connection_secrets"))

    desk.vendor.before_answer = look
    with capture_logs() as logs:
        assert await desk.connections.disconnect(ADA, "linear")
        await desk.revocations.close()
    assert (desk.vendor.asked[-1], gone) == ("/oauth/revoke", [0])
    assert set(desk.vendor.refreshes) == {"refresh-3"}  # Bob's, whom nobody asked to be revoked
    assert [line["event"] for line in logs if "revoked" in line["event"]] == ["token_revoked"]
    assert "refresh-" not in str(logs)
    purposes = await desk.pool.fetch("SELECT field FROM vault_audit WHERE purpose = 'revoke'")
    assert [row["field"] for row in purposes] == ["refresh_token"]
    assert not await desk.connections.disconnect(ADA, "linear")


async def test_a_vendor_that_is_away_does_not_keep_anybody_connected(desk: Desk) -> None:
    """The disconnection stands and is not waited with; that the token lives on is logged without it."""
    await sign_in(desk, "ada")
    desk.catalog.overrides["linear"] = "http://127.0.0.1:9"  # type: ignore[index]
    with capture_logs() as logs:
        assert await desk.connections.disconnect(ADA, "linear")
        assert await desk.connections.find(ADA, "linear") is None
        await desk.revocations.close()
    (line,) = [line for line in logs if "revoked" in line["event"]]
    assert (line["event"], line["error"]) == ("token_not_revoked", "SendFailed")
    assert "refresh-" not in str(logs)


async def test_a_key_is_not_revoked(desk: Desk) -> None:
    """A key that a person has made is theirs to revoke."""
    path, browser = await desk.link(), await desk.browser()
    await browser.send(path, 0, api_key=KEY)
    assert await desk.connections.disconnect(ADA, "linear")
    await desk.revocations.close()
    assert "/oauth/revoke" not in desk.vendor.asked
