"""A model of the operator's own that nobody has priced: free for unlimited keys, refused to limited ones."""

import contextlib
from pathlib import Path
from typing import Any

from aiohttp import web
from front_door import front_door
from provider_double import running_provider

from qlaud_actors.billing.group_commit import GroupCommit
from qlaud_actors.billing.report import Span
from qlaud_actors.db.pool import Pool
from qlaud_actors.gateway.admission import Admission
from qlaud_actors.gateway.relay import Relay
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import accounts
from qlaud_actors.keys.accounts import NewAccount
from qlaud_actors.keys.limits import Limits
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.outbound.client import open_client
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.prices.rerate import Wanted, rerate
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback
from qlaud_actors.providers.pricing import Override, named
from qlaud_actors.usage import Price, Rates

OWN = """
slug = "selfhosted"
base_url = "{url}/v1"

[[models]]
slug = "llama"
display_name = "Llama"
context_window = 8_192
max_output_tokens = 1_024
capabilities = ["streaming"]
source = "our own hardware"
checked = 2026-11-24
"""
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16},
}


class Unpaced(Limits):
    """Limits of keys that have none but money."""

    def __init__(self) -> None:
        """Without a Redis."""


async def answer(request: web.Request) -> web.Response:  # noqa: ARG001 - as handlers are called
    return web.json_response(ANSWER)


async def test_an_unpriced_model_is_for_unlimited_keys(pool: Pool, tmp_path: Path) -> None:
    """Postpaid and uncapped: it costs nothing and the row says `unpriced`; else 400, and nothing is sent."""
    async with running_provider() as provider, contextlib.AsyncExitStack() as stack:
        client = open_client()
        stack.push_async_callback(client.close)
        (tmp_path / "own.toml").write_text(OWN.format(url=provider.url))
        catalog = Catalog.load({}, directory=tmp_path)
        fallback = Fallback(RetryPolicy(1))
        money = GroupCommit(pool, new_uuid())
        relay = Relay(Admission(money, catalog, Caller(client, catalog), fallback, 700))
        async with front_door(
            pool, catalog=catalog, relay=relay, limits=Unpaced(), fallback=fallback
        ) as door:

            async def ask(key: str) -> tuple[int, Any]:
                body = {"model": "llama", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
                return await door.ask("POST", "/v1/chat/completions", body, key=key)

            _, _, prepaid = await accounts.create(pool, NewAccount("acme", "prepaid", 10**9))
            capped = (await door.mint(max_spend_usd=5))["secret"]
            provider.answers = [answer] * 4
            for secret in (capped, prepaid.reveal()):
                status, refused = await ask(secret)
                assert (status, refused["error"]["code"]) == (400, "price_unknown")
            assert len(provider.answers) == 4
            thread = (await door.ask("POST", "/v1/threads", {}, key=capped))[1]["id"]
            status, refused = await door.ask(
                "POST",
                f"/v1/threads/{thread}/messages",
                {"model": "llama", "max_tokens": 10, "content": "Hi"},
                key=capped,
            )
            assert (status, refused["error"]["code"]) == (400, "price_unknown")
            assert (await ask(door.master))[0] == 200
            row = await pool.fetchrow("SELECT price_version, cost_nanos, output_tokens FROM usage_events")
            assert row is not None
            assert tuple(row) == ("unpriced", 0, 4)
            late = await door.mint()
            await pool.execute("UPDATE keys SET last_used_at = now()")  # from now on it is remembered
            assert [(await ask(late["secret"]))[0] for _ in range(2)] == [200, 200]
            await door.ask("PATCH", f"/v1/keys/{late['id']}", {"max_spend_usd": 5})
            status, refused = await ask(late["secret"])
            assert (status, refused["error"]["code"]) == (400, "price_unknown"), "also one that was known"
            hosts = (await door.ask("GET", "/v1/catalog", key=""))[1]["models"]
            (own,) = [model["hosts"][0] for model in hosts if model["slug"] == "llama"]
            assert own["input_per_mtok_usd"] is None
            price = named(Price(Rates(10**6, 10**6, 10**6, 10**6, 10**6), (), ""), "selfhosted", "llama", "d")
            catalog.prices.take([Override("selfhosted", "llama", 1, price, "s", "d")])
            assert (await ask(capped))[0] == 200, "once it has a price everybody may use it"
        await relay.close()
    totals = await rerate(pool, catalog.prices, Wanted(Span(0, 2**42)), dry_run=False)
    one = -(-16 * 10**6 * 107 // 100 // 1_000)
    assert totals.charged_nanos == 3 * one, "the free calls are paid for now"
    assert await pool.fetchval("SELECT account_balance_v1($1)", BOOTSTRAP_ACCOUNT) == -4 * one
