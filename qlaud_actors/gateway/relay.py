"""Carries requests to providers and answers back. A client that leaves, or a handler that is cancelled,
never loses a settlement: a streamed answer is read by a task of the service, not of its client.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing

from qlaud_actors.errors import ProviderUnavailable, QlaudError, ServiceUnavailable
from qlaud_actors.gateway.admission import Admission, Ticket
from qlaud_actors.gateway.asks import Ask
from qlaud_actors.gateway.pipe import Pipe
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.log import get_logger
from qlaud_actors.money import nanos_to_micros

DETACHED_SECONDS = 600.0
"""How long a provider is still read for a client that has left."""

CLOSING_SECONDS = 5.0
"""How long answers on their way are waited for when the process ends; then what they cost is estimated."""

logger = get_logger(__name__)


class Carriage:
    """One request on its way, as its handler sees it."""

    def __init__(self, key: ApiKey, ask: Ask) -> None:
        self.key = key
        self.ask = ask
        self.ticket: Ticket | None = None

    def headers(self) -> dict[str, str]:
        """What is told beside the answer, as far as it is known by now."""
        if self.ticket is None:
            return {}
        model = self.ticket.model
        headers = {"x-qlaud-resolved-model": model.slug, "x-qlaud-provider": model.provider.slug}
        if (remaining := self.ticket.remaining_nanos) is not None:
            headers["x-qlaud-budget-remaining-micros"] = str(remaining // 1_000)
        if not self.ask.stream:
            headers["x-qlaud-cost-micros"] = str(nanos_to_micros(self.ticket.charged_nanos))
        return headers

    @property
    def tokens_used(self) -> int | None:
        """Tokens in and out, once the call is settled."""
        used = self.ticket.used if self.ticket else None
        return used.input_total + used.output if used else None

    async def pass_on(self, ticket: Ticket) -> None:
        """Read the provider to its end; the last bytes leave when their bill is written."""
        async with aclosing(ticket.call.events()) as pieces:
            async for piece in pieces:
                if ticket.ended:
                    await ticket.settle(200)
                await self.take(piece)

    async def take(self, piece: bytes) -> None:
        """A piece of the answer has come."""
        raise NotImplementedError


class Whole(Carriage):
    """One whose answer is wanted in one body."""

    body = b""

    async def take(self, piece: bytes) -> None:
        """Mostly there is one."""
        self.body += piece


class Streamed(Carriage):
    """One whose answer is wanted as it comes."""

    def __init__(self, key: ApiKey, ask: Ask) -> None:
        super().__init__(key, ask)
        self.pipe = Pipe(self._detach)
        self._deadline: asyncio.Timeout | None = None

    def chunks(self, silence: float) -> AsyncIterator[bytes | None]:
        """The answer's bytes; None after so many seconds of silence. Raises QlaudError.

        Everything is settled before the last bytes are given.
        """
        return self.pipe.read(silence)

    def leave(self) -> None:
        """The client reads no more; the provider is still read, and billed."""
        self.pipe.leave()

    async def take(self, piece: bytes) -> None:
        """Waits while the client is behind."""
        await self.pipe.put(piece)

    async def pass_on(self, ticket: Ticket) -> None:
        """Not for ever when the client has left."""
        try:
            async with asyncio.timeout(DETACHED_SECONDS if self.pipe.left else None) as self._deadline:
                await super().pass_on(ticket)
        finally:
            self._deadline = None

    def _detach(self) -> None:
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + DETACHED_SECONDS)


class Relay:
    """Owns what is on its way; one for each process."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._tasks: set[asyncio.Task[None]] = set()
        self._whole: set[asyncio.Future[None]] = set()
        """Done when what a caller's own task carries is settled."""
        self._closing = False

    async def whole(self, carriage: Whole) -> None:
        """Carry a request whose answer is wanted in one body, within the caller's own task: that is not
        cancelled when a client leaves, and when it is cancelled the call is settled all the same.

        Raises QlaudError; ServiceUnavailable while the process ends.
        """
        if self._closing:
            raise ServiceUnavailable
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._whole.add(settled)
        try:
            carriage.ticket = await self.admission.admit(carriage.key, carriage.ask)
            error = await self._answer(carriage, carriage.ticket)
        finally:
            self._whole.discard(settled)
            settled.set_result(None)
        if error:
            raise error

    def start(self, key: ApiKey, ask: Ask) -> Streamed:
        """Carry a request whose answer is wanted as it comes. Raises ServiceUnavailable while the process
        ends.
        """
        if self._closing:
            raise ServiceUnavailable
        carriage = Streamed(key, ask)
        task = asyncio.create_task(self._carry(carriage))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return carriage

    async def close(self) -> None:
        """Wait a while for what is on its way, then break it off; all of it is settled.

        The server has broken off its handlers by then, and does not wait for what they still settle.
        """
        self._closing = True
        if on_their_way := {*self._tasks, *self._whole}:
            await asyncio.wait(on_their_way, timeout=CLOSING_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)

    async def _carry(self, carriage: Streamed) -> None:
        error: QlaudError | None = None
        try:
            ticket = carriage.ticket = await self.admission.admit(carriage.key, carriage.ask)
            error = await self._answer(carriage, ticket)
        except Exception as failure:  # noqa: BLE001 - told to the reader, who knows what to do with it
            carriage.pipe.close(failure)
        else:
            carriage.pipe.close(error)

    async def _answer(self, carriage: Carriage, ticket: Ticket) -> QlaudError | None:
        """Carry an admitted request to its settlement; the error that its reader has to hear."""
        error: QlaudError | None = None
        try:
            await carriage.pass_on(ticket)
        except QlaudError as failure:
            error = failure
        except TimeoutError:
            error = ProviderUnavailable("The answer took too long after its reader had left.")
        except asyncio.CancelledError:
            error = ServiceUnavailable("The service is restarting; try again shortly.")
        except Exception:
            logger.exception("relay_failed", model=ticket.model.slug)
            error = QlaudError()
        with contextlib.suppress(asyncio.CancelledError):
            await ticket.settle(error.status if error else 200)
        return error
