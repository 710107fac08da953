"""`POST /v1/audio/speech` and `/v1/audio/transcriptions`: OpenAI's dialect."""

from typing import Any

from aiohttp import web

from api.bodies import read_json
from api.forms import read_form
from api.relayed import relayed
from qlaud_actors.gateway.ask_speech import SpeechAsk
from qlaud_actors.gateway.ask_transcription import TranscriptionAsk

routes = web.RouteTableDef()

MAX_RECORDING_BYTES = 25 * 1024 * 1024
"""As OpenAI's own limit."""


@routes.post("/v1/audio/speech")
async def post_speech(request: web.Request) -> web.StreamResponse:
    """A text, spoken."""
    body: dict[str, Any] = await read_json(request, dict)
    ask = SpeechAsk.of(body)
    return await relayed(request, ask, ask.content_type)


@routes.post("/v1/audio/transcriptions")
async def post_transcription(request: web.Request) -> web.StreamResponse:
    """A recording, written down."""
    ask = TranscriptionAsk.of(await read_form(request, {"file"}, MAX_RECORDING_BYTES))
    return await relayed(request, ask, ask.content_type)
