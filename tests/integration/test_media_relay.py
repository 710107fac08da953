"""Vectors, pictures and sound between a front door and the scripted provider, all in this process."""

import asyncio
import base64
import contextlib
import io
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from front_door import Door, front_door
from test_relay_passes import NoLimits

from qlaud_actors.billing.group_commit import GroupCommit
from qlaud_actors.db.pool import Pool
from qlaud_actors.gateway.admission import Admission
from qlaud_actors.gateway.relay import Relay
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import charge_nanos
from qlaud_actors.outbound.client import open_client
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback
from qlaud_actors.scripted.media import PIXEL
from qlaud_actors.scripted.server import ScriptedServer
from qlaud_actors.usage import Usage

SPEECH, IMAGES, EDITS, LISTEN, EMBED = (
    *("/v1/audio/speech", "/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions"),
    "/v1/embeddings",
)


@dataclass
class Media:
    """A front door and the provider behind it."""

    door: Door
    scripted: ScriptedServer
    catalog: Catalog
    pool: Pool

    async def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, str, bytes]:
        """Status, content type and raw body; a dictionary is sent as JSON, all else as it is."""
        sent = {"json": body} if isinstance(body, dict) else {"data": body}
        headers = {"x-api-key": key or self.door.master}
        async with self.door.client.post(path, headers=headers, **sent) as response:
            return response.status, response.content_type, await response.read()

    async def rows(self, count: int) -> list[dict[str, Any]]:
        """All usage events, once there are so many and nothing is held."""
        async with asyncio.timeout(10):
            while True:
                found = await self.pool.fetch("SELECT * FROM usage_events ORDER BY created_at, id")
                if len(found) == count and not await self.pool.fetchval("SELECT count(*) FROM holds"):
                    return [dict(row) for row in found]
                await asyncio.sleep(0.02)

    def billed(self) -> list[int]:
        """What the provider says it produced, at the catalogue's prices with markup."""
        return [
            charge_nanos(
                self.catalog.resolve(row["model"]).price.cost_picos(
                    Usage(row["input"], row["output"], units=row["units"])
                ),
                700,
            )
            for row in self.scripted.bill()["rows"]
        ]


@pytest.fixture
async def media(pool: Pool) -> AsyncIterator[Media]:
    """Everything in this process; OpenAI and xAI are the scripted server."""
    async with ScriptedServer() as scripted, contextlib.AsyncExitStack() as stack:
        url = f"{scripted.url}/v1"
        catalog = Catalog.load(
            {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": url, "XAI_API_KEY": "xai-x", "XAI_BASE_URL": url}
        )
        client = open_client()
        stack.push_async_callback(client.close)
        money, caller = GroupCommit(pool, new_uuid()), Caller(client, catalog)
        relay = Relay(Admission(money, catalog, caller, Fallback(), 700))
        stack.push_async_callback(relay.close)

        async def wake(_: object) -> None:
            return

        services = {"catalog": catalog, "relay": relay, "limits": NoLimits(), "wake_deliveries": wake}
        door = await stack.enter_async_context(front_door(pool, max_body_bytes=1024 * 1024, **services))
        yield Media(door, scripted, catalog, pool)


def script(line: str, say: str) -> str:
    """A text that carries the provider's line."""
    return f"{say} <<script [{line}] >>"


def recording(seconds: float) -> bytes:
    """Silence as a WAV file."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8_000)
        file.writeframes(bytes(round(8_000 * seconds)))
    return target.getvalue()


def form(file: bytes | None = None, name: str = "file", **fields: str) -> aiohttp.FormData:
    """A form with one file."""
    made = aiohttp.FormData()
    for field, value in fields.items():
        made.add_field(field, value)
    if file is not None:
        made.add_field(name, io.BytesIO(file), filename="a.bin", content_type="application/octet-stream")
    return made


@pytest.mark.parametrize(
    ("wanted", "kind", "said"),
    [
        ("json", "application/json", '"text":"It lasted 2 seconds."'),
        ("text", "text/plain", "It lasted 2 seconds.\n"),
        ("srt", "text/plain", "1\n00:00:00,000 --> 00:00:02,000\nIt lasted 2 seconds.\n\n"),
        ("vtt", "text/plain", "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nIt lasted 2 seconds.\n\n"),
        ("verbose_json", "application/json", '"duration":2.0'),
    ],
)
async def test_transcripts_come_in_every_format(media: Media, wanted: str, kind: str, said: str) -> None:
    """Format and content type are kept; the bill is an estimate only where the answer tells no usage."""
    status, content_type, body = await media.post(
        LISTEN, form(recording(2), model="whisper-1", response_format=wanted)
    )
    assert (status, content_type) == (200, kind)
    assert said in body.decode()
    [row] = await media.rows(1)
    assert row["estimated"] is (wanted in ("srt", "vtt"))
    assert row["units"] == {"audio_ms": 3_000 if row["estimated"] else 2_000}


async def test_an_edit_may_be_json(media: Media) -> None:
    """Pictures in base64 leave as the form that the provider wants, with their type."""
    picture = base64.b64encode(PIXEL).decode()
    body = {"model": "gpt-image-2", "prompt": "Bluer", "size": "1024x1024", "image": picture, "n": 2}
    status, _, answer = await media.post(EDITS, body)
    assert status == 200
    assert answer.decode().count(picture) == 2
    [sent] = media.scripted.requests()
    assert (sent["path"], sent["body"]["prompt"], sent["body"]["n"]) == (EDITS, "Bluer", "2")
    assert sent["body"]["_files"] == [["image", "picture.png", "image/png", len(PIXEL)]]
    [row] = await media.rows(1)
    assert [row["cost_nanos"]] == media.billed()


async def test_whole_pictures_are_counted(media: Media) -> None:
    """A provider that bills by the picture is billed by the picture: two for two cents each, and markup."""
    status, _, _ = await media.post(IMAGES, {"model": "grok-imagine-image", "prompt": "A cat", "n": 2})
    assert status == 200
    [row] = await media.rows(1)
    assert (row["units"], row["cost_nanos"]) == ({"images": 2}, 42_800_000)
    assert [row["cost_nanos"]] == media.billed()
    assert not row["estimated"]


async def test_models_do_only_what_they_are_for(media: Media) -> None:
    """A text model draws nothing, a picture model says nothing: 400 in the caller's dialect, nothing sent."""
    hello = [{"role": "user", "content": "Hi"}]
    wrong: list[tuple[str, Any]] = [
        (EMBED, {"model": "gpt-5.4-mini", "input": "Hi"}),
        (IMAGES, {"model": "gpt-5.4-mini", "prompt": "Hi"}),
        (SPEECH, {"model": "whisper-1", "input": "Hi", "voice": "alloy"}),
        (LISTEN, form(recording(1), model="tts-1")),
        ("/v1/chat/completions", {"model": "tts-1", "messages": hello}),
        ("/v1/messages", {"model": "gpt-image-2", "max_tokens": 5, "messages": hello}),
        (EMBED, {"model": "text-embedding-3-small", "input": "Hi", "models": ["gpt-5.4-mini"]}),
    ]
    for path, body in wrong:
        status, _, answer = await media.post(path, body)
        assert status == 400, path
        assert b"is a model for" in answer
    assert media.scripted.requests() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (IMAGES, {"model": "gpt-image-2", "prompt": "A cat"}),
        (SPEECH, {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hi"}),
        (SPEECH, {"model": "tts-1", "voice": "alloy", "input": "Hello there"}),
        (LISTEN, {"model": "whisper-1"}),
        (LISTEN, {"model": "gpt-4o-transcribe"}),
        (EMBED, {"model": "text-embedding-3-large", "input": "x" * 2_000}),
    ],
)
async def test_what_does_not_fit_whole_is_refused(media: Media, path: str, body: dict[str, Any]) -> None:
    """The worst case of each kind is held before a byte is sent; less money is a 402 in OpenAI's shape."""
    poor = await media.door.mint(max_spend_usd=0.00001)
    sent = form(recording(5), **body) if path == LISTEN else body
    status, _, answer = await media.post(path, sent, poor["secret"])
    assert status == 402
    assert b'"code":"key_cap_exceeded"' in answer
    assert media.scripted.requests() == []
    assert await media.rows(0) == []


async def test_a_failed_call_costs_nothing(media: Media) -> None:
    """An error instead of an answer reaches the caller and gives the hold back."""
    failing = script('{"status": 500}', "A cat")
    for path, body in (
        (IMAGES, {"model": "gpt-image-2", "prompt": failing}),
        (SPEECH, {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": failing}),
    ):
        status, _, answer = await media.post(path, body)
        assert status == 500
        assert b'"error"' in answer
    assert await media.rows(0) == []


async def test_speech_that_breaks_off_is_billed_and_marked(media: Media) -> None:
    """Sound cannot tell of an error: the connection ends, and what was likely made is charged."""
    text = script('{"cut_after": 2, "delay_ms": 20}', "one two three four five")
    with pytest.raises(aiohttp.ClientError):
        await media.post(SPEECH, {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": text})
    [cut] = await media.rows(1)
    assert cut["estimated"]
    assert cut["units"] == {"audio_output": 2 * len(text)}


async def test_who_leaves_is_billed_all_the_same(media: Media) -> None:
    """The provider is read to its end for a client that has gone, and what it made is charged exactly."""
    text = script('{"first_byte_ms": 20, "delay_ms": 30}', "one two three four five")
    body = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": text}
    async with media.door.client.post(
        SPEECH, json=body, headers={"x-api-key": media.door.master}
    ) as response:
        await response.content.readany()
        response.close()
    [row] = await media.rows(1)
    assert [row["cost_nanos"]] == media.billed()
    assert not row["estimated"]


async def test_an_answer_without_usage_is_estimated(media: Media) -> None:
    """Vectors whose provider counts nothing cost a token for four bytes, marked as an estimate."""
    text = script('{"omit_usage": true}', "Hello")
    status, _, _ = await media.post(EMBED, {"model": "text-embedding-3-small", "input": text})
    assert status == 200
    [row] = await media.rows(1)
    assert (row["estimated"], row["input_tokens"]) == (True, len(text) // 4 + 1)


async def test_what_is_billed_beyond_the_worst_case_is_not_the_keys(media: Media) -> None:
    """A provider that breaks its own table is paid by the operator: the cap holds, the rest is overrun."""
    key = await media.door.mint(max_spend_usd=0.01)
    prompt = script('{"usage": {"output": 1000000}}', "A cat")
    body = {"model": "gpt-image-2", "prompt": prompt, "quality": "low", "size": "1024x1024"}
    status, _, _ = await media.post(IMAGES, body, key["secret"])
    assert status == 200
    [row] = await media.rows(1)
    assert row["cost_nanos"] == 10_000_000
    assert row["cost_nanos"] + row["overrun_nanos"] == media.billed()[0]


async def test_large_files_are_refused_while_they_come(media: Media) -> None:
    """A form is read within the limit of bodies, a text within a smaller one."""
    status, _, _ = await media.post(LISTEN, form(bytes(1024 * 1024 + 1), model="whisper-1"))
    assert status == 413
    status, _, _ = await media.post(LISTEN, form(recording(1), model="whisper-1", prompt="x" * 300_000))
    assert status == 413
    assert media.scripted.requests() == []


async def test_models_and_catalogue_show_task_and_prices(media: Media) -> None:
    """A unit-priced model is listed like any other, with its task and what a unit costs."""
    _, model = await media.door.ask("GET", "/v1/models/whisper-1")
    assert (model["task"], model["supports"]) == ("stt", ["audio-in"])
    _, listing = await media.door.ask("GET", "/v1/catalog", key="")
    shown = {model["slug"]: model for model in listing["models"]}
    assert shown["text-embedding-3-small"]["task"] == "embeddings"
    assert shown["tts-1"]["hosts"][0]["unit_prices_usd"] == {"characters": 0.000015}
    assert shown["gpt-5.4-mini"]["hosts"][0]["unit_prices_usd"] == {}
