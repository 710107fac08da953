"""Calls a developer's webhook tool: signed, bounded in time and size, retried only where it is safe.

The tool's time-out is the budget of all attempts together. A 5xx is retried: the endpoint said that it
failed. So is a connection that was never made. A request that was sent and got no answer may have
taken effect, so it is repeated only when the tool is `read` or `idempotent`. The call's id, which is
the receiver's idempotency key, is the same on every attempt.
"""

import asyncio
import random
import time
from dataclasses import dataclass

import aiohttp
import msgspec

from qlaud_actors.log import get_logger
from qlaud_actors.outbound.guard import ForbiddenURL, check_url
from qlaud_actors.outbound.retry import delay
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.signature import signed_headers

ATTEMPTS = 3
MAX_ANSWER_BYTES = 256 * 1024
CONNECT_SECONDS = 10.0

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt gave; `retry` says whether another one is safe."""

    outcome: ToolOutcome
    retry: bool = False
    status: int | None = None


class WebhookCaller:
    """Calls webhooks; one for each process."""

    def __init__(self, session: aiohttp.ClientSession, allow_private: bool) -> None:
        self._session = session
        self._allow_private = allow_private

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """The outcome; whatever goes wrong is an outcome in words for the model."""
        assert tool.webhook_url is not None
        try:
            check_url(tool.webhook_url, allow_private=self._allow_private)
        except ForbiddenURL as error:
            return _failed(f"The tool's webhook is not allowed: its URL {error}.")
        body = msgspec.json.encode(payload(tool, call, context))
        outcome = _timed_out(tool)
        try:
            async with asyncio.timeout(tool.timeout_ms / 1000):
                for attempt in range(1, ATTEMPTS + 1):
                    answer = await self._attempt(tool, call, body, attempt)
                    outcome = answer.outcome
                    if not answer.retry or attempt == ATTEMPTS:
                        break
                    await asyncio.sleep(delay(attempt, None, random.random) or 0)
        except TimeoutError:
            return outcome if outcome.is_error and attempt > 1 else _timed_out(tool)
        return outcome

    async def _attempt(self, tool: Tool, call: ToolCall, body: bytes, attempt: int) -> Answer:
        start = time.monotonic()
        answer = Answer(_timed_out(tool))
        try:
            answer = await self._send(tool, call, body)
        except ForbiddenURL as error:
            answer = Answer(_failed(f"The tool's webhook is not allowed: {error}."))
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.__cause__, ForbiddenURL):
                answer = Answer(_failed(f"The tool's webhook is not allowed: {error.__cause__}."))
            else:
                answer = Answer(_failed("The tool's webhook could not be reached."), retry=True)
        except (aiohttp.ClientError, OSError):
            words = "The connection to the tool's webhook broke; the call may or may not have taken effect."
            answer = Answer(_failed(words), retry=tool.effect != "write")
        finally:
            logger.info(
                "webhook_call",
                tool_id=tool.id,
                call_id=call.id,
                attempt=attempt,
                status=answer.status,
                ms=round((time.monotonic() - start) * 1000),
            )
        return answer

    async def _send(self, tool: Tool, call: ToolCall, body: bytes) -> Answer:
        assert tool.webhook_url is not None
        assert tool.secret is not None
        headers = signed_headers(tool.secret, call.id, int(time.time()), body)
        headers["content-type"] = "application/json"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with self._session.post(
            tool.webhook_url, data=body, headers=headers, allow_redirects=False, timeout=timeout
        ) as response:
            raw = await _read_limited(response)
            return Answer(*_judge(response.status, raw), status=response.status)


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


async def _read_limited(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None when it is too large."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(65_536):
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            return None
        parts.append(chunk)
    return b"".join(parts)


def _judge(status: int, raw: bytes | None) -> tuple[ToolOutcome, bool]:
    """What an answer means, and whether the call may be tried again."""
    if status >= 500:
        return _failed(f"The tool's webhook failed with status {status}."), True
    if 300 <= status < 400:
        return _failed("The tool's webhook answered with a redirect, which is not followed."), False
    if status >= 400:
        return _failed(f"The tool's webhook refused the call with status {status}."), False
    if raw is None:
        limit = MAX_ANSWER_BYTES // 1024
        return _failed(f"The tool's answer was larger than {limit} kB. Ask for less."), False
    try:
        answer = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    if not isinstance(answer, dict) or "output" not in answer:
        return _failed('The tool\'s webhook did not answer with JSON of the form {"output": …}.'), False
    return ToolOutcome(answer["output"], is_error=answer.get("is_error") is True), False


def _failed(words: str) -> ToolOutcome:
    return ToolOutcome(words, is_error=True)


def _timed_out(tool: Tool) -> ToolOutcome:
    seconds = tool.timeout_ms / 1000
    may = "" if tool.effect == "read" else " It may or may not have taken effect."
    return _failed(f"The tool's webhook did not answer within {seconds:g} s.{may}")
