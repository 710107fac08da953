"""Vectors, pictures and sound through the official OpenAI SDK, metered in their own units."""

import asyncio
import base64
import io
import uuid
import wave
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from cluster import Api, Cluster, running_cluster

from qlaud_actors.db.pool import connect
from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.scripted.media import PIXEL
from qlaud_actors.usage import Usage

CLIENTS = 100


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """One front door, no worker."""
    async with running_cluster(database_url, redis_url, workers=0) as cluster:
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
            while True:
                if not await connection.fetchval("SELECT count(*) FROM holds"):
                    break
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


async def test_a_crowd_never_spends_more_than_the_cap(cluster: Cluster) -> None:
    """100 clients of all kinds on a budget for a few: spend stays within it, and is the provider's bill."""
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
