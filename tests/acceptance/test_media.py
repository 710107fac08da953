"""Vectors, pictures and sound through the official OpenAI SDK, metered in their own units."""

import asyncio
import base64
import io
import uuid
import wave
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, running_cluster, script

from qlaud_actors.db.pool import connect
from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.scripted.media import PIXEL
from qlaud_actors.usage import Usage

CLIENTS = 100


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """One front door, no worker."""
    async with running_cluster(
        database_url, redis_url, workers=0, XAI_API_KEY="xai-test", XAI_BASE_URL="http://127.0.0.1:9/v1"
    ) as cluster:
        yield cluster


def sdk(api: Api) -> openai.AsyncOpenAI:
    """OpenAI's client, pointed at the front door."""
    return openai.AsyncOpenAI(api_key=api.key, base_url=f"{api.base_url}/v1", max_retries=0)


def recording(seconds: float, rate: int = 8_000) -> bytes:
    """Silence as a WAV file."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * round(rate * seconds)))
    return target.getvalue()


async def rows(cluster: Cluster, key_id: str) -> list[dict[str, Any]]:
    """The usage events of a key, oldest first, once nothing is held any more."""
    connection = await connect(cluster.database_url)
    try:
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT count(*) FROM holds"):
                await asyncio.sleep(0.05)
        query = "SELECT * FROM usage_events WHERE key_id = $1 ORDER BY created_at, id"
        return [dict(row) for row in await connection.fetch(query, uuid.UUID(key_id))]
    finally:
        await connection.close()


def upstream_bill(cluster: Cluster) -> list[int]:
    """What the provider says it produced, at the catalogue's prices with markup, row by row."""
    catalog = Catalog.load({})
    return sorted(
        charge_nanos(
            catalog.resolve(row["model"]).price.cost_picos(
                Usage(input=row["input"], output=row["output"], units=row["units"])
            ),
            700,
        )
        for row in cluster.scripted.bill()["rows"]
    )


async def test_the_official_sdk_embeds_draws_speaks_and_listens(cluster: Cluster) -> None:
    """Every call of OpenAI's own client works, and each is billed as the provider bills it, to the nano."""
    user, key_id = await cluster.key(max_spend_usd=20)
    async with sdk(user) as client:
        vectors = await client.embeddings.create(model="text-embedding-3-small", input=["Hi", "there"])
        assert [len(item.embedding) for item in vectors.data] == [1_536, 1_536]
        vectors = await client.embeddings.create(
            model="text-embedding-3-large", input=[[1, 2, 3]], dimensions=8, encoding_format="float"
        )
        assert len(vectors.data[0].embedding) == 8

        drawn = await client.images.generate(model="gpt-image-2", prompt="A cat", n=2, quality="low")
        assert base64.b64decode(drawn.data[0].b64_json) == PIXEL  # type: ignore[index,arg-type]
        edited = await client.images.edit(
            model="gpt-image-1.5",
            prompt="Bluer",
            image=[("a.png", PIXEL), ("b.png", PIXEL)],
            size="1024x1024",
            quality="high",
        )
        assert edited.usage
        assert edited.usage.input_tokens_details.image_tokens == 2 * 194
        stream = await client.images.generate(
            model="gpt-image-2", prompt="A dog", stream=True, partial_images=2, size="1024x1024"
        )
        assert [event.type async for event in stream] == [
            *["image_generation.partial_image"] * 2,
            "image_generation.completed",
        ]

        spoken = await client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there")
        assert spoken.content.startswith(b"\xff\xfb")
        async with client.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts", voice="coral", input="Hello there", response_format="wav"
        ) as sound:
            assert sound.headers["content-type"] == "audio/wav"
            assert await sound.read() == b"\xff\xfb\x90\x00Hello \xff\xfb\x90\x00there"

        heard = await client.audio.transcriptions.create(model="whisper-1", file=("a.wav", recording(2.5)))
        assert heard.text == "It lasted 2.5 seconds."
        heard = await client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=("a.wav", recording(2)), prompt="Names: Ada"
        )
        assert heard.text == "It lasted 2 seconds."
        words = await client.audio.transcriptions.create(
            model="gpt-4o-mini-transcribe", file=("a.wav", recording(1)), stream=True
        )
        assert [event.type async for event in words][-1] == "transcript.text.done"
    billed = await rows(cluster, key_id)
    assert len(billed) == 10
    assert not any(row["estimated"] or row["overrun_nanos"] for row in billed)
    assert sorted(row["cost_nanos"] for row in billed) == upstream_bill(cluster)
    by_model = {row["model_slug"]: row["units"] for row in billed}
    assert by_model["text-embedding-3-small"] is None
    assert by_model["tts-1"] == {"characters": 11}
    assert by_model["whisper-1"] == {"audio_ms": 3_000}
    assert set(by_model["gpt-image-1.5"]) == {"image_input", "image_output"}


@pytest.mark.parametrize(
    ("wanted", "kind", "said"),
    [
        ("text", "text/plain", "It lasted 2 seconds.\n"),
        ("srt", "text/plain", "1\n00:00:00,000 --> 00:00:02,000\nIt lasted 2 seconds.\n\n"),
        ("vtt", "text/plain", "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nIt lasted 2 seconds.\n\n"),
        ("verbose_json", "application/json", '"duration":2.0'),
    ],
)
async def test_transcripts_come_in_every_format(cluster: Cluster, wanted: str, kind: str, said: str) -> None:
    """The format and its content type are kept; where the answer tells no usage the bill is an estimate."""
    user, key_id = await cluster.key()
    form = aiohttp.FormData()
    form.add_field("model", "whisper-1")
    form.add_field("response_format", wanted)
    form.add_field("file", recording(2), filename="a.wav", content_type="audio/wav")
    headers = {"authorization": f"Bearer {user.key}"}
    async with user.session.post(
        f"{user.base_url}/v1/audio/transcriptions", data=form, headers=headers
    ) as response:
        assert response.status == 200
        assert response.content_type == kind
        assert said in await response.text()
    [row] = await rows(cluster, key_id)
    assert row["estimated"] is (wanted in ("srt", "vtt"))
    assert row["units"]["audio_ms"] in (2_000, 3_000)


async def test_an_edit_may_be_json(cluster: Cluster) -> None:
    """Pictures in base64 leave as the form that the provider wants, with their type."""
    user, _ = await cluster.key()
    picture = base64.b64encode(PIXEL).decode()
    answer = await user.post(
        "/v1/images/edits",
        {"model": "gpt-image-2", "prompt": "Bluer", "size": "1024x1024", "image": picture},
    )
    assert answer["data"][0]["b64_json"] == base64.b64encode(PIXEL).decode()
    [sent] = cluster.scripted.requests()
    assert sent["path"] == "/v1/images/edits"
    assert sent["body"]["prompt"] == "Bluer"
    assert sent["body"]["_files"] == [["image", "picture.png", "image/png", len(PIXEL)]]


async def test_models_do_only_what_they_are_for(cluster: Cluster) -> None:
    """A text model draws nothing and a picture model says nothing: 400 in the caller's dialect, nothing sent."""
    user, _ = await cluster.key()
    hello = [{"role": "user", "content": "Hi"}]
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/v1/embeddings", {"model": OPENAI_MODEL, "input": "Hi"}),
        ("/v1/images/generations", {"model": MODEL, "prompt": "Hi"}),
        ("/v1/audio/speech", {"model": "whisper-1", "input": "Hi", "voice": "alloy"}),
        ("/v1/chat/completions", {"model": "tts-1", "messages": hello}),
        ("/v1/messages", {"model": "gpt-image-2", "max_tokens": 5, "messages": hello}),
    ]
    for path, body in wrong:
        status, answer = await user.request("POST", path, body)
        assert status == 400, path
        assert "is a model for" in answer["error"]["message"]
    thread = await user.post("/v1/threads", {})
    body = {"model": "tts-1", "max_tokens": 5, "content": "Hi"}
    status, _ = await user.request("POST", f"/v1/threads/{thread['id']}/messages", body)
    assert status == 400
    assert cluster.scripted.requests() == []


async def test_what_does_not_fit_whole_is_refused(cluster: Cluster) -> None:
    """The worst case of each kind is held before a byte goes out; a cap below it is a 402 of OpenAI's shape."""
    poor, _ = await cluster.key(max_spend_usd=0.00001)
    async with sdk(poor) as client:
        calls = [
            client.images.generate(model="gpt-image-2", prompt="A cat"),
            client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hi"),
            client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there"),
            client.audio.transcriptions.create(model="whisper-1", file=("a.wav", recording(5))),
            client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", recording(1))),
            client.embeddings.create(model="text-embedding-3-large", input="x" * 2_000),
        ]
        for call in calls:
            with pytest.raises(openai.APIStatusError) as refused:
                await call
            assert refused.value.status_code == 402
            assert refused.value.code == "key_cap_exceeded"
    assert cluster.scripted.requests() == []


async def test_a_failed_call_costs_nothing_and_a_cut_one_does(cluster: Cluster) -> None:
    """An error instead of an answer gives the hold back; speech that breaks off is billed, and marked."""
    user, key_id = await cluster.key(max_spend_usd=5)
    async with sdk(user) as client:
        with pytest.raises(openai.InternalServerError):
            await client.images.generate(model="gpt-image-2", prompt=script({"status": 500}))
        assert await rows(cluster, key_id) == []
        text = script({"cut_after": 2, "delay_ms": 20}, say="one two three four five")
        with pytest.raises(Exception, match=r"(?i)payload|closed|incomplete|connection"):
            await client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input=text)
        [cut] = await rows(cluster, key_id)
        assert cut["estimated"]
        assert cut["units"]["audio_output"] > 0


async def test_who_leaves_is_billed_all_the_same(cluster: Cluster) -> None:
    """The provider is read to its end for a client that has gone, and what it made is charged exactly."""
    user, key_id = await cluster.key(max_spend_usd=5)
    text = script({"first_byte_ms": 30, "delay_ms": 30}, say="one two three four five")
    body = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": text}
    async with user.session.post(
        f"{user.base_url}/v1/audio/speech", json=body, headers={"x-api-key": user.key}
    ) as response:
        await response.content.readany()
        response.close()
    async with asyncio.timeout(20):
        while not (found := await rows(cluster, key_id)):
            await asyncio.sleep(0.05)
    assert [row["cost_nanos"] for row in found] == upstream_bill(cluster)
    assert not found[0]["estimated"]


async def test_a_crowd_never_spends_more_than_the_cap(cluster: Cluster) -> None:
    """100 clients of all kinds on a budget for a few: spend stays within it and equals the provider's bill."""
    cap = 600_000_000
    user, key_id = await cluster.key(max_spend_usd=cap / 1e9)

    async def one(client: openai.AsyncOpenAI, number: int) -> int:
        calls: list[Any] = [
            lambda: client.embeddings.create(model="text-embedding-3-large", input=f"text {number} " * 50),
            lambda: client.images.generate(
                model="gpt-image-1.5", prompt=f"cat {number}", quality="medium", size="1024x1024"
            ),
            lambda: client.audio.speech.create(
                model="tts-1-hd", voice="alloy", input=f"Number {number}. " * 40
            ),
            lambda: client.audio.transcriptions.create(model="whisper-1", file=("a.wav", recording(9))),
        ]
        try:
            await calls[number % len(calls)]()
        except openai.APIStatusError as refused:
            return refused.status_code
        return 200

    async with sdk(user) as client:
        statuses = await asyncio.gather(*(one(client, number) for number in range(CLIENTS)))
    assert set(statuses) == {200, 402}
    billed = await rows(cluster, key_id)
    assert statuses.count(200) == len(billed) > 10
    assert sum(row["cost_nanos"] for row in billed) <= cap
    assert not any(row["estimated"] or row["overrun_nanos"] for row in billed)
    assert sorted(row["cost_nanos"] for row in billed) == upstream_bill(cluster)
    usage = await user.get("/v1/models/whisper-1")
    assert usage["task"] == "stt"
