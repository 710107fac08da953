"""One completion over HTTP: understood, played piece by piece, billed however it ends."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from qlaud_actors.scripted.bill import Bill, Row
from qlaud_actors.scripted.brain import decide
from qlaud_actors.scripted.plan import NO_FAULT, Fault, Piece, Plan, Progress
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.view import View
from qlaud_actors.scripted.wire import Wire

_FLUSH_BYTES = 8 * 1024
"""Frames that need no pause between them are sent together, up to this size."""


class CutOff(Exception):
    """The script drops the connection here."""


class Broken(Exception):
    """The script lets the vendor fail here."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that will be answered."""

    view: View
    plan: Plan
    fault: Fault
    key: str
    call: str


async def body_of(request: web.Request) -> tuple[bytes, Any]:
    """The body, raw and decoded. Raises Refusal (413, 400)."""
    try:
        raw = await request.read()
        return raw, msgspec.json.decode(raw)
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(413, "Request exceeds the maximum size") from None
    except msgspec.DecodeError as error:
        raise Refusal(400, f"The request body is not valid JSON: {error}") from None


async def accept(
    request: web.Request, wire: Wire, bill: Bill, window: int, windows: Mapping[str, int]
) -> Accepted:
    """Check a request and decide its answer. Raises Refusal for what the vendor would not serve."""
    key = wire.key(request.headers)
    raw, body = await body_of(request)
    bill.record(request.path, body)
    view = wire.read(body)
    needed = view.input_tokens
    if own := windows.get(view.model):
        window, needed = own, needed + (view.max_tokens or 1)
    if needed > window:
        raise wire.too_long(needed, window)
    plan = decide(view)
    fault = plan.fault if plan.fault.concerns(view.model, key) else NO_FAULT
    if fault.times is not None:
        fault = fault.at(bill.seen(hashlib.sha256(raw).digest()))
    if fault.status is not None:
        await _pause(plan.first_byte_ms)
        raise wire.fault(fault.status, fault.retry_after)
    return Accepted(view, plan, fault, key, call_of(request))


def call_of(request: web.Request) -> str:
    """The caller's name for a request."""
    return request.headers.get("x-request-id", "")


async def _pause(milliseconds: float) -> None:
    if milliseconds > 0:
        await asyncio.sleep(milliseconds / 1_000)


class Completion:
    """An accepted request being answered."""

    def __init__(self, accepted: Accepted, wire: Wire, bill: Bill) -> None:
        self._plan = accepted.plan
        self._fault = accepted.fault
        self._wire = wire
        self._answer = wire.answer(accepted.view, accepted.plan)
        self._progress = Progress(accepted.view, accepted.plan)
        self._bill = bill
        view, call = accepted.view, accepted.call
        self._row = Row(wire.name, view.model, accepted.key[-4:], view.stream, call=call)

    async def stream(self, request: web.Request, request_id: str) -> web.StreamResponse:
        """Answer with frames as the pieces come."""
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        response = web.StreamResponse(headers=headers | self._wire.headers(request_id))
        try:
            await self._send(request, response, request_id)
        except ConnectionError:
            pass  # the client left; the bill knows how far we came
        finally:
            self._bill.close(self._row, self._progress.usage(), "left")
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, request_id: str) -> None:
        await _pause(self._plan.first_byte_ms)
        await response.prepare(request)
        self._progress.start()
        frames = bytearray(self._answer.start(self._progress.usage()))

        async def emit(piece: Piece) -> None:
            frames.extend(self._answer.piece(piece))
            if self._plan.delay_ms > 0 or len(frames) >= _FLUSH_BYTES:
                await response.write(bytes(frames))
                frames.clear()

        try:
            await self._play(emit)
            frames += self._answer.end(self._progress.usage())
            # Billed before the client can see the end, so that who has seen it finds it on the bill.
            self._bill.close(self._row, self._progress.usage(), "complete")
        except Broken:
            frames += self._answer.broken(request_id)
            self._bill.close(self._row, self._progress.usage(), "error")
        except CutOff:
            self._bill.close(self._row, self._progress.usage(), "cut")
            await response.write(bytes(frames))
            hang_up(request)
            return
        await response.write(bytes(frames))
        await response.write_eof()

    async def whole(self, request: web.Request, request_id: str) -> web.Response:
        """Answer in one body. Raises Refusal when the script lets the vendor fail on the way."""

        async def wait(_: Piece) -> None:
            return

        try:
            await _pause(self._plan.first_byte_ms)
            self._progress.start()
            await self._play(wait)
            self._bill.close(self._row, self._progress.usage(), "complete")
        except Broken:
            self._row.ended = "error"  # an answer with an error status costs nothing
            raise self._wire.overloaded() from None
        except CutOff:
            self._bill.close(self._row, self._progress.usage(), "cut")
            hang_up(request)
        finally:
            self._bill.close(self._row, self._progress.usage(), "left")
        body = self._answer.whole(self._progress.usage())
        return web.Response(
            body=body, content_type="application/json", headers=self._wire.headers(request_id)
        )

    async def _play(self, emit: Callable[[Piece], Awaitable[None]]) -> None:
        """Produce the pieces at the script's pace. Raises CutOff, Broken where the script says so."""
        for n, piece in enumerate(self._plan.pieces()):
            self._check_fault(n)
            if n:
                await _pause(self._plan.delay_ms)
            self._progress.add(piece)
            await emit(piece)
        if self._fault.cut_after is not None:
            raise CutOff
        if self._fault.error_after is not None:
            raise Broken

    def _check_fault(self, produced: int) -> None:
        if produced == self._fault.cut_after:
            raise CutOff
        if produced == self._fault.error_after:
            raise Broken


def hang_up(request: web.Request) -> None:
    """Close the connection in the middle: what was written still arrives, the end never does."""
    if request.transport is not None:
        request.transport.close()
