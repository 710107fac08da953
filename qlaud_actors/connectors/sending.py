"""Sends requests to vendors: through the guard, exactly as they were built, and reads so much and no more.

A vendor's own address must be public; one that the operator has put in its place is the operator's word.
"""

import asyncio
import time
from typing import Protocol

from qlaud_actors.connectors.answer import Received
from qlaud_actors.connectors.request import MAX_URL, Request
from qlaud_actors.outbound import attempt as outbound
from qlaud_actors.outbound.attempt import Attempt, PostFailed, Session
from qlaud_actors.outbound.guard import ForbiddenURL, check_url

MAX_ANSWER_BYTES = 8 * 1024 * 1024
ANSWER_SECONDS = 30.0


class SendFailed(Exception):
    """There is no answer; the words name nothing that was sent."""

    def __init__(self, words: str, *, sent: bool, permanent: bool = False) -> None:
        super().__init__(words)
        self.sent = sent
        """Whether any of the request may have reached the vendor."""
        self.permanent = permanent
        """Whether the next attempt would fail alike."""


class Sender(Protocol):
    """Sends one request to a vendor."""

    async def send(
        self, request: Request, *, trusted: bool = False, seconds: float = ANSWER_SECONDS
    ) -> Received:
        """The answer, of whatever status. `trusted`: the address is the operator's. Raises SendFailed."""


class VendorSender:
    """Sends through guarded sessions; one for each process."""

    def __init__(self, session: Session, operators: Session, *, allow_private: bool) -> None:
        self._session = session
        self._operators = operators
        """Lets through to private hosts."""
        self._allow_private = allow_private

    async def send(
        self, request: Request, *, trusted: bool = False, seconds: float = ANSWER_SECONDS
    ) -> Received:
        """The answer, of whatever status; redirects are not followed. Raises SendFailed."""
        attempt = Attempt()
        try:
            async with asyncio.timeout(seconds):
                return await self._send(request, attempt, trusted=trusted)
        except TimeoutError:
            raise SendFailed(f"it did not answer within {seconds:g} s", sent=attempt.sent) from None
        except ForbiddenURL as error:
            raise SendFailed(f"its address {error}", sent=False, permanent=True) from None
        except PostFailed as error:
            raise SendFailed(str(error), sent=attempt.sent, permanent=error.permanent) from None

    async def _send(self, request: Request, attempt: Attempt, *, trusted: bool) -> Received:
        allow_private = trusted or self._allow_private
        guarded = check_url(
            request.url, allow_private=allow_private, as_spelled=True, max_length=MAX_URL + 500
        )
        answer = await outbound.request(
            self._operators if trusted else self._session,
            request.method,
            guarded.url,
            {"accept": "application/json, */*;q=0.5", **request.headers},
            request.body,
            attempt=attempt,
            max_bytes=MAX_ANSWER_BYTES,
        )
        if answer.body is None:
            size = MAX_ANSWER_BYTES // 1024 // 1024
            raise SendFailed(f"its answer is larger than {size} MiB; ask for less", sent=True, permanent=True)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Received(answer.status, headers, answer.body, time.time())
