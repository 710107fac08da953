"""A loopback model provider that answers Anthropic's wire as a test tells it to, and calls of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from qlaud_actors.outbound.client import Timeouts, open_client
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.providers.caller import Call, Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback, FallbackCall
from qlaud_actors.providers.model import Message, ModelEvent, ModelRequest

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST = ModelRequest("claude-haiku-4-5", (Message("user", "A question of some length?"),), 100)
KEY = "sk-ant-a-secret-key"


def frame(kind: str, **rest: object) -> bytes:
    """One SSE frame."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **rest}))


START = frame(
    "message_start",
    message={
        "id": "msg_1",
        "role": "assistant",
        "content": [],
        "usage": {"input_tokens": 12, "output_tokens": 1},
    },
)
TEXT = (
    frame("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + frame("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello, world."})
    + frame("content_block_stop", index=0)
)
END = frame("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4}) + frame(
    "message_stop"
)
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@dataclass
class Provider:
    """Answers as told, one script line for each request; the last line repeats."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request and answer it."""
        self.requests.append(request)
        self.bodies.append(await request.read())
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        return await answer(request)


@asynccontextmanager
async def running_provider() -> AsyncIterator[Provider]:
    """A provider that listens on a free port until the end."""
    double = Provider()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/{path:.+}", double.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield double
    finally:
        double.released.set()
        await runner.cleanup()


def stream(*parts: bytes, cut: bool = False, hold: asyncio.Event | None = None) -> Answer:
    """A 200 with these chunks; then it waits, is cut, or ends well."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if hold is not None:
            await hold.wait()
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


def refuse(status: int, body: object = OVERLOADED, **headers: str) -> Answer:
    """An error answer."""

    async def answer(request: web.Request) -> web.StreamResponse:  # noqa: ARG001 - as handlers are called
        return web.Response(status=status, body=msgspec.json.encode(body), headers=headers)

    return answer


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection instead of answering."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@dataclass
class Calling:
    """A call with its repetitions, as who makes it sees it."""

    call: FallbackCall[Call]

    @property
    def attempts(self) -> int:
        """How often the provider was asked."""
        return len(self.call.attempts)

    @property
    def last(self) -> Call:
        """The last of them."""
        assert self.call.current is not None
        return self.call.current

    def events(self) -> AsyncGenerator[ModelEvent, None]:
        """The answer as it comes."""
        return self.call.events()


@asynccontextmanager
async def calling(
    url: str, attempts: int = 3, timeouts: Timeouts | None = None
) -> AsyncIterator[tuple[Callable[[], Calling], list[float]]]:
    """Makes calls of claude-haiku-4-5 at `url`; the list holds the waits between attempts."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    catalog = Catalog.load({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url})
    model = catalog.resolve("claude-haiku-4-5")
    client = open_client(timeouts)
    caller = Caller(client, catalog)
    fallback = Fallback(RetryPolicy(attempts), clock=lambda: 1.0, sleep=sleep)
    try:
        yield (lambda: Calling(fallback.call([model], lambda model: caller.call(REQUEST, model)))), waits
    finally:
        await client.close()


async def collect(call: Call | Calling, events: list[ModelEvent] | None = None) -> list[ModelEvent]:
    """All events of a call; also those before an error, when a list is given."""
    events = [] if events is None else events
    async for event in call.events():
        events.append(event)
    return events
