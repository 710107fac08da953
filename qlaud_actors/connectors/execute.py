"""Runs one action on one connection: credential, request, attempts, answer.

A failed call is an answer too, for the model. What may be repeated: a request of which nothing was sent;
reads and idempotent actions; a write only when the vendor said that it did not do it (429, or 503 with a
time). One dead access token is renewed, and the call that it failed is made once more.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from qlaud_actors.connectors.answer import Answer, Received, shaped
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import Connection, Owner, RefreshFailed
from qlaud_actors.connectors.connections import Connections
from qlaud_actors.connectors.credentials import CredentialDead, Credentials, Held
from qlaud_actors.connectors.failure import Failure
from qlaud_actors.connectors.model import Action, Connector
from qlaud_actors.connectors.request import RequestProblem, build
from qlaud_actors.connectors.sending import Sender, SendFailed
from qlaud_actors.db.pool import ConnectionLost
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.retry import RetryPolicy, within

ATTEMPTS = 3
PARALLEL = 4
"""Calls at a time on one connection in this process: vendors count per account."""

CALL_SECONDS = 60.0
"""The most for all attempts of a call together."""

MIN_SECONDS = 0.1
"""For a request whose time is over already; it is made all the same."""

NOT_CONNECTED, EXPIRED = "not_connected", "connection_expired"

Sleep = Callable[[float], Awaitable[None]]

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ActionCall:
    """An action to run; `id` is the journal's name of the call, and the vendor's idempotency key."""

    id: str
    owner: Owner
    connector: str
    action: str
    arguments: Mapping[str, Any]
    seconds: float = CALL_SECONDS
    """For all attempts together, once it has its turn."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. With a `code` it failed and `output` is a sentence about that."""

    output: Any
    code: str | None = None
    vendor_code: str | None = None
    retry_after_s: float | None = None
    unsure: bool = False
    """Whether a failed call may have taken effect."""


@dataclass(slots=True)
class _Run:
    """A call on its way."""

    call: ActionCall
    connector: Connector
    action: Action
    connection: Connection
    held: Held
    deadline: float
    renewed: bool = False

    @property
    def purpose(self) -> str:
        """For the audit of the vault."""
        return f"tool_call:{self.call.id}"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one attempt came to; `retry` says whether another one is safe and may help."""

    result: Result
    retry: bool = False
    retry_after: float | None = None
    dead: bool = False
    """Whether it failed for its credential, before anything was done."""


class Executor:
    """Runs actions; one for each process."""

    def __init__(
        self,
        catalog: ConnectorCatalog,
        connections: Connections,
        credentials: Credentials,
        sender: Sender,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._catalog = catalog
        self._connections = connections
        self._credentials = credentials
        self._sender = sender
        self._sleep = sleep
        self._policy = RetryPolicy(ATTEMPTS)
        self._slots: WeakValueDictionary[uuid.UUID, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, call: ActionCall) -> Result:
        """The result; whatever goes wrong is one too. The arguments fit the action's schema."""
        connector = self._catalog.find(call.connector)
        action = connector.action(call.action) if connector else None
        if connector is None or action is None:
            return Result(f"There is no action {call.connector}/{call.action}.", "refused")
        try:
            connection = await self._connections.find(call.owner, call.connector)
            if connection is None:
                return Result(f"{connector.name} is not connected.", NOT_CONNECTED)
            if connection.status == "expired":
                return expired(connector)
            slot = self._slots.setdefault(connection.id, asyncio.Semaphore(PARALLEL))
            async with slot:
                return await self._run(call, connector, action, connection)
        except ConnectionLost:
            words = "The call was not made: the use of its credential could not be put on record."
            return Result(words, "unavailable")

    async def _run(
        self, call: ActionCall, connector: Connector, action: Action, connection: Connection
    ) -> Result:
        deadline = time.monotonic() + min(call.seconds, CALL_SECONDS)
        try:
            held = await self._credentials.open(connection, connector, f"tool_call:{call.id}")
            run = _Run(call, connector, action, connection, held, deadline)
            result = await self._attempts(run)
        except CredentialDead:
            return expired(connector)
        if result.code is None:
            await self._connections.touch(connection)
        return result

    async def _attempts(self, run: _Run) -> Result:
        """Try until a verdict stands, attempts are spent, or the time is. Raises CredentialDead."""
        number, verdict = 1, None
        while True:
            if not await self._living(run, first=verdict is None):
                return verdict.result if verdict and not verdict.dead else ended(run.connector)
            verdict = await self._attempt(run, number)
            if verdict.dead and not run.renewed:
                if (failed := await self._renew(run)) is not None:
                    return failed
                continue
            if verdict.dead:
                await self._credentials.give_up(run.connection, run.held)
                raise CredentialDead
            wait = self._policy.wait(number, verdict.retry_after, random.random)
            pause = None if wait is None else within(wait, verdict.retry_after or 0.0, run.left)
            if not verdict.retry or pause is None:
                return verdict.result
            await self._sleep(pause)
            number += 1

    async def _living(self, run: _Run, *, first: bool) -> bool:
        """Whether the connection is still there, asked right before its credential is sent."""
        try:
            return await self._connections.is_living(run.connection)
        except ConnectionLost:
            if first:
                raise
            return False  # nobody knows, and what the attempt before came to must be told

    async def _renew(self, run: _Run) -> Result | None:
        """Another credential for the run, once; a result when there is none this time."""
        run.renewed = True
        try:
            run.held = await self._credentials.after_refusal(
                run.connection, run.connector, run.held, run.purpose
            )
        except RefreshFailed:
            words = f"The call was not made: {run.connector.name} gave no new access token. Try again later."
            return Result(words, "unavailable")
        return None

    async def _attempt(self, run: _Run, number: int) -> Verdict:
        start, status, result = time.monotonic(), None, "not_sent"
        override = self._catalog.overrides.get(run.connector.slug)
        access = run.held.access
        try:
            request = build(
                run.connector,
                run.action,
                run.call.arguments,
                access,
                idempotency_key=run.call.id,
                override=override,
            )
            received = await self._sender.send(
                request, trusted=override is not None, seconds=max(run.left, MIN_SECONDS)
            )
            status = received.status
            answer = shaped(run.connector, run.action, run.call.arguments, received, access.spelled())
            result = answer.failure.kind if answer.failure else "ok"
            return judge(run.connector, run.action, answer, received)
        except RequestProblem as problem:
            return Verdict(Result(str(problem), "refused"))
        except SendFailed as failed:
            result = "broken" if failed.sent else "not_sent"
            return broken(run.connector, run.action, failed)
        finally:
            logger.info(
                "connector_call",
                tool=f"{run.connector.slug}/{run.action.name}",
                connection_id=str(run.connection.id),
                call_id=run.call.id,
                attempt=number,
                status=status,
                result=result,
                ms=round((time.monotonic() - start) * 1000),
            )


def judge(connector: Connector, action: Action, answer: Answer, received: Received) -> Verdict:
    """What an answer means for the call, and whether it may be made again."""
    failure = answer.failure
    if failure is None:
        return Verdict(Result(answer.output))
    told = Result(failure.message, failure.kind, failure.code, failure.retry_after_s)
    harmless = action.effect != "write"
    match failure.kind:
        case "reconnect":
            # Of a GraphQL answer some part may have been done before the credential failed another.
            return Verdict(told, dead=harmless or connector.errors.signal != "errors" or _whole(received))
        case "rate_limited":
            retry = harmless or _put_off(received, failure)
            return Verdict(told, retry, failure.retry_after_s)
        case "unavailable":
            put_off = _put_off(received, failure)
            told = replace(told, unsure=action.effect != "read" and not put_off)
            return Verdict(told, harmless or put_off, failure.retry_after_s)
        case _:
            return Verdict(told)


def _whole(received: Received) -> bool:
    """Whether the vendor turned the request away by its status, without looking at what it asks."""
    return received.status == 401


def _put_off(received: Received, failure: Failure) -> bool:
    """Whether the vendor said that it has not done it: too much at once, or closed until some time."""
    return received.status == 429 or (received.status == 503 and failure.retry_after_s is not None)


def broken(connector: Connector, action: Action, failed: SendFailed) -> Verdict:
    """What it means for the call that there is no answer."""
    if not failed.sent:
        words = f"{connector.name} could not be reached, so the call was not made: {failed}."
        return Verdict(Result(words, "unavailable"), retry=not failed.permanent)
    words = f"{connector.name} gave no usable answer: {failed}."
    unsure = action.effect != "read"
    retry = action.effect != "write" and not failed.permanent
    return Verdict(Result(words, "unavailable", unsure=unsure), retry)


def ended(connector: Connector) -> Result:
    """Somebody has disconnected it meanwhile."""
    return Result(f"The call was not made: the connection to {connector.name} has just ended.", NOT_CONNECTED)


def expired(connector: Connector) -> Result:
    """The vendor does not take this connection's credential any more."""
    return Result(f"{connector.name} no longer accepts this connection. Connect again.", EXPIRED)
