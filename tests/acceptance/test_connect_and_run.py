"""A model finds a vendor's tool, the user connects an account on our page, and the tool runs: five vendors.

The page is filled in by a real Chromium without JavaScript; the vendor is a stand-in that holds every
request against the vendor's own specification.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browser import DESKTOP, PHONE, page_of, running_chromium
from canary import leaks
from cluster import MODEL, Api, Cluster, running_cluster, script
from fakes.vendors.conversations import CONVERSATIONS, LINK, Conversation
from fakes.vendors.server import VendorDouble, served
from playwright.async_api import Browser, expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

VENDORS = pytest.mark.parametrize("talk", CONVERSATIONS.values(), ids=list(CONVERSATIONS))


@dataclass
class Scene:
    """A running product, the vendors beside it, and a browser."""

    cluster: Cluster
    vendors: Mapping[str, VendorDouble]
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
        addresses = {f"QLAUD_CONNECTOR_BASE_URL_{slug.upper()}": v.url for slug, v in vendors.items()}
        database_url, redis_url = await stack.enter_async_context(fresh_servers())
        cluster = await stack.enter_async_context(
            running_cluster(database_url, redis_url, output=output, QLAUD_LOG_LEVEL="debug", **addresses)
        )
        yield Scene(cluster, vendors, browser, output)


@dataclass
class Turn:
    """A streamed turn: its bytes and its events."""

    raw: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events, in order."""
        lines = self.raw.split(b"\n")
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]

    @property
    def text(self) -> str:
        """What the model said at last."""
        deltas = [e.get("delta", {}) for e in self.events]
        return "".join(d["text"] for d in deltas if d.get("type") == "text_delta")

    @property
    def outputs(self) -> list[Any]:
        """What each tool call gave."""
        return [e["output"] for e in self.events if e["type"] == "qlaud.tool_dispatch_done"]


async def say(user: Api, thread: str, words: str, steps: list[dict[str, Any]]) -> Turn:
    """One streamed turn in dynamic mode."""
    body = {"model": MODEL, "max_tokens": 1024, "content": script(*steps, say=words), "stream": True}
    url = f"{user.base_url}/v1/threads/{thread}/messages"
    async with user.session.post(url, json=body, headers={"x-api-key": user.key}) as response:
        assert response.status == 200, await response.text()
        return Turn(await response.read())


async def fill_in(scene: Scene, talk: Conversation, link: str) -> bytes:
    """What the user does with the link; the page's HTML at the end."""
    connector = talk.name
    async with page_of(scene.browser, PHONE if talk.slug == "linear" else DESKTOP) as page:
        await page.goto(link)
        await expect(page.get_by_role("heading", level=1)).to_contain_text(f"Connect {connector}")
        wrong = talk.credential[:-4] + "zzzz"
        for credential in (wrong, talk.credential):
            await page.get_by_label(talk.label).fill(credential)
            await page.get_by_role("button", name=f"Check and connect {connector}").click()
            if credential == wrong:
                await expect(page.get_by_role("alert")).to_contain_text(f"{connector} is not connected")
        await expect(page.get_by_role("status")).to_contain_text(f"Connected as {talk.connected_as}")
        width = await page.locator("html").bounding_box()
        assert width is not None
        assert width["width"] <= (PHONE if talk.slug == "linear" else DESKTOP)["width"]
        return (await page.content()).encode()


@VENDORS
async def test_a_tool_is_found_connected_and_run(scene: Scene, talk: Conversation) -> None:
    """Search, not connected, link, page, done: the vendor has one new thing, and nobody saw the key."""
    user, _ = await scene.cluster.key()
    vendor = scene.vendors[talk.slug]
    thread = (await user.post("/v1/threads", {"end_user_id": f"user-of-{talk.slug}"}))["id"]

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
    for path in (f"/v1/threads/{thread}/messages", "/v1/connections", f"/v1/threads/{thread}"):
        places[path] = json.dumps(await user.get(path)).encode()
    places["what the model got"] = json.dumps(scene.cluster.scripted.requests()).encode()
    places["logs"] = scene.output.read_bytes()
    assert leaks(talk.credential, places) == []
