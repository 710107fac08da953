"""The vendor's routes beside chat: embeddings, images, speech, transcription.

A script in the text (`<<script …>>`, see `script.py`) may set faults, pauses and token counts here, too.
What a call costs is on the bill before the end of its answer is sent.
"""

import array
import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from qlaud_actors.scripted import script
from qlaud_actors.scripted.bill import Bill, Row
from qlaud_actors.scripted.completion import call_of, hang_up
from qlaud_actors.scripted.media_read import VOICES, Sent, seconds_of, sent
from qlaud_actors.scripted.openai_wire import OpenAIWire
from qlaud_actors.scripted.plan import Usage
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.tokens import size, tokens

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DIMENSIONS = {"text-embedding-3-large": 3_072}
SPOKEN_TOKENS_PER_TOKEN = 6
HEARD_TOKENS_PER_SECOND = 10
SEEN_TOKENS = 194
"""Of one picture, as a vendor bills a square one at low fidelity."""

FIXED = {"low": (272, 408, 400), "medium": (1_056, 1_584, 1_568), "high": (4_160, 6_240, 6_208)}
FREE = {"low": (196, 154, 154), "medium": (1_756, 1_372, 1_372), "high": (7_024, 5_488, 5_488)}
SIZES = ("1024x1024", "1024x1536", "1536x1024")
BY_DURATION = ("whisper", "gpt-transcribe")


@dataclass(slots=True)
class Made:
    """An answer, and what it is billed as."""

    content_type: str
    pieces: list[bytes]
    usage: Usage = field(default_factory=Usage)
    units: dict[str, int] = field(default_factory=dict)


class MediaRoutes:
    """Handlers of these routes."""

    def __init__(self, bill: Bill, wire: OpenAIWire) -> None:
        self._bill = bill
        self._wire = wire

    def routes(self) -> list[web.RouteDef]:
        """To be added to the server."""
        makers = {
            "/v1/embeddings": embed,
            "/v1/images/generations": draw,
            "/v1/images/edits": draw,
            "/v1/audio/speech": speak,
            "/v1/audio/transcriptions": listen,
        }
        return [web.post(path, self._handler(maker)) for path, maker in makers.items()]

    def _handler(
        self, maker: Callable[[Sent, script.Step], Made]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            with self._bill.in_flight():
                try:
                    return await self._answer(request, maker)
                except Refusal as refusal:
                    self._bill.refused(refusal.status, call_of(request))
                    wait = refusal.retry_after
                    return web.Response(
                        body=self._wire.refuse(refusal, ""),
                        status=refusal.status,
                        content_type="application/json",
                        headers={} if wait is None else {"retry-after": f"{wait:g}"},
                    )

        return handle

    async def _answer(
        self, request: web.Request, maker: Callable[[Sent, script.Step], Made]
    ) -> web.StreamResponse:
        key = self._wire.key(request.headers)
        asked = await sent(request)
        self._bill.record(request.path, asked.shown())
        step = _step(asked)
        made = maker(asked, step)
        await asyncio.sleep(step.first_byte_ms / 1_000)
        self._fail(asked, step)
        row = Row("openai", asked.fields["model"], key[-4:], len(made.pieces) > 1, units=made.units)
        row.call = call_of(request)
        cut = step.cut_after is not None
        self._bill.close(row, made.usage, "cut" if cut else "complete")
        response = web.StreamResponse(headers={"content-type": made.content_type})
        await response.prepare(request)
        for number, piece in enumerate(made.pieces):
            if number == step.cut_after:
                hang_up(request)
                return response
            await asyncio.sleep(step.delay_ms / 1_000 if number else 0)
            await response.write(piece)
        await response.write_eof()
        return response

    def _fail(self, asked: Sent, step: script.Step) -> None:
        """The error that the script asks for; `times` counts by what was sent. Raises Refusal."""
        if step.status is None:
            return
        seen = self._bill.seen(hashlib.sha256(repr(asked.fields).encode()).digest())
        if step.times is None or seen < step.times:
            raise self._wire.fault(step.status, step.retry_after)


def embed(asked: Sent, step: script.Step) -> Made:
    """`POST /v1/embeddings`: vectors that depend on nothing but their text."""
    model, given = asked.text("model", 200), asked.fields.get("input")
    several = isinstance(given, list) and not isinstance(given[0], int)
    texts: list[Any] = given if several else [given]  # type: ignore[assignment]
    if not all(isinstance(text, str | list) and text for text in texts):
        raise Refusal(400, "'$.input' is invalid.", param="input")
    count = sum(tokens(size(text)) if isinstance(text, str) else len(text) for text in texts)
    count = count if step.usage.input is None else step.usage.input
    width = asked.number("dimensions", DIMENSIONS.get(model, 1_536), 1, 3_072)
    data = [
        {"object": "embedding", "index": n, "embedding": _vector(text, width, asked)}
        for n, text in enumerate(texts)
    ]
    body: dict[str, Any] = {"object": "list", "data": data, "model": model}
    if not step.omit_usage:
        body["usage"] = {"prompt_tokens": count, "total_tokens": count}
    return _json(body, Usage(input=count))


def draw(asked: Sent, step: script.Step) -> Made:
    """`POST /v1/images/generations` and `/edits`: the same pixel, billed by what was asked for."""
    model, prompt = asked.text("model", 200), asked.text("prompt", 32_000)
    count = asked.number("n", 1, 1, 10)
    if any(name not in ("image", "image[]", "mask") for name, *_ in asked.files):
        raise Refusal(400, "Unknown parameter.", param="image")
    out = count * _drawn_tokens(model, asked) if step.usage.output is None else step.usage.output
    seen = count * len(asked.files) * SEEN_TOKENS
    read = count * tokens(size(prompt))
    body: dict[str, Any] = {"created": 1_735_689_600}
    body["data"] = [{"b64_json": base64.b64encode(PIXEL).decode()}] * count
    if model.startswith("grok"):
        return _json(body, Usage(), {"images": count})
    body["usage"] = {
        "input_tokens": read + seen,
        "input_tokens_details": {"image_tokens": seen, "text_tokens": read},
        "output_tokens": out,
        "output_tokens_details": {"image_tokens": out, "text_tokens": 0},
        "total_tokens": read + seen + out,
    }
    units = {"image_output": out, **({"image_input": seen} if seen else {})}
    if str(asked.fields.get("stream")).lower() != "true":
        return _json(body, Usage(input=read), units)
    part = {"type": "image_generation.partial_image", "b64_json": "AAAA", "partial_image_index": 0}
    done = {"type": "image_generation.completed", **body["data"][0], "usage": body["usage"]}
    partial = asked.number("partial_images", 0, 0, 3)
    return _events([part] * partial + [done], Usage(input=read), units)


def speak(asked: Sent, step: script.Step) -> Made:
    """`POST /v1/audio/speech`: noise, as long as the text."""
    model, text = asked.text("model", 200), asked.text("input", 4_096)
    if str(asked.fields.get("voice")) not in VOICES:
        raise Refusal(400, "Invalid value for 'voice'.", param="voice")
    sound = [b"\xff\xfb\x90\x00" + word.encode() for word in script.by_words(text)]
    wanted = str(asked.fields.get("response_format"))
    kind = {"wav": "audio/wav", "pcm": "audio/pcm"}.get(wanted, "audio/mpeg")
    if model.startswith("tts-1"):
        if asked.fields.get("stream_format") == "sse":
            raise Refusal(400, "This model does not support sse.", param="stream_format")
        return Made(kind, sound, units={"characters": len(text)})
    read = tokens(size(text + str(asked.fields.get("instructions") or "")))
    made = SPOKEN_TOKENS_PER_TOKEN * read if step.usage.output is None else step.usage.output
    usage, units = Usage(input=read), {"audio_output": made}
    if asked.fields.get("stream_format") != "sse":
        return Made(kind, sound, usage, units)
    told = {"input_tokens": read, "output_tokens": made, "total_tokens": read + made}
    done: dict[str, Any] = {"type": "speech.audio.done", **({} if step.omit_usage else {"usage": told})}
    pieces = ({"type": "speech.audio.delta", "audio": base64.b64encode(p).decode()} for p in sound)
    return _events([*pieces, done], usage, units)


def listen(asked: Sent, step: script.Step) -> Made:
    """`POST /v1/audio/transcriptions`: the text of the script, or how long it was."""
    model = asked.text("model", 200)
    recordings = [data for name, _, _, data in asked.files if name == "file"]
    if len(recordings) != 1:
        raise Refusal(400, "Missing required parameter: 'file'.", param="file")
    seconds = seconds_of(recordings[0])
    text = step.text or f"It lasted {seconds:g} seconds."
    billed = -int(-seconds // 1)
    if model.startswith(BY_DURATION):
        usage, units = Usage(), {"audio_ms": billed * 1_000}
        told: dict[str, Any] = {"type": "duration", "seconds": billed}
    else:
        heard = -int(-seconds * HEARD_TOKENS_PER_SECOND // 1)
        read = tokens(size(asked.fields.get("prompt", "")))
        usage, units = Usage(input=read, output=tokens(size(text))), {"audio_input": heard}
        told = {
            "type": "tokens",
            "input_tokens": heard + read,
            "input_token_details": {"audio_tokens": heard, "text_tokens": read},
            "output_tokens": usage.output,
            "total_tokens": heard + read + usage.output,
        }
    if str(asked.fields.get("stream")).lower() == "true" and not model.startswith("whisper"):
        deltas = [{"type": "transcript.text.delta", "delta": word} for word in script.by_words(text)]
        return _events([*deltas, {"type": "transcript.text.done", "text": text, "usage": told}], usage, units)
    kind = str(asked.fields.get("response_format") or "json")
    return _written(kind, text, seconds, told, Made("", [], usage, units))


def _written(kind: str, text: str, seconds: float, told: dict[str, Any], made: Made) -> Made:
    end = f"00:{int(seconds // 60):02}:{int(seconds % 60):02}"
    texts = {
        "text": f"{text}\n",
        "srt": f"1\n00:00:00,000 --> {end},000\n{text}\n\n",
        "vtt": f"WEBVTT\n\n00:00:00.000 --> {end}.000\n{text}\n\n",
    }
    if kind in texts:
        return Made("text/plain; charset=utf-8", [texts[kind].encode()], made.usage, made.units)
    body: dict[str, Any] = {"text": text, "usage": told}
    if kind == "verbose_json":
        body = {"task": "transcribe", "language": "english", "duration": seconds, **body, "segments": []}
    return _json(body, made.usage, made.units)


def _step(asked: Sent) -> script.Step:
    """The script in whatever text was sent, or one that changes nothing."""
    given = [asked.fields.get(name) for name in ("input", "prompt")]
    found = script.find(" ".join(text for text in given if isinstance(text, str)))
    return found[0] if found else script.Step()


def _drawn_tokens(model: str, asked: Sent) -> int:
    """What one picture is billed as; what is left to the model becomes the dearest, here."""
    table = FREE if model.startswith("gpt-image-2") else FIXED
    quality, wanted = asked.fields.get("quality") or "auto", asked.fields.get("size") or "auto"
    if quality not in (*table, "auto") or wanted not in (*SIZES, "auto"):
        raise Refusal(400, "Invalid value.", param="size")
    row = table["high" if quality == "auto" else quality]
    return max(row) if wanted == "auto" else row[SIZES.index(wanted)]


def _vector(text: Any, width: int, asked: Sent) -> Any:
    digest = hashlib.sha256(repr(text).encode()).digest()
    values = [(digest[n % 32] - 128) / 128 for n in range(width)]
    if asked.fields.get("encoding_format") != "base64":
        return values
    return base64.b64encode(array.array("f", values).tobytes()).decode()


def _json(body: dict[str, Any], usage: Usage, units: dict[str, int] | None = None) -> Made:
    return Made("application/json", [msgspec.json.encode(body)], usage, units or {})


def _events(events: list[dict[str, Any]], usage: Usage, units: dict[str, int]) -> Made:
    def frames() -> Iterator[bytes]:
        for event in events:
            yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))

    return Made("text/event-stream; charset=utf-8", list(frames()), usage, units)
