"""Relays a turn's events to an HTTP client as server-sent events (reference 1.5, to the byte)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from qlaud_actors import metrics
from qlaud_actors.conversation.events import frame
from qlaud_actors.conversation.log import Entry

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
HEARTBEAT = b": keep-alive\n\n"
STALLED_SECONDS = 60.0
"""A client that takes nothing for so long has left without saying so; it can resume."""


async def relay(
    request: web.Request, entries: AsyncIterator[Entry | None], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Write entries as frames until they end; None is a heartbeat.

    A client that leaves ends the relay and nothing else: the turn goes on.
    """
    response = web.StreamResponse(headers={**HEADERS, **headers})
    metrics.STREAMS_OPEN.inc()
    try:
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            await response.prepare(request)
            async for entry in entries:
                async with asyncio.timeout(STALLED_SECONDS):
                    await response.write(HEARTBEAT if entry is None else frame(entry.data, entry.seq or None))
            await response.write_eof()
    finally:
        metrics.STREAMS_OPEN.dec()
    return response
