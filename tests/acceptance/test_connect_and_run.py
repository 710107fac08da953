"""A model finds a vendor's tool, the user connects an account on our page, and the tool runs: five vendors.

The page is filled in by a real Chromium without JavaScript; the vendor is a stand-in that holds every
request against the vendor's own specification.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browser import DESKTOP, PHONE, page_of, picture, running_chromium
from canary import leaks
from cluster import Api, Cluster, running_cluster
from fakes.mcp_double import McpDouble, listed, mcp_double
from fakes.vendors.conversations import (
    CONNECTIONS,
    CONVERSATIONS,
    EXECUTE,
    LINK,
    SEARCH,
    Conversation,
    calling,
)
from fakes.vendors.github import GitHub
from fakes.vendors.server import VendorDouble, served
from fakes.vendors.slack import Slack
from playwright.async_api import Browser, expect
from talking import say

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = "Acme Notes"
VENDORS = pytest.mark.parametrize("talk", CONVERSATIONS.values(), ids=list(CONVERSATIONS))


@dataclass
class Scene:
    """A running product with an app's account, the vendors beside it, and a browser."""

    cluster: Cluster
    app: Api
    vendors: Mapping[str, VendorDouble]
    server: McpDouble
    """Linear's own MCP server."""
    browser: Browser
    output: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(fresh_servers: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One for all tests of a process."""
    output = tmp_path_factory.mktemp("cluster") / "output.txt"
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(running_chromium())
        vendors = {
            slug: await stack.enter_async_context(served(talk.double()))
            for slug, talk in CONVERSATIONS.items()
        }
        environ = {f"QLAUD_CONNECTOR_BASE_URL_{slug.upper()}": v.url for slug, v in vendors.items()}
        for slug, vendor in vendors.items():
            if isinstance(vendor, GitHub | Slack):
                environ[f"QLAUD_OAUTH_{slug.upper()}_CLIENT_ID"] = vendor.oauth.client_id
                environ[f"QLAUD_OAUTH_{slug.upper()}_CLIENT_SECRET"] = vendor.oauth.client_secret
        server = await stack.enter_async_context(mcp_double(listed("list_issues"), listed("mirror")))
        environ |= {"QLAUD_MCP_BASE_URL_LINEAR": server.url, "QLAUD_ALLOW_PRIVATE_WEBHOOKS": "1"}
        database_url, redis_url = await stack.enter_async_context(fresh_servers())
        cluster = await stack.enter_async_context(
            running_cluster(database_url, redis_url, output=output, QLAUD_LOG_LEVEL="debug", **environ)
        )
        account = await cluster.admin.post("/v1/accounts", {"name": APP, "starter_credit_usd": 5})
        app = Api(cluster.admin.session, cluster.admin.base_url, account["secret"])
        yield Scene(cluster, app, vendors, server, browser, output)


async def newcomer(scene: Scene, end_user_id: str) -> tuple[Api, str]:
    """A user with a key of their own, and a thread."""
    made = await scene.app.post("/v1/keys", {"name": "a user", "end_user_id": end_user_id})
    user = Api(scene.app.session, scene.app.base_url, made["secret"])
    return user, (await user.post("/v1/threads", {}))["id"]


async def fill_in(scene: Scene, talk: Conversation, link: str) -> bytes:
    """What the user does with the link; the page's HTML at the end."""
    connector, viewport = talk.name, PHONE if talk.slug == "linear" else DESKTOP
    async with page_of(scene.browser, viewport) as page:
        await page.goto(link)
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Connect {connector} to {APP}")
        await picture(page, f"connect-{talk.slug}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        wrong = talk.credential[:-4] + "zzzz"
        for credential in (wrong, talk.credential):
            await page.get_by_label(talk.label).fill(credential)
            await page.get_by_role("button", name=f"Check and connect {connector}").click()
            if credential == wrong:
                await expect(page.get_by_role("alert")).to_contain_text(f"{connector} does not accept this: ")
                await picture(page, f"connect-{talk.slug}-refused")
        await expect(page.get_by_role("status")).to_contain_text(f"Connected as {talk.connected_as}")
        await picture(page, f"connect-{talk.slug}-done")
        return (await page.content()).encode()


@VENDORS
async def test_a_tool_is_found_connected_and_run(scene: Scene, talk: Conversation) -> None:
    """Search, not connected, link, page, done: the vendor has one new thing, and nobody saw the key."""
    user, thread = await newcomer(scene, f"ada+{talk.slug}@acme.test")
    vendor = scene.vendors[talk.slug]
    vendor.forget()

    asked = await say(user, thread, talk.wish, talk.asking())
    found, schemas, refused, offered = asked.outputs
    assert talk.tool in [tool["name"] for tool in found["results"][:5]]
    assert schemas["schemas"][0]["name"] == talk.tool
    assert refused["results"][0]["is_error"] is True
    assert "connect" in json.dumps(refused["results"][0])
    assert vendor.calls == []
    link = re.search(LINK, asked.text)
    assert link is not None, asked.text
    assert link[0] in json.dumps(offered)

    page = await fill_in(scene, talk, link[0])
    again = await scene.cluster.apis[0].session.get(link[0])
    assert again.status == 410

    done = await say(user, thread, "I have connected it.", talk.going_on())
    assert talk.made_id in done.text
    assert len(vendor.made) == 1
    assert vendor.mistakes == []
    assert vendor.calls[-1].credential == talk.credential

    places = {"first stream": asked.raw, "second stream": done.raw, "page": page, "410": await again.read()}
    listed = await user.post("/v1/connections", {"action": "list"})
    assert talk.connected_as in json.dumps(listed)
    places["connections"] = json.dumps(listed).encode()
    for path in (f"/v1/threads/{thread}/messages", f"/v1/threads/{thread}"):
        places[path] = json.dumps(await user.get(path)).encode()
    places["what the model got"] = json.dumps(scene.cluster.scripted.requests()).encode()
    places["logs"] = scene.output.read_bytes()
    assert leaks(talk.credential, places) == []


@pytest.mark.parametrize("talk", [CONVERSATIONS["github"], CONVERSATIONS["slack"]], ids=["github", "slack"])
async def test_an_account_is_connected_by_signing_in(scene: Scene, talk: Conversation) -> None:
    """To the vendor's own page and back, with the operator's application; then the tool runs."""
    user, thread = await newcomer(scene, f"signs-in-to-{talk.slug}")
    vendor = scene.vendors[talk.slug]
    vendor.forget()
    asked = await say(user, thread, talk.wish, talk.asking())
    link = re.search(LINK, asked.text)
    assert link is not None, asked.text
    async with page_of(scene.browser) as page:
        await page.goto(link[0])
        way = f"Sign in with {talk.name}"
        await page.get_by_text(f"Another way: {way}").click()
        await page.get_by_role("button", name=way).click()
        await page.get_by_role("button", name="Authorize").click()
        await expect(page.get_by_role("status")).to_contain_text(f"Connected as {talk.connected_as}")
    done = await say(user, thread, "I have connected it.", talk.going_on())
    assert re.search(talk.id_pattern, done.text)
    assert len(vendor.made) == 1
    assert vendor.mistakes == []


async def test_two_users_of_one_mcp_server_have_their_own_credentials(scene: Scene) -> None:
    """Found, connected on the page and called at the same time: each call carries its own user's token."""
    server, tokens = scene.server, {name: f"lin_api_{name}{'x1Y2z3' * 6}" for name in ("eve", "fay")}
    server.people = {token: name for name, token in tokens.items()}
    order = {"name": "tracker", "catalog_slug": "linear", "auth_mode": "per_user"}
    assert (await scene.app.post("/v1/mcp-servers", order))["tools_cache_at"] is None
    users = {name: await newcomer(scene, name) for name in tokens}

    def ask(tool: str) -> dict[str, Any]:
        return calling(EXECUTE, calls=[{"tool": tool, "args": {"q": tool}}])

    places: dict[str, bytes] = {}
    for name, (user, thread) in users.items():
        # Once Eve is connected, the server's tools are known.
        first = "tracker/connect" if name == "eve" else "tracker/list_issues"
        lines = [
            calling(SEARCH, intent="list issues with the tracker"),
            ask(first),
            calling(CONNECTIONS, action="connect", tool=first),
            {"text": "Please connect your account here: {quote}", "quote": LINK},
        ]
        asked = await say(user, thread, "What is open at Linear?", lines)
        found, refused, _ = asked.outputs
        states = {one["name"]: (one["connector"], one["status"]) for one in found["results"]}
        assert states[first] == ("mcp-linear", "not_connected")
        assert refused["results"][0]["status"] == "not_connected"
        link = re.search(LINK, asked.text)
        assert link is not None, asked.text
        async with page_of(scene.browser) as page:
            await page.goto(link[0])
            await page.get_by_label("API key").fill(tokens[name])
            await page.get_by_role("button", name="Check and connect").click()
            await expect(page.get_by_role("heading", level=1)).to_contain_text("is connected to")
            places[f"{name}'s page"] = (await page.content()).encode()
        places[f"{name}'s first stream"] = asked.raw
    assert server.calls == []

    lines = [ask("tracker/list_issues"), ask("tracker/mirror"), {"text": "Done."}]
    turns = [say(user, thread, "I have connected it.", lines) for user, thread in users.values()]
    for name, turn in zip(users, await asyncio.gather(*turns), strict=True):
        assert [output["results"][0]["status"] for output in turn.outputs] == ["ok", "ok"]
        places[f"{name}'s second stream"] = turn.raw
    assert sorted(server.who()) == ["eve", "eve", "fay", "fay"]
    assert {headers["authorization"] for headers in server.call_headers} == {
        f"Bearer {token}" for token in tokens.values()
    }
    places["what the model got"] = json.dumps(scene.cluster.scripted.requests()).encode()
    places["logs"] = scene.output.read_bytes()
    assert [leaks(token, places) for token in tokens.values()] == [[], []]
