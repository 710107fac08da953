"""Calls a developer's webhook tool: signed, bounded in time and size, retried only where it is safe.

The tool's time-out is the budget of all attempts together; each may use what is left, so a slow tool is
not cut short for the sake of a retry. A 5xx is retried: the endpoint said that it failed. So is a
connection that was never made. A request that was sent and got no answer may have taken effect, so it
is repeated only when the tool is `read` or `idempotent`. The call's id, which is the receiver's
idempotency key, is the same on every attempt.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from yarl import URL

from qlaud_actors.db.pool import ConnectionLost
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.attempt import Answer, Attempt, PostFailed, Session, post
from qlaud_actors.outbound.guard import ForbiddenURL, check_url
from qlaud_actors.outbound.retry import RetryPolicy, within
from qlaud_actors.settings import Secret
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.secrets import NOT_ON_RECORD, opened
from qlaud_actors.tools.signature import signed_headers

ATTEMPTS = 3
MAX_ANSWER_BYTES = 256 * 1024

MAY_HAVE_HAPPENED = "The call may or may not have taken effect: check before you repeat it."

Sleep = Callable[[float], Awaitable[None]]

logger = get_logger(__name__)


class Reply(msgspec.Struct):
    """What a webhook answers (reference 6.3)."""

    output: Any
    is_error: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one attempt came to; `retry` says whether another one is safe and may help."""

    outcome: ToolOutcome
    retry: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What all attempts of a call have in common."""

    tool: Tool
    call: ToolCall
    url: URL
    secret: Secret
    body: bytes


class WebhookCaller:
    """Calls webhooks through a guarded session; one for each process."""

    def __init__(self, session: Session, allow_private: bool, sleep: Sleep = asyncio.sleep) -> None:
        self._session = session
        self._allow_private = allow_private
        self._sleep = sleep
        self._policy = RetryPolicy(ATTEMPTS)

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """The outcome; whatever goes wrong is an outcome in words for the model."""
        if tool.webhook_url is None:
            return _failed("This tool has no webhook.")
        try:
            url = check_url(tool.webhook_url, allow_private=self._allow_private).url
        except ForbiddenURL as error:
            return _failed(f"The tool's webhook was not called: its URL {error}.")
        try:
            secret = await opened(tool.secret, f"tool_call:{call.id}", tool_id=tool.id)
        except ConnectionLost:
            return _failed(NOT_ON_RECORD)
        if secret is None:
            return _failed("This tool's signing secret cannot be read here: it has to be registered again.")
        body = msgspec.json.encode(payload(tool, call, context))
        return await self._attempts(Request(tool, call, url, secret, body))

    async def _attempts(self, request: Request) -> ToolOutcome:
        """Try until there is a verdict that stands, attempts are spent, or the time is."""
        seconds = request.tool.timeout_ms / 1000
        deadline = time.monotonic() + seconds
        attempt, verdict = Attempt(), None
        try:
            async with asyncio.timeout(seconds):
                for number in range(1, ATTEMPTS + 1):
                    attempt, verdict = Attempt(), None
                    verdict = await self._attempt(request, attempt, number)
                    wait = self._policy.wait(number, verdict.retry_after, random.random)
                    if not verdict.retry or wait is None:
                        break
                    pause = within(wait, verdict.retry_after or 0.0, deadline - time.monotonic())
                    if pause is None:
                        break
                    await self._sleep(pause)
        except TimeoutError:
            return verdict.outcome if verdict else _timed_out(request.tool, attempt)
        assert verdict is not None
        return verdict.outcome

    async def _attempt(self, request: Request, attempt: Attempt, number: int) -> Verdict:
        start, status = time.monotonic(), None
        headers = signed_headers(request.secret, request.call.id, int(time.time()), request.body)
        headers["content-type"] = "application/json"
        try:
            answer = await post(
                self._session, request.url, headers, request.body, attempt=attempt, max_bytes=MAX_ANSWER_BYTES
            )
            status = answer.status
            return judge(answer)
        except ForbiddenURL as error:
            return Verdict(_failed(f"The tool's webhook was not called: its URL {error}."))
        except PostFailed as error:
            return _broken(request.tool, attempt, error)
        finally:
            logger.info(
                "webhook_call",
                tool_id=request.tool.id,
                call_id=request.call.id,
                attempt=number,
                status=status,
                address=attempt.address,
                ms=round((time.monotonic() - start) * 1000),
            )


def payload(tool: Tool, call: ToolCall, context: CallContext) -> dict[str, object]:
    """The body that a webhook gets (reference 6.3)."""
    return {
        "tool_id": tool.id,
        "tool_use_id": call.tool_use_id,
        "name": tool.name,
        "input": call.input,
        "request_id": context.request_id,
        "thread_id": str(context.thread_id) if context.thread_id else None,
        "end_user_id": context.end_user_id,
    }


def judge(answer: Answer) -> Verdict:
    """What an answer means. 2xx with `{output, is_error?}` is a result, all else a failure in words."""
    status = answer.status
    if status >= 500:
        words = f"The tool's webhook failed with status {status}."
        return Verdict(_failed(words), retry=True, retry_after=_retry_after(answer.headers))
    if not 200 <= status < 300:
        return Verdict(_failed(_refusal(status)))
    if answer.body is None:
        limit = MAX_ANSWER_BYTES // 1024
        return Verdict(
            _failed(f"The tool did its work, but its answer is larger than {limit} KiB. Ask for less.")
        )
    try:
        reply = msgspec.json.decode(answer.body, type=Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        words = 'The tool\'s webhook did not answer with JSON of the form {"output": …, "is_error": false}.'
        return Verdict(_failed(words))
    return Verdict(ToolOutcome(reply.output, is_error=bool(reply.is_error)))


def _refusal(status: int) -> str:
    match status:
        case 401 | 403:
            return f"The tool's webhook refused the signature ({status}): its owner has to check the secret."
        case 410:
            return "The tool's webhook says that it is gone for good (410)."
        case 429:
            return "The tool's webhook has had too many calls (429). Try again later."
        case _ if 300 <= status < 400:
            return f"The tool's webhook answered with a redirect ({status}), which is not followed."
    return f"The tool's webhook refused the call with status {status}."


def _broken(tool: Tool, attempt: Attempt, error: PostFailed) -> Verdict:
    """No answer: harmless to repeat as long as nothing was sent."""
    if attempt.sent:
        words = "The connection to the tool's webhook broke before it had answered."
        return Verdict(_doubtful(words, tool), retry=tool.effect != "write")
    words = f"The tool's webhook could not be reached, so the call was not made: {error}."
    return Verdict(_failed(words), retry=not error.permanent)


def _timed_out(tool: Tool, attempt: Attempt) -> ToolOutcome:
    seconds = f"{tool.timeout_ms / 1000:g} s"
    if attempt.sent:
        return _doubtful(f"The tool's webhook did not answer within {seconds}.", tool)
    return _failed(f"The tool's webhook could not be reached within {seconds}, so the call was not made.")


def _doubtful(words: str, tool: Tool) -> ToolOutcome:
    """A failure of a call that may have taken effect, unless its tool has none."""
    if tool.effect == "read":
        return _failed(words)
    return ToolOutcome(f"{words} {MAY_HAVE_HAPPENED}", is_error=True, status="unknown")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the form with a date is not worth a clock comparison here."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def _failed(words: str) -> ToolOutcome:
    return ToolOutcome(words, is_error=True)
