"""The scripted vendor cloud as a server on loopback."""

import secrets
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from qlaud_actors.scripted.anthropic_wire import AnthropicWire
from qlaud_actors.scripted.bill import Bill
from qlaud_actors.scripted.completion import Completion, accept, body_of, call_of
from qlaud_actors.scripted.media import MediaRoutes
from qlaud_actors.scripted.models import anthropic_list, openai_list
from qlaud_actors.scripted.openai_wire import OpenAIWire
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.responses_wire import ResponsesWire
from qlaud_actors.scripted.wire import Wire

_LARGEST_BODY = 32 * 1024 * 1024
"""Bytes; the vendor's own limit."""


class ScriptedServer:
    """A vendor cloud that speaks all wires and keeps a bill.

    `port=0` takes a free one; `context_window` is in tokens (None: what the wire's models have), `windows`
    are those of single models, which also have to hold the answer;
    `url` is the bare host, as `ANTHROPIC_BASE_URL` wants it (`OPENAI_BASE_URL` has `/v1` after it).
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, context_window: int | None = None) -> None:
        self._host = host
        self._port = port
        self._window = context_window
        self.windows: dict[str, int] = {}
        self._bill = Bill()
        self._anthropic = AnthropicWire()
        self._openai = OpenAIWire()
        self._responses = ResponsesWire()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return f"http://{self._host}:{self._port}"

    def bill(self) -> dict[str, Any]:
        """Totals and rows of what was produced; see `Bill.account`."""
        return self._bill.account()

    def requests(self) -> list[dict[str, Any]]:
        """The last request bodies, oldest first: `{path, body}`."""
        return self._bill.requests()

    def reset(self, *, record: bool = True) -> None:
        """Forget all that was; `record` says whether request bodies are kept from here on."""
        self._bill.recording = record
        self._bill.reset()

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.add_routes(self._routes())
        # A client that leaves cancels its handler, so that production stops and is billed at once.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, backlog=2_048).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and drop what is running."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/messages", self._completing(self._anthropic)),
            web.post("/v1/chat/completions", self._completing(self._openai)),
            web.post("/v1/responses", self._completing(self._responses)),
            web.post("/v1/messages/count_tokens", self._count_tokens),
            *MediaRoutes(self._bill, self._openai).routes(),
            web.get("/v1/models", self._models),
            web.get("/_scripted/bill", self._show_bill),
            web.get("/_scripted/requests", self._show_requests),
            web.post("/_scripted/reset", self._reset),
        ]

    def _completing(self, wire: Wire) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            request_id = _request_id()
            with self._bill.in_flight():
                try:
                    accepted = await accept(
                        request, wire, self._bill, self._window or wire.window, self.windows
                    )
                    completion = Completion(accepted, wire, self._bill)
                    serve = completion.stream if accepted.view.stream else completion.whole
                    return await serve(request, request_id)
                except Refusal as refusal:
                    self._bill.refused(refusal.status, call_of(request))
                    return _refused(refusal, wire, request_id)

        return handle

    async def _count_tokens(self, request: web.Request) -> web.Response:
        wire, request_id = self._anthropic, _request_id()
        try:
            wire.key(request.headers)
            _, body = await body_of(request)
            count = wire.count(body).input_tokens
        except Refusal as refusal:
            return _refused(refusal, wire, request_id)
        return _json({"input_tokens": count}, wire.headers(request_id))

    async def _models(self, request: web.Request) -> web.Response:
        """Which vendor is meant shows in how the caller identifies itself."""
        marks = ("anthropic-version", "x-api-key")
        wire: Wire = self._anthropic if any(mark in request.headers for mark in marks) else self._openai
        request_id = _request_id()
        try:
            wire.key(request.headers)
        except Refusal as refusal:
            return _refused(refusal, wire, request_id)
        listing = openai_list() if wire is self._openai else anthropic_list(self._window or wire.window)
        return _json(listing, wire.headers(request_id))

    async def _show_bill(self, _: web.Request) -> web.Response:
        return _json(self.bill())

    async def _show_requests(self, _: web.Request) -> web.Response:
        return _json({"requests": self.requests()})

    async def _reset(self, request: web.Request) -> web.Response:
        """The body may be `{"record": false}`, to keep no request bodies."""
        raw = await request.read()
        wanted = msgspec.json.decode(raw) if raw else {}
        self.reset(record=wanted.get("record", True))
        return _json({"ok": True})


def _request_id() -> str:
    return f"req_011C{secrets.token_hex(10)}"


def _json(value: Any, headers: dict[str, str] | None = None, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _refused(refusal: Refusal, wire: Wire, request_id: str) -> web.Response:
    headers = wire.headers(request_id)
    if refusal.retry_after is not None:
        headers["retry-after"] = f"{refusal.retry_after:g}"
    body = wire.refuse(refusal, request_id)
    return web.Response(body=body, status=refusal.status, content_type="application/json", headers=headers)
