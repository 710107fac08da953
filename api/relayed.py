"""Writes a relayed answer to its client: as it comes, or in one body."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from api.context import REQUEST_ID, caller, services
from api.errors import error_frame
from api.middleware import authenticate_again
from api.sse import HEADERS, HEARTBEAT
from qlaud_actors import log, metrics
from qlaud_actors.billing.model import KeyChanged
from qlaud_actors.errors import QlaudError
from qlaud_actors.gateway.asks import Ask
from qlaud_actors.gateway.relay import Carriage, Whole


async def relayed(
    request: web.Request, ask: Ask, content_type: str = "application/json"
) -> web.StreamResponse:
    """Carry a request to its provider and answer it, in events or with a body of this type.

    What goes wrong before the first byte is a plain HTTP error, also for a stream. A client that leaves
    ends nothing but its own response.
    """
    try:
        return await _carried(request, ask, content_type)
    except KeyChanged:  # nothing was held, nothing was asked
        if request.writer.output_size > 0:
            raise  # the answer has begun with a heartbeat: there is no second one
        await authenticate_again(request)
        return await _carried(request, ask, content_type)


async def _carried(request: web.Request, ask: Ask, content_type: str) -> web.StreamResponse:
    hub, key = services(request), caller(request)
    async with hub.limits.admit(key, hub.relay.admission.tokens(key, ask)) as admitted:
        if not ask.stream:
            whole = Whole(key, ask)
            try:
                await hub.relay.whole(whole)
            finally:
                admitted.used = whole.tokens_used
            charset = "; charset=utf-8" if content_type.startswith("text/") else ""
            headers = {"content-type": content_type + charset, **admitted.headers, **_told(whole)}
            return web.Response(body=whole.body, headers=headers)
        carriage = hub.relay.start(key, ask)
        try:
            chunks = carriage.chunks(hub.settings.heartbeat_seconds)
            write = _sound if content_type.startswith("audio/") else _stream
            headers = {**admitted.headers, "content-type": content_type}
            return await write(request, carriage, chunks, headers)
        finally:
            carriage.leave()
            admitted.used = carriage.tokens_used


async def _stream(
    request: web.Request, carriage: Carriage, chunks: AsyncIterator[bytes | None], headers: dict[str, str]
) -> web.StreamResponse:
    first = await anext(chunks, b"")
    response = web.StreamResponse(headers={**headers, **HEADERS, **_told(carriage)})
    metrics.STREAMS_OPEN.inc()
    try:
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            told = first
            try:
                await response.write(HEARTBEAT if first is None else first)
                async for chunk in chunks:
                    told = chunk or told
                    await response.write(HEARTBEAT if chunk is None else chunk)
            except QlaudError as error:
                await response.write(error_frame(error, request.path, request[REQUEST_ID], told or b""))
            await response.write_eof()
    finally:
        metrics.STREAMS_OPEN.dec()
    return response


async def _sound(
    request: web.Request, carriage: Carriage, chunks: AsyncIterator[bytes | None], headers: dict[str, str]
) -> web.StreamResponse:
    """Bytes as they come. Nothing else can be said among them: what goes wrong ends the connection."""
    sound = (chunk async for chunk in chunks if chunk)
    first = await anext(sound, b"")
    response = web.StreamResponse(headers={**headers, **_told(carriage)})
    metrics.STREAMS_OPEN.inc()
    try:
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            await response.write(first)
            async for chunk in sound:
                await response.write(chunk)
            await response.write_eof()
    finally:
        metrics.STREAMS_OPEN.dec()
    return response


def _told(carriage: Carriage) -> dict[str, str]:
    """The headers of an answer; whose answer it is stands in the request's log line too."""
    if carriage.ticket is not None:
        model = carriage.ticket.model
        log.bind(model=model.slug, provider=model.provider.slug)
    return carriage.headers()
