"""The OpenAI Chat Completions wire: chunks, bodies, errors and headers as the vendor sends them."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from qlaud_actors.scripted import openai_checks, openai_read
from qlaud_actors.scripted.plan import Piece, Plan, Usage
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.view import View
from qlaud_actors.scripted.wire import Answer, bearer

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_FAULTS: dict[int, tuple[str, str | None]] = {
    400: ("The request is malformed.", None),
    402: ("Your account has insufficient credit.", "insufficient_quota"),
    429: ("Rate limit reached for requests. Please try again later.", "rate_limit_exceeded"),
    503: ("The engine is currently overloaded, please try again later", None),
}
_KINDS = {429: "requests", 402: "insufficient_quota"}


class OpenAIWire:
    """`POST /v1/chat/completions`."""

    name = "openai"
    window = 400_000

    def key(self, headers: Mapping[str, str]) -> str:
        """The bearer token. A key that begins with `invalid` is refused like an unknown one."""
        key = bearer(headers)
        if not key:
            raise Refusal(401, "You didn't provide an API key in an Authorization header using Bearer auth.")
        if key.startswith("invalid"):
            raise Refusal(401, f"Incorrect API key provided: ****{key[-4:]}.", code="invalid_api_key")
        return key

    def read(self, body: Any) -> View:
        """The request as the model sees it."""
        openai_checks.check(body)
        return openai_read.read(body)

    def too_long(self, input_tokens: int, window: int) -> Refusal:
        """More input than the context window holds."""
        return Refusal(
            400,
            f"This model's maximum context length is {window} tokens. However, your messages resulted in"
            f" {input_tokens} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )

    def fault(self, status: int, retry_after: float | None) -> Refusal:
        """An error on demand."""
        message, code = _FAULTS.get(status, ("The server had an error while processing your request.", None))
        return Refusal(status, message, code=code, retry_after=retry_after)

    def overloaded(self) -> Refusal:
        """A failure of the vendor's."""
        return self.fault(500, None)

    def answer(self, view: View, plan: Plan) -> Answer:
        """The planned answer."""
        return OpenAIAnswer(view, plan)

    def refuse(self, refusal: Refusal, request_id: str) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}`."""
        status = refusal.status
        kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        return msgspec.json.encode(
            {
                "error": {
                    "message": refusal.message,
                    "type": kind,
                    "param": refusal.param,
                    "code": refusal.code,
                }
            }
        )

    def headers(self, request_id: str) -> dict[str, str]:
        """The request's id and the API's version."""
        return {"x-request-id": request_id, "openai-version": "2020-10-01", "openai-organization": "scripted"}


class OpenAIAnswer:
    """One completion, in as many copies as were asked for."""

    def __init__(self, view: View, plan: Plan) -> None:
        self._view = view
        self._plan = plan
        calls = [n for n, block in enumerate(plan.blocks) if block.kind == "tool_use"]
        self._calls = {block: (index, f"call_{secrets.token_hex(12)}") for index, block in enumerate(calls)}
        self._reason = _REASONS.get(plan.stop_reason, plan.stop_reason)
        self._envelope = {
            "id": f"chatcmpl-{secrets.token_hex(14)}",
            "created": int(time.time()),
            "model": view.model,
            "service_tier": "default",
            "system_fingerprint": "fp_scripted",
        }

    def start(self, usage: Usage) -> bytes:
        """The chunk with the role."""
        calls_first = bool(self._plan.blocks) and self._plan.blocks[0].kind == "tool_use"
        return self._chunks({"role": "assistant", "content": None if calls_first else "", "refusal": None})

    def piece(self, piece: Piece) -> bytes:
        """A delta; a tool call begins with its id and name and no arguments."""
        block = self._plan.blocks[piece.block]
        if block.kind == "text":
            return self._chunks({"content": piece.text})
        if block.kind == "thinking":
            return self._chunks({"reasoning_content": piece.text})
        index, call_id = self._calls[piece.block]
        frames = b""
        if piece.first:
            function = {"name": block.name, "arguments": ""}
            head = {"index": index, "id": call_id, "type": "function", "function": function}
            frames = self._chunks({"tool_calls": [head]})
        return frames + self._chunks(
            {"tool_calls": [{"index": index, "function": {"arguments": piece.text}}]}
        )

    def end(self, usage: Usage) -> bytes:
        """The finish reason, the usage if it was asked for, `[DONE]`."""
        frames = self._chunks({}, self._reason)
        if self._view.include_usage and not self._plan.omit_usage:
            frames += self._chunk([], _usage(usage))
        return frames + b"data: [DONE]\n\n"

    def broken(self, request_id: str) -> bytes:
        """An error in place of a chunk."""
        message = "The server had an error while processing your request. Sorry about that!"
        error = {"message": message, "type": "server_error", "param": None, "code": None}
        return b"data: %b\n\n" % msgspec.json.encode({"error": error})

    def whole(self, usage: Usage) -> bytes:
        """The completion in one body."""
        choices = [
            {"index": n, "message": self._message(), "logprobs": None, "finish_reason": self._reason}
            for n in range(self._view.copies)
        ]
        body = {**self._envelope, "object": "chat.completion", "choices": choices}
        if not self._plan.omit_usage:
            body["usage"] = _usage(usage)
        return msgspec.json.encode(body)

    def _message(self) -> dict[str, Any]:
        text = "".join(block.text for block in self._plan.blocks if block.kind == "text")
        thought = "".join(block.text for block in self._plan.blocks if block.kind == "thinking")
        calls = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": self._plan.blocks[n].name, "arguments": self._plan.blocks[n].text},
            }
            for n, (_, call_id) in self._calls.items()
        ]
        content = text or (None if calls else "")
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content,
            "refusal": None,
            "annotations": [],
        }
        return (
            message
            | ({"reasoning_content": thought} if thought else {})
            | ({"tool_calls": calls} if calls else {})
        )

    def _chunks(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        """The same delta for every copy."""
        copies = range(self._view.copies)
        return b"".join(
            self._chunk([{"index": n, "delta": delta, "logprobs": None, "finish_reason": reason}])
            for n in copies
        )

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        chunk = {**self._envelope, "object": "chat.completion.chunk", "choices": choices}
        if self._view.include_usage:
            chunk["usage"] = usage
        return b"data: %b\n\n" % msgspec.json.encode(chunk)


def _usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's prompt tokens include what was read from or written to the cache."""
    written = usage.cache_write + usage.cache_write_1h
    prompt = usage.input + usage.cache_read + written
    details = {"cached_tokens": usage.cache_read, "audio_tokens": 0}
    if written:
        details["cache_write_tokens"] = written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": usage.thinking, "audio_tokens": 0},
    }
