"""Built-in tools: listed, registered, called over the real wire, shown without secrets, revoked."""

import base64
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from front_door import Door, front_door
from receiver import Receiver, hangs_up, running_receiver, says

from qlaud_actors.connectors.catalog import OVERRIDE, ConnectorCatalog
from qlaud_actors.connectors.connection import Owner
from qlaud_actors.connectors.connections import Connections
from qlaud_actors.connectors.credentials import Credentials
from qlaud_actors.connectors.execute import Executor
from qlaud_actors.connectors.sending import VendorSender
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.settings import Settings
from qlaud_actors.tools.builtins.caller import BuiltinCaller
from qlaud_actors.tools.builtins.catalog import Builtins
from qlaud_actors.tools.builtins.vendor import VendorTools
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.store import list_tools

TOOLS = "/v1/tools"
VENDORS = ("BRAVE_SEARCH", "RESEND", "LINEAR", "ZENDESK", "SLACK", "GITHUB", "NOTION", "TWILIO")
KEY = "sk-" + "k" * 40
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 " + b"\x00" * 64
CONFIGS: dict[str, dict[str, str]] = {
    "web-search": {"brave_api_key": "BSA-secret-1234"},
    "send-email": {"api_key": "re_secret1234", "from": "Acme <hi@acme.ex>", "reply_to": "a@x.ex, b@x.ex"},
    "linear-create-issue": {"api_key": "lin_api_" + "s" * 40, "team_id": "team-1"},
    "zendesk-create-ticket": {
        "subdomain": "acme", "email": "ada@acme.example", "api_token": "z" * 40, "group_id": "42",
    },
    "slack-post-message": {"token": "xoxb-secret-123456", "channel": "C1"},
    "github-create-issue": {"token": "ghp_" + "s" * 36, "owner": "acme", "repo": "app"},
    "notion-create-page": {"token": "ntn_" + "s" * 40, "parent_page_id": "page-1"},
    "twilio-send-sms": {
        "account_sid": "AC" + "0" * 32, "api_key_sid": "SK" + "0" * 32, "api_key_secret": "twilio-secret",
        "from": "+14155550100",
    },
    "image-generation": {"openai_api_key": KEY},
}  # fmt: skip


@dataclass
class Office:
    """A front door, one server that plays all vendors, and what runs built-ins."""

    door: Door
    vendor: Receiver
    caller: BuiltinCaller
    connections: Connections
    pool: Pool
    vault: Vault

    async def register(self, provider: str, **fields: Any) -> Any:
        """Register a built-in: the answer."""
        body = {"name": provider, "provider": f"qlaud-builtin/{provider}", **fields}
        if provider in CONFIGS:
            body.setdefault("config", CONFIGS[provider])
        status, made = await self.door.ask("POST", TOOLS, body)
        assert status == 201, made
        return made

    async def tool(self, name: str) -> Tool:
        """A registered tool as the loop sees it."""
        return next(tool for tool in await list_tools(self.pool, self.vault, ACCOUNT) if tool.name == name)

    async def call(
        self, tool_name: str, context: CallContext | None = None, /, **arguments: Any
    ) -> ToolOutcome:
        """Call a tool as a turn does."""
        context = context or CallContext(ACCOUNT, "req_1", end_user_id="ada")
        return await self.caller.call(
            await self.tool(tool_name), ToolCall("call_1", "toolu_1", tool_name, arguments), context
        )

    async def execute(self, tool_name: str, key: str | None = None, /, **arguments: Any) -> Any:
        """Call a tool over REST: its result."""
        body = {"calls": [{"tool": tool_name, "args": arguments}]}
        status, answer = await self.door.ask("POST", f"{TOOLS}/execute", body, key=key)
        assert status == 200, answer
        return answer["results"][0]


async def no_wait(_: float) -> None:
    """Retry at once."""


@pytest.fixture
async def office(pool: Pool, vault: Vault) -> AsyncIterator[Office]:
    """All vendors are on loopback."""
    async with running_receiver() as vendor, open_guarded_session(allow_private=True) as session:
        base = vendor.url.removesuffix("/hook")
        connectors = ConnectorCatalog.load({f"{OVERRIDE}{name}": base for name in VENDORS})
        sender = VendorSender(session, session, allow_private=True)
        builtins = Builtins.load(connectors)
        connections = Connections(pool, vault, connectors, sender)
        executor = Executor(connectors, connections, Credentials(pool, vault, None), sender, no_wait)
        vendors = VendorTools(sender, connectors.overrides, executor, no_wait)
        caller = BuiltinCaller(builtins, vendors, pool, allow_private=True, openai_base_url=f"{base}/v1")
        settings = Settings(allow_private_webhooks=True)
        dispatcher = Dispatcher({"builtin": caller}, KeptCalls(pool))
        services = {"vault": vault, "builtins": builtins, "dispatcher": dispatcher}
        async with front_door(pool, settings=settings, **services) as door:
            yield Office(door, vendor, caller, connections, pool, vault)


async def test_the_catalogue_is_public(office: Office) -> None:
    """Twelve built-ins, without a key, with schemas; what is secret says so."""
    status, answer = await office.door.ask("GET", "/v1/builtins", key="")
    found = {row["provider"].removeprefix("qlaud-builtin/"): row for row in answer["data"]}
    assert (status, answer["object"], len(found)) == (200, "list", 12)
    assert set(CONFIGS) <= set(found)
    assert {row["authMode"] for row in found.values()} == {"tenant", "either"}
    search = found["web-search"]
    assert search["provider_brand"] == "brave"
    assert list(search["input_schema"]["properties"]) == search["input_schema"]["required"] == ["query"]
    fields = search["config_schema"]["properties"]
    assert search["config_schema"]["required"] == ["brave_api_key"]
    assert fields["brave_api_key"]["format"] == "password"
    assert (fields["country"]["default"], fields["safesearch"]["default"]) == ("us", "moderate")
    assert fields["safesearch"]["enum"] == ["off", "moderate", "strict"]
    secret = {name for row in found.values() for name, f in row["config_schema"]["properties"].items()
              if f.get("format") == "password"}  # fmt: skip
    assert secret == {
        *("brave_api_key", "api_key", "api_token", "token", "api_key_secret", "openai_api_key", "secrets")
    }


async def test_a_configuration_is_sealed_and_never_shown(office: Office, pool: Pool) -> None:
    """Neither the answers nor the database hold it; the opening is on record; revoking forgets it."""
    made = await office.register("github-create-issue", description="File a bug.")
    assert made["kind"] == "builtin"
    assert made["provider"] == "qlaud-builtin/github-create-issue"
    assert made["auth_mode"] == "tenant"
    assert not {"secret", "webhook_url", "config"} & made.keys()
    assert list(made["input_schema"]["properties"]) == ["title", "body", "labels", "assignees", "milestone"]
    status, answer = await office.door.ask("GET", TOOLS)
    assert (status, answer["data"]) == (200, [made])
    row = await pool.fetchrow("SELECT * FROM tools")
    assert row is not None
    assert b"ghp_" not in row["config"]
    assert "ghp_" not in str({**dict(row), "config": ""})
    office.vendor.answers = [says({"number": 7}, 201)]
    await office.call("github-create-issue", title="t")
    (opening,) = await pool.fetch("SELECT owner, field, purpose FROM vault_audit")
    assert tuple(opening) == (f"tool:{made['id']}", "config", "tool_call:call_1")
    status, _ = await office.door.ask("DELETE", f"{TOOLS}/{made['id']}")
    assert (status, await pool.fetchval("SELECT config FROM tools")) == (200, None)


CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, str], dict[str, Any]]] = [
    (
        "web-search",
        {"query": "cats & dogs"},
        {"web": {"results": [{"title": "T", "url": "https://x.example", "description": "D", "profile": {}}]}},
        {"x-subscription-token": "BSA-secret-1234"},
        {"items": [{"title": "T", "url": "https://x.example", "description": "D"}]},
    ),
    (
        "send-email",
        {"to": ["bob@x.example"], "subject": "Hi", "text": "Hello"},
        {"id": "e1"},
        {"authorization": "Bearer re_secret1234", "idempotency-key": "call_1"},
        {"id": "e1"},
    ),
    (
        "linear-create-issue",
        {"title": "Broken"},
        {"data": {"issueCreate": {"success": True, "issue": {"identifier": "ENG-1"}}}},
        {"authorization": "lin_api_" + "s" * 40},
        {"identifier": "ENG-1"},
    ),
    (
        "zendesk-create-ticket",
        {"subject": "Help", "text": "It is broken."},
        {"ticket": {"id": 5, "subject": "Help"}},
        {"authorization": "Basic " + base64.b64encode(b"ada@acme.example/token:" + b"z" * 40).decode()},
        {"id": 5, "subject": "Help"},
    ),
    (
        "slack-post-message",
        {"text": "Hi"},
        {"ok": True, "ts": "1.2"},
        {"authorization": "Bearer xoxb-secret-123456"},
        {"ts": "1.2"},
    ),
    (
        "github-create-issue",
        {"title": "Bug"},
        {"number": 7},
        {"authorization": "Bearer ghp_" + "s" * 36},
        {"number": 7},
    ),
    (
        "notion-create-page",
        {"title": "Plan"},
        {"id": "p1"},
        {"authorization": "Bearer ntn_" + "s" * 40},
        {"id": "p1"},
    ),
    (
        "twilio-send-sms",
        {"to": "+14155550199", "body": "Hi"},
        {"sid": "SM1"},
        {"authorization": "Basic " + base64.b64encode(f"SK{'0' * 32}:twilio-secret".encode()).decode()},
        {"sid": "SM1"},
    ),
]  # fmt: skip
DECIDED = {
    "send-email": {"from": "Acme <hi@acme.ex>", "reply_to": ["a@x.ex", "b@x.ex"]},
    "linear-create-issue": "team-1",
    "zendesk-create-ticket": 42,
    "slack-post-message": "C1",
    "notion-create-page": "page-1",
    "twilio-send-sms": "%2B14155550100",
}


@pytest.mark.parametrize(
    ("name", "given", "says_", "headers", "gives"), CASES, ids=[case[0] for case in CASES]
)
async def test_a_vendor_is_called_with_the_accounts_own_credential(
    office: Office, name: str, given: dict[str, Any], says_: Any, headers: dict[str, str], gives: Any
) -> None:
    """The request carries the credential and what the configuration decides, the result is projected."""
    await office.register(name)
    office.vendor.answers = [says(says_)]
    assert await office.call(name, **given) == ToolOutcome(gives)
    (sent,) = office.vendor.headers
    assert headers.items() <= sent.items()
    decided = json.dumps(DECIDED.get(name, "")).strip('{}"')
    assert decided in office.vendor.bodies[0].decode().replace('":', '": ').replace(',"', ', "')


async def test_what_the_configuration_decides_is_not_the_models_choice(office: Office) -> None:
    """A decided input is not shown, and one that comes nevertheless is replaced."""
    made = await office.register("slack-post-message")
    assert "channel" not in made["input_schema"]["properties"]
    office.vendor.answers = [says({"ok": True, "ts": "1"})]
    assert not (await office.call("slack-post-message", text="x", channel="C666")).is_error
    assert json.loads(office.vendor.bodies[0])["channel"] == "C1"
    refused = await office.execute("slack-post-message", text="x", channel="C666")
    assert refused["is_error"]
    assert len(office.vendor.bodies) == 1


async def test_a_vendors_failure_is_words_without_the_credential(office: Office) -> None:
    """A refusal is told, a read is tried again, a write that broke off is not, and is told to be in doubt."""
    await office.register("web-search")
    office.vendor.answers = [says({"error": {"detail": "no BSA-secret-1234"}}, 422)]
    refused = await office.call("web-search", query="x")
    assert refused.is_error
    assert "no [hidden]" in refused.output["message"]
    office.vendor.bodies.clear()
    office.vendor.answers = [hangs_up, says({"web": {"results": []}})]
    assert await office.call("web-search", query="x") == ToolOutcome({"items": []})
    office.vendor.bodies.clear()
    await office.register("slack-post-message")
    office.vendor.answers = [hangs_up]
    lost = await office.call("slack-post-message", text="x")
    assert "may or may not have taken effect" in lost.output["message"]
    assert len(office.vendor.bodies) == 1


async def test_an_end_user_brings_the_credential(office: Office) -> None:
    """Per user, the configuration holds no credential; who has not connected is told how to."""
    made = await office.register(
        "slack-post-message", auth_mode="per_user", config={"channel": "C1"}, timeout_ms=5000
    )
    assert (made["auth_mode"], made["timeout_ms"]) == ("per_user", 5000)
    missing = await office.call("slack-post-message", text="Hi")
    assert missing.is_error
    assert (missing.output["error"], missing.output["tool"]) == ("not_connected", "qlaud-mcp/slack")
    office.vendor.answers = [says({"ok": True, "user": "ada", "team": "A", "team_id": "T", "user_id": "U"})]
    await office.connections.connect(Owner(ACCOUNT, "ada"), "slack", 0, {"token": "xoxb-of-ada-12345"})
    assert not (await office.call("slack-post-message", text="Hi")).is_error
    assert office.vendor.headers[-1]["authorization"] == "Bearer xoxb-of-ada-12345"
    assert json.loads(office.vendor.bodies[-1])["channel"] == "C1"
    eve = CallContext(ACCOUNT, "req_2", end_user_id="eve")
    assert (await office.call("slack-post-message", eve, text="Hi")).is_error


HTTP = {
    "method": "POST",
    "headers": '{"Authorization": "Bearer {{secrets.TOKEN}}", "X-User": "{{end_user.id}}"}',
    "body_template": '{"order":{{input.order}},"email":"{{input.email}}","by":"{{thread.metadata.team}}"}',
    "secrets": '{"TOKEN": "s3cr3t-token-1"}',
    "lock_input_fields": '["email"]',
}


async def test_http_call_carries_the_session_and_hides_its_secrets(office: Office) -> None:
    """What the thread's metadata says is sent whatever the model says; secrets come back as [hidden]."""
    config = {**HTTP, "url": office.vendor.url + "/{{input.order}}?via=qlaud"}
    made = await office.register("http-call", name="order", config=config, description="Looks up an order.")
    assert (list(made["input_schema"]["properties"]), made["effect"]) == (["order"], "write")
    metadata = {"email": "ada@x.example", "team": 'A"B'}
    _, thread = await office.door.ask("POST", "/v1/threads", {"metadata": metadata, "end_user_id": "ada"})
    context = CallContext(ACCOUNT, "req_1", uuid.UUID(thread["id"]), end_user_id="ada")
    office.vendor.answers = [
        says({"got": "s3cr3t-token-1", "n": [1]}, 200, **{"content-type": "application/json"})
    ]
    outcome = await office.call("order", context, order="7/../8", email="eve@evil.example")
    assert outcome == ToolOutcome({"status": 200, "body": {"got": "[hidden]", "n": [1]}})
    (sent,), (body,) = office.vendor.headers, office.vendor.bodies
    assert (sent["authorization"], sent["x-user"]) == ("Bearer s3cr3t-token-1", "ada")
    assert sent["idempotency-key"] == "call_1"
    assert json.loads(body) == {"order": "7/../8", "email": "ada@x.example", "by": 'A"B'}
    without = await office.call("order", order="7")
    assert "locked" in without.output
    assert len(office.vendor.bodies) == 1


async def test_only_an_admin_key_says_what_is_locked(office: Office) -> None:
    """What a user's key writes, at creation or over an admin's word, is metadata, but unlocks no call."""
    config = {**HTTP, "url": office.vendor.url + "/x"}
    await office.register("http-call", name="order", config=config, description="Looks up an order.")
    user = (await office.door.mint(end_user_id="eve"))["secret"]
    metadata = {"team": "A", "email": "eve@x.example"}
    office.vendor.answers = [says({"done": True})]

    async def calls(thread: Any) -> str:
        """Which address is sent; empty when the call is refused."""
        context = CallContext(ACCOUNT, "r", uuid.UUID(thread["id"]), end_user_id="eve")
        before = len(office.vendor.bodies)
        outcome = await office.call("order", context, order="7")
        assert outcome.is_error == (len(office.vendor.bodies) == before), outcome
        assert not outcome.is_error or "an admin key must write it" in outcome.output
        return "" if outcome.is_error else str(json.loads(office.vendor.bodies[-1])["email"])

    async def write(thread: Any, key: str | None = None, **given: str) -> None:
        status, told = await office.door.ask(
            "PATCH", f"/v1/threads/{thread['id']}", {"metadata": given}, key=key
        )
        assert (status, told["metadata"] | given) == (200, told["metadata"])

    _, own = await office.door.ask("POST", "/v1/threads", {"metadata": metadata}, key=user)
    assert await calls(own) == ""
    await write(own, email="ada@x.example")
    assert await calls(own) == "ada@x.example"
    await write(own, user, more="x")
    assert await calls(own) == "ada@x.example"
    await write(own, user, email="eve@evil.example")
    assert await calls(own) == ""

    ours = {"metadata": {**metadata, "email": "ada@x.example"}, "end_user_id": "eve"}
    _, made = await office.door.ask("POST", "/v1/threads", ours)
    assert await calls(made) == "ada@x.example"
    path = f"/v1/threads/{made['id']}/copy"
    _, branch = await office.door.ask("POST", path, {}, key=user)
    assert await calls(branch) == "ada@x.example"
    _, branch = await office.door.ask("POST", path, {"metadata": {"email": "eve@evil.example"}}, key=user)
    assert await calls(branch) == ""
    document = {**ours, "messages": [{"role": "user", "content": "Hi"}]}
    _, taken = await office.door.ask("POST", "/v1/threads/import", document)
    assert await calls(taken) == ""


async def test_http_call_is_sent_as_it_was_escaped(office: Office) -> None:
    """What a model gives reaches the server as one segment and one parameter, byte by byte."""
    seen: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request.raw_path)
        return web.Response(text="pong")

    office.vendor.answers = [note]
    url = office.vendor.url + "/{{input.id}}?q={{input.id}}&z=1"
    await office.register("http-call", config={"url": url, "method": "GET"})
    assert (await office.call("http-call", id="a/../b?c&d=e+%2e~")).output == {"status": 200, "body": "pong"}
    spelled = "a%2F..%2Fb%3Fc%26d%3De%2B%252e~"
    assert seen == [f"/hook/{spelled}?q={spelled}&z=1"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(b"", 302, location="http://169.254.169.254/"), "redirect"),
        (says(b"x" * 300_000, 200), "larger than 256 KiB"),
        (says(b"\x89PNG", 200, **{"content-type": "image/png"}), "4 bytes of image/png"),
        (says({"why": "no"}, 422, **{"content-type": "application/json"}), "'why': 'no'"),
        (hangs_up, "may or may not"),
    ],
)
async def test_http_call_tells_what_came_of_it(office: Office, answer: Any, words: str) -> None:
    """Redirects are not followed, large answers not read to a model, refusals are errors."""
    await office.register("http-call", config={"url": office.vendor.url})
    office.vendor.answers = [answer]
    outcome = await office.call("http-call")
    assert words in str(outcome.output)
    assert len(office.vendor.bodies) == 1


async def test_a_picture_is_kept_and_its_address_told(office: Office, pool: Pool) -> None:
    """The model gets no base64; who may see the thread or is the end user gets the bytes, nobody else."""
    await office.register("image-generation")
    office.vendor.answers = [says({"data": [{"b64_json": base64.b64encode(WEBP).decode()}]})]
    user, other = await office.door.mint(end_user_id="ada"), await office.door.mint(end_user_id="eve")
    result = await office.execute("image-generation", user["secret"], prompt="a cat", size="1024x1024")
    image = result["output"]["image"]
    assert (image["mime"], image["bytes"]) == ("image/webp", len(WEBP))
    sent = json.loads(office.vendor.bodies[0])
    assert sent == {
        "model": "gpt-image-1",
        "prompt": "a cat",
        "size": "1024x1024",
        "quality": "medium",
        "output_format": "webp",
        "n": 1,
    }
    assert office.vendor.headers[0]["authorization"] == f"Bearer {KEY}"
    for key, status in ((user["secret"], 200), (office.door.master, 200), (other["secret"], 404)):
        async with office.door.client.get(image["url"], headers={"x-api-key": key}) as response:
            assert response.status == status
            if status == 200:
                assert (await response.read(), response.content_type) == (WEBP, "image/webp")
                assert response.headers["x-content-type-options"] == "nosniff"
    office.vendor.answers = [says({"error": {"message": f"billing of {KEY}"}}, 400)]
    refused = await office.execute("image-generation", user["secret"], prompt="a cat")
    assert (refused["output"], refused["is_error"]) == (
        "OpenAI made no picture (400): billing of [hidden]",
        True,
    )
    office.vendor.answers = [says({"data": [{"b64_json": base64.b64encode(b"<script>").decode()}]})]
    assert (await office.execute("image-generation", user["secret"], prompt="a cat"))["is_error"]
    assert await pool.fetchval("SELECT count(*) FROM artifacts") == 1


async def test_artifacts_belong_to_the_end_user_or_to_the_thread(office: Office, pool: Pool) -> None:
    """An end user finds them again in another thread, nobody else does; a thread takes its own with it."""
    await office.register("artifact-store")
    threads = [(await office.door.ask("POST", "/v1/threads", {}))[1]["id"] for _ in range(2)]
    ada = CallContext(ACCOUNT, "r", uuid.UUID(threads[0]), end_user_id="ada")
    eve, ada_later = (
        CallContext(ACCOUNT, "r", end_user_id="eve"),
        CallContext(ACCOUNT, "r", end_user_id="ada"),
    )
    first, second = (CallContext(ACCOUNT, "r", uuid.UUID(thread)) for thread in threads)
    for context, content in ((ada, {"n": 1}), (first, "ünï")):
        stored = await office.call("artifact-store", context, action="store", name="a/b.md", content=content)
        assert stored.output["stored"]["name"] == "a/b.md"
    again = await office.call("artifact-store", ada, action="store", name="a/b.md", content={"n": 2})
    assert not again.is_error
    found = await office.call("artifact-store", ada_later, action="retrieve", name="a/b.md")
    assert (found.output["content"], found.output["mime"]) == ({"n": 2}, "application/json")
    assert (await office.call("artifact-store", first, action="retrieve", name="a/b.md")).output[
        "content"
    ] == "ünï"
    for stranger in (eve, second):
        assert (await office.call("artifact-store", stranger, action="retrieve", name="a/b.md")).is_error
        assert (await office.call("artifact-store", stranger, action="list")).output == {"artifacts": []}
    listed = await office.call("artifact-store", ada_later, action="list", name="a/")
    assert [row["name"] for row in listed.output["artifacts"]] == ["a/b.md"]
    await office.door.ask("DELETE", f"/v1/threads/{threads[0]}")
    assert await pool.fetchval("SELECT array_agg(owner) FROM artifacts") == ["user:ada"]


async def test_a_developer_reads_what_was_kept_in_a_thread(office: Office) -> None:
    """Newest first, page by page, each with its content; another user, account or thread has none of it."""
    await office.register("artifact-store")
    ada, eve = [(await office.door.mint(end_user_id=name))["secret"] for name in ("ada", "eve")]
    _, thread = await office.door.ask("POST", "/v1/threads", {}, key=ada)
    _, empty = await office.door.ask("POST", "/v1/threads", {}, key=ada)
    context = CallContext(ACCOUNT, "r", uuid.UUID(thread["id"]), end_user_id="ada")
    for name, content in (("a", "text"), ("b", {"n": [1]}), ("c", "ü"), ("a", "newer")):
        await office.call("artifact-store", context, action="store", name=name, content=content)
    path, names, after = f"/v1/threads/{thread['id']}/artifacts", [], ""
    while True:
        status, page = await office.door.ask("GET", f"{path}?limit=2{after}", key=ada)
        assert status == 200
        names += [row["name"] for row in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['data'][-1]['id']}"
    assert names == ["a", "c", "b"]
    _, listed = await office.door.ask("GET", path)
    contents = {}
    for row in listed["data"]:
        assert (row["object"], "content" in row) == ("artifact", False)
        status, one = await office.door.ask("GET", f"{path}/{row['id']}", key=ada)
        contents[row["name"]] = one.pop("content")
        assert (status, one) == (200, row)
    assert contents == {"a": "newer", "b": {"n": [1]}, "c": "ü"}
    _, account = await office.door.ask("POST", "/v1/accounts", {"name": "other"})
    first = listed["data"][0]["id"]
    for key in (eve, account["secret"]):
        for asked in (path, f"{path}/{first}"):
            assert (await office.door.ask("GET", asked, key=key))[0] == 404
    elsewhere = f"/v1/threads/{empty['id']}/artifacts"
    assert (await office.door.ask("GET", elsewhere, key=ada))[1]["data"] == []
    assert (await office.door.ask("GET", f"{elsewhere}/{first}", key=ada))[0] == 404


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"action": "store", "name": "x"}, "content"),
        ({"action": "store", "content": "x"}, "name"),
        ({"action": "retrieve"}, "name"),
        ({"action": "retrieve", "name": "\x00"}, "NUL"),
        ({"action": "list", "name": "a\x00"}, "NUL"),
        ({"action": "store", "name": "x", "content": "ü" * 200_000}, "256 KiB"),
    ],
)
async def test_a_wrong_call_of_the_artifact_store_is_told(
    office: Office, arguments: dict[str, Any], words: str
) -> None:
    """In words for the model; nothing is stored."""
    await office.register("artifact-store")
    outcome = await office.call("artifact-store", **arguments)
    assert outcome.is_error
    assert words in outcome.output


async def test_an_owner_has_a_limit(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has as much as they may can still replace what is there."""
    monkeypatch.setattr("qlaud_actors.artifacts.store.MAX_ARTIFACTS", 1)
    await office.register("artifact-store")
    for name, fails in (("a", False), ("b", True), ("a", False)):
        assert (await office.call("artifact-store", action="store", name=name, content="x")).is_error is fails


async def test_the_calculator_runs_over_rest(office: Office) -> None:
    """A built-in without configuration opens nothing."""
    await office.register("calculator")
    assert (await office.execute("calculator", expression="2 ^ 10"))["output"] == {
        "result": "1024",
        "exact": True,
    }
    assert await office.pool.fetchval("SELECT count(*) FROM vault_audit") == 0
