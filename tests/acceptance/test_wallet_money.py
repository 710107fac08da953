"""A wallet on real processes: refused while empty, not once paid; workers fill it and push usage."""

import base64
import io
import wave
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, running_cluster
from fakes.stripe_double import SECRET_KEY, WEBHOOK_SECRET, StripeDouble, signed, stripe_double

from api.routes import ROUTES
from qlaud_actors.probe import wait_until
from qlaud_actors.scripted.media import PIXEL

SAID = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}


def recording() -> io.BytesIO:
    """A tenth of a second of silence as a WAV file."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(bytes(1_600))
    return io.BytesIO(sound.getvalue())


SPENDING: dict[str, list[dict[str, Any]]] = {
    "/v1/messages": [SAID, {**SAID, "stream": True}, {**SAID, "model": OPENAI_MODEL}],
    "/v1/messages/count_tokens": [SAID],
    "/v1/chat/completions": [SAID, {**SAID, "stream": True}, {**SAID, "model": OPENAI_MODEL}],
    "/v1/responses": [
        {"model": OPENAI_MODEL, "max_output_tokens": 20, "input": "Hi", "stream": stream}
        for stream in (False, True)
    ],
    "/v1/embeddings": [{"model": "text-embedding-3-small", "input": "Hi"}],
    "/v1/images/generations": [{"model": "gpt-image-1.5", "prompt": "Hi"}],
    "/v1/images/edits": [
        {"model": "gpt-image-1.5", "prompt": "Hi", "image": base64.b64encode(PIXEL).decode()}
    ],
    "/v1/audio/speech": [{"model": "tts-1", "input": "Hi", "voice": "alloy"}],
    "/v1/audio/transcriptions": [{"model": "whisper-1", "file": "a recording"}],
    "/v1/jobs": [{"endpoint": "/v1/messages", "body": SAID}],
    "/v1/threads/{thread_id}/messages": [
        {"model": MODEL, "max_tokens": 20, "content": "Hi", "stream": stream} for stream in (False, True)
    ],
}
"""Every route that can spend money, with requests that would."""
NOT_SPENDING = {
    "/connect/{token}",
    "/mcp",
    "/v1/accounts",
    "/v1/billing/stripe-meter/retry",
    "/v1/billing/stripe/webhook",
    "/v1/billing/topups",
    "/v1/connections",
    "/v1/keys",
    "/v1/keys/{key_id}/rotate",
    "/v1/jobs/{job_id}/cancel",
    "/v1/mcp-servers",
    "/v1/mcp-servers/{server_id}/refresh",
    "/v1/retention/preview",
    "/v1/threads",
    "/v1/threads/import",
    "/v1/threads/{thread_id}/approvals/{tool_use_id}",
    "/v1/threads/{thread_id}/branches",
    "/v1/threads/{thread_id}/copy",
    "/v1/threads/{thread_id}/tool-results/{tool_use_id}",  # wakes a turn, whose steps hold their own money
    "/v1/threads/{thread_id}/turns/{turn_id}/cancel",
    "/v1/tools",
    "/v1/tools/execute",
    "/v1/tools/schemas",
    "/v1/tools/search",
    "/v1/webhooks",
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    "/v1/webhooks/{webhook_id}/rotate",
}


@pytest.fixture
async def stripe() -> AsyncIterator[StripeDouble]:
    """Stripe's double."""
    async with stripe_double() as double:
        yield double


@pytest.fixture
async def cluster(database_url: str, redis_url: str, stripe: StripeDouble) -> AsyncIterator[Cluster]:
    """Two front doors and a worker that have the double for their Stripe."""
    async with running_cluster(
        database_url,
        redis_url,
        apis=2,
        STRIPE_SECRET_KEY=SECRET_KEY,
        STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
        STRIPE_API_BASE=stripe.url,
    ) as cluster:
        yield cluster


async def ask_all(api: Api, thread_id: str) -> dict[str, Any]:
    """Ask everything that spends: what was answered, by route and request."""
    answers = {}
    for route, bodies in SPENDING.items():
        for number, body in enumerate(bodies):
            url = api.base_url + route.replace("{thread_id}", thread_id)
            form = {**body, "file": recording()} if "file" in body else None
            sent: dict[str, Any] = {"json": body} if form is None else {"data": form}
            async with api.session.post(url, headers={"x-api-key": api.key}, **sent) as response:
                is_json = response.content_type == "application/json"
                answer = await response.json() if is_json else await response.read()
                answers[f"{route} {number}"] = response.status, answer
    return answers


async def deliver(api: Api, event: dict[str, Any]) -> None:
    """Stripe sends an event."""
    body, signature = signed(event)
    webhook = api.base_url + "/v1/billing/stripe/webhook"
    async with api.session.post(webhook, data=body, headers={"stripe-signature": signature}) as response:
        assert response.status == 200


def test_every_route_that_takes_orders_is_known_here() -> None:
    """A new POST route is added to one of the two lists: only POST asks a model for something."""
    served = {
        route.path  # type: ignore[attr-defined]
        for table in ROUTES
        for route in table
        if route.method == "POST"  # type: ignore[attr-defined]
    }
    assert served == set(SPENDING) | NOT_SPENDING


async def test_an_empty_wallet_is_refused_everywhere_until_it_is_paid(
    cluster: Cluster, stripe: StripeDouble
) -> None:
    """402 with the wallet's scope on every spending route and nothing sent to a provider.

    Paid through one front door, everything passes at once through the other: no cache remembers the refusal.
    Starter credit is spent to the end in the same way.
    """
    made = await cluster.admin.post("/v1/accounts", {"name": "acme"})
    one, other = (Api(door.session, door.base_url, made["secret"]) for door in cluster.apis)
    thread_id = (await one.post("/v1/threads", {}))["id"]
    for api in (one, other):
        for asked, (status, answer) in (await ask_all(api, thread_id)).items():
            assert (status, answer["error"].get("scope")) == (402, "wallet"), (asked, answer)
    assert cluster.scripted.requests() == []
    page = await one.post("/v1/billing/topups", {"amount_usd": 5})
    await deliver(one, stripe.pay(page["id"]))
    for asked, (status, answer) in (await ask_all(other, thread_id)).items():
        assert status == (202 if "/jobs" in asked else 200), (asked, answer)
    left = (await one.get("/v1/billing/balance"))["balance_micros"]
    assert 0 < left < 5_000_000
    await spend_starter_credit(cluster)


async def spend_starter_credit(cluster: Cluster) -> None:
    """It pays for calls like any other money, down to what no call fits into; then the answer is 402."""
    made = await cluster.admin.post("/v1/accounts", {"name": "new", "starter_credit_usd": 0.001})
    api = Api(cluster.admin.session, cluster.admin.base_url, made["secret"])
    calls = 0
    while (answered := await api.request("POST", "/v1/messages", SAID))[0] == 200:
        calls += 1
    assert answered[0] == 402
    page = await api.get("/v1/billing/ledger?limit=500")
    assert [entry["kind"] for entry in reversed(page["entries"])] == ["credit"] + ["usage"] * calls
    assert calls > 0
    balance = await api.get("/v1/billing/balance")
    assert 0 <= answered[1]["error"]["limit_micros"] - balance["balance_micros"] <= 1  # rounded up, and down
    assert balance["balance_micros"] >= 0
    assert balance["held_micros"] == 0


async def test_workers_top_up_and_push_usage(cluster: Cluster, stripe: StripeDouble) -> None:
    """Nobody asks: a call leaves the wallet low, so the card is charged, and the meter has its cost."""
    made = await cluster.admin.post("/v1/accounts", {"name": "acme"})
    api = Api(cluster.admin.session, cluster.admin.base_url, made["secret"])
    page = await api.post("/v1/billing/topups", {"amount_usd": 5, "save_payment_method": True})
    for event in (stripe.pay(page["id"]), stripe.paid_intent(page["id"])):
        await deliver(api, event)
    stripe.meters.add("ai_cost")
    customer = stripe.new_customer()
    meter = f"/v1/billing/stripe-meter?account_id={made['id']}"
    assert (await cluster.admin.request("PUT", meter, {"event_name": "ai_cost"}))[0] == 200
    mapped = await api.request("PUT", "/v1/end-users/ada/billing", {"stripe_customer_id": customer})
    assert mapped[0] == 200
    rule = {"threshold_usd": 5, "amount_usd": 10, "monthly_ceiling_usd": 10}
    assert (await api.request("PUT", "/v1/billing/auto-topup", rule))[0] == 200
    adas = await api.post("/v1/keys", {"name": "ada", "end_user_id": "ada"})
    await Api(api.session, api.base_url, adas["secret"]).post("/v1/messages", SAID)

    async def both_came() -> bool:
        return bool(stripe.events and stripe.counted)

    assert await wait_until(both_came, 20)
    await deliver(api, stripe.events[0])
    balance = await api.get("/v1/billing/balance")
    entries = (await api.get("/v1/billing/ledger"))["entries"]
    cost = -next(entry["amount_nanos"] for entry in entries if entry["kind"] == "usage")
    assert [entry["kind"] for entry in entries] == ["topup", "usage", "topup"]
    assert balance["balance_micros"] == (15_000_000_000 - cost) // 1_000
    assert stripe.counted == {("ai_cost", customer): cost // 1_000}
