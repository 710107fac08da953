"""What goes wrong becomes the exception that each official SDK has for it, whichever wire it came over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from cluster import MODEL, Api, Cluster, running_cluster, script
from sdks import CELLS, Cell, Sdk

from qlaud_actors.ids import new_key_secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

EACH = pytest.mark.parametrize("cell", CELLS, ids=str)
STREAMED = pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.stream], ids=str)
MAX_BODY = 64 * 1024
WORDS = "one two three four five six seven"


class Case(NamedTuple):
    """What is wrong, and the status that comes of it. A step is what the provider does."""

    status: int
    code: str
    key: str = "user"
    model: str | None = None
    text: str = ""
    step: dict[str, Any] = {}  # noqa: RUF012 - never changed
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed


def told(status: int, **step: Any) -> dict[str, Any]:
    """A provider that refuses, and lets nobody wait for a second try."""
    return {"status": status, "retry_after": 60, **step}


CASES = [
    Case(400, "invalid_request", fields={"service_tier": "priority"}),
    Case(400, "provider_rejected", step=told(400)),
    Case(401, "invalid_api_key", key="unknown"),
    Case(402, "key_cap_exceeded", key="poor"),
    Case(403, "permission_denied", key="narrow"),
    Case(404, "model_not_found", model="no-such-model"),
    Case(404, "provider_rejected", step=told(404)),
    Case(409, "provider_rejected", step=told(409)),
    Case(413, "request_too_large", text="x" * MAX_BODY),
    Case(413, "provider_rejected", step=told(413)),
    Case(422, "provider_rejected", step=told(422)),
    Case(429, "rate_limited", key="slow"),
    Case(429, "provider_overloaded", step=told(429)),
    Case(500, "provider_unavailable", step=told(500)),
    Case(502, "provider_unavailable", step=told(401)),
    Case(502, "provider_unavailable", step=told(402)),
    Case(503, "provider_overloaded", step=told(503)),
    Case(504, "provider_unavailable", step=told(504)),
    Case(529, "provider_overloaded", step=told(529)),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(fresh_servers: Any) -> AsyncIterator[Cluster]:
    """One front door for all tests of a process."""
    async with (
        fresh_servers() as (database_url, redis_url),
        running_cluster(database_url, redis_url, workers=0, QLAUD_MAX_BODY_BYTES=str(MAX_BODY)) as cluster,
    ):
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """The same with a new bill."""
    running.scripted.reset()
    return running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys(running: Cluster) -> dict[str, str]:
    """The secrets of keys that may do everything, and of those that may not."""
    made = {"unknown": new_key_secret()}
    for name, fields in (
        ("user", {}),
        ("poor", {"max_spend_usd": 0}),
        ("narrow", {"allowed_models": ["gpt-4o"]}),
        ("slow", {"rpm": 1}),
    ):
        made[name] = (await running.key(**fields))[0].key
    client = Api(running.admin.session, running.admin.base_url, made["slow"])
    body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    await client.post("/v1/messages", body)  # all that the minute allows
    return made


@EACH
async def test_each_status_is_an_exception_of_the_sdk(
    cluster: Cluster, keys: dict[str, str], cell: Cell
) -> None:
    """Class, status, code and figures are what the SDK's users look for, streamed or not; none is billed."""
    for case in CASES:
        sdk = cell.sdk(cluster.admin.base_url, keys[case.key])
        messages = sdk.user(script(case.step) + case.text)
        with pytest.raises(sdk.errors.APIStatusError) as caught:
            await sdk.ask(case.model or cell.model, messages, stream=cell.stream, **case.fields)
        await sdk.close()
        error = caught.value
        inner = error.body.get("error", error.body)
        assert (error.status_code, inner["code"]) == (case.status, case.code), case
        assert type(error).__name__ == sdk.classes[case.status], case
        assert error.request_id
        waits = error.response.headers.get("retry-after")
        assert bool(waits) is (case.status in (429, 500, 503, 504, 529))
        assert waits == "60" or not case.step or not waits
        if case.status == 402:
            assert case.code in str(error)
            assert (inner["scope"], inner["limit_micros"], inner["retryable"]) == ("key", 0, False)
            assert {"spent_micros", "held_micros", "needed_micros", "resets_at"} <= set(inner)
    assert cluster.scripted.bill()["requests"] == 0


@STREAMED
@pytest.mark.parametrize("fault", ["cut_after", "error_after"])
async def test_a_failure_in_mid_stream_raises(cluster: Cluster, cell: Cell, fault: str) -> None:
    """What came until then is given and billed; then the SDK raises its own error."""
    user, key_id = await cluster.key(max_spend_usd=1)
    sdk: Sdk = cell.sdk(user.base_url, user.key)
    heard: list[str] = []

    async def listen() -> None:
        said = sdk.user(script({"text": WORDS, "delay_ms": 1, fault: 3}))
        async for piece in sdk.deltas(cell.model, said):
            heard.append(piece)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(sdk.errors.APIError):
        await listen()
    await sdk.close()
    assert "".join(heard) == "one two three "
    usage = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
    assert usage["request_count"] == 1
    (row,) = cluster.scripted.bill()["rows"]
    assert row["ended"] == fault.removesuffix("_after")
    (event,) = usage["events"]
    assert event["estimated"]  # the provider told its figures to nobody
    assert event["cost_micros"] > 0
    assert usage["output_tokens"] >= 3


@STREAMED
@pytest.mark.parametrize("fault", [None, "cut_after"])
async def test_a_client_that_leaves_is_billed(cluster: Cluster, cell: Cell, fault: str | None) -> None:
    """What the provider produces for a client who hung up is read to its end and charged: exactly where
    its figures still come, else as an estimate.
    """
    user, key_id = await cluster.key(max_spend_usd=1)
    sdk: Sdk = cell.sdk(user.base_url, user.key)
    step = {"text": "word " * 40, "delay_ms": 10, **({fault: 30} if fault else {})}
    async with aclosing(sdk.deltas(cell.model, sdk.user(script(step)))) as pieces:  # type: ignore[type-var]
        assert await anext(pieces) == "word "
    await sdk.close()
    async with asyncio.timeout(20):
        while True:
            used = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
            if used["request_count"]:
                break
            await asyncio.sleep(0.02)
    (row,) = cluster.scripted.bill()["rows"]
    assert row["ended"] == ("cut" if fault else "complete")
    (event,) = used["events"]
    assert event["estimated"] is bool(fault)
    if fault:
        assert used["output_tokens"] >= 30
    else:
        assert (used["input_tokens"], used["output_tokens"]) == (row["input"], row["output"])
