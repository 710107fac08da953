"""The Anthropic Messages wire: frames, bodies, errors and headers as the vendor sends them."""

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from qlaud_actors.scripted import anthropic_checks, anthropic_read
from qlaud_actors.scripted.anthropic_pairs import sign
from qlaud_actors.scripted.plan import Block, Piece, Plan, Usage
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.view import View
from qlaud_actors.scripted.wire import bearer

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_WORDS = {
    400: "The request is malformed.",
    402: "Your credit balance is too low to access the Anthropic API.",
    429: "This request would exceed the rate limit for your organization.",
    529: "Overloaded",
}


class AnthropicWire:
    """`POST /v1/messages`."""

    name = "anthropic"
    window = 200_000

    def key(self, headers: Mapping[str, str]) -> str:
        """The `x-api-key`, or the bearer token that the SDK sends since version 2.

        A key that begins with `invalid` is refused like an unknown one.
        """
        key = headers.get("x-api-key") or bearer(headers)
        if not key:
            raise Refusal(401, "x-api-key header is required")
        if key.startswith("invalid"):
            raise Refusal(401, "invalid x-api-key")
        if "anthropic-version" not in headers:
            raise Refusal(400, "anthropic-version: header is required")
        return key

    def read(self, body: Any) -> View:
        """The request as the model sees it."""
        anthropic_checks.check(body)
        return anthropic_read.read(body)

    def count(self, body: Any) -> View:
        """The same for the token counter, which needs no `max_tokens`."""
        anthropic_checks.check(body, counting=True)
        return anthropic_read.read(body)

    def too_long(self, input_tokens: int, window: int) -> Refusal:
        """More input than the context window holds."""
        return Refusal(400, f"prompt is too long: {input_tokens} tokens > {window} maximum")

    def fault(self, status: int, retry_after: float | None) -> Refusal:
        """An error on demand."""
        return Refusal(status, _WORDS.get(status, "Internal server error"), retry_after=retry_after)

    def overloaded(self) -> Refusal:
        """Not enough capacity."""
        return self.fault(529, None)

    def answer(self, view: View, plan: Plan) -> "AnthropicAnswer":
        """The planned answer."""
        return AnthropicAnswer(view, plan)

    def refuse(self, refusal: Refusal, request_id: str) -> bytes:
        """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
        kind = _KINDS.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
        return msgspec.json.encode(_error(kind, refusal.message, request_id))

    def headers(self, request_id: str) -> dict[str, str]:
        """The request's id and whose it is."""
        return {"request-id": request_id, "anthropic-organization-id": "scripted"}


class AnthropicAnswer:
    """One message."""

    def __init__(self, view: View, plan: Plan) -> None:
        self._plan = plan
        self._id = f"msg_01{secrets.token_hex(11)}"
        self._ids = [f"toolu_01{secrets.token_hex(11)}" for _ in plan.blocks]
        self._model = view.model
        self._pinged = False

    def start(self, usage: Usage) -> bytes:
        """`message_start`, with the input's usage."""
        return _frame({"type": "message_start", "message": self._message([], None, None, usage)})

    def piece(self, piece: Piece) -> bytes:
        """A delta; before it what opens its block, after it what closes it."""
        block = self._plan.blocks[piece.block]
        frames = self._opening(piece.block, block) if piece.first else b""
        frames += _delta(piece.block, _PIECES[block.kind](piece.text))
        if piece.last:
            if block.kind == "thinking":
                frames += _delta(piece.block, {"type": "signature_delta", "signature": sign(block.text)})
            frames += _frame({"type": "content_block_stop", "index": piece.block})
        return frames

    def _opening(self, index: int, block: Block) -> bytes:
        empty = {**_content(block, self._ids[index]), **_EMPTY[block.kind]}
        frames = _frame({"type": "content_block_start", "index": index, "content_block": empty})
        if not self._pinged:  # the vendor's first ping stands here
            self._pinged = True
            frames += _frame({"type": "ping"})
        if block.kind == "tool_use":  # and a tool's input starts with an empty piece
            frames += _delta(index, {"type": "input_json_delta", "partial_json": ""})
        return frames

    def end(self, usage: Usage) -> bytes:
        """`message_delta` with cumulative usage, `message_stop`."""
        delta = {"stop_reason": self._plan.stop_reason, "stop_sequence": self._plan.stop_sequence}
        event: dict[str, Any] = {"type": "message_delta", "delta": delta}
        if not self._plan.omit_usage:
            event["usage"] = _usage(usage)
        return _frame(event) + _frame({"type": "message_stop"})

    def broken(self, request_id: str) -> bytes:
        """An `error` event."""
        error = _error("overloaded_error", "Overloaded", request_id)
        error["error"]["details"] = None
        return _frame(error)

    def whole(self, usage: Usage) -> bytes:
        """The message in one body."""
        content = [_content(block, name) for block, name in zip(self._plan.blocks, self._ids, strict=True)]
        plan = self._plan
        return msgspec.json.encode(self._message(content, plan.stop_reason, plan.stop_sequence, usage))

    def _message(
        self, content: list[dict[str, Any]], reason: str | None, sequence: str | None, usage: Usage
    ) -> dict[str, Any]:
        message: dict[str, Any] = {
            "model": self._model,
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "stop_details": None,
        }
        if not self._plan.omit_usage:
            written = {
                "ephemeral_5m_input_tokens": usage.cache_write,
                "ephemeral_1h_input_tokens": usage.cache_write_1h,
            }
            message["usage"] = {**_usage(usage), "cache_creation": written, "service_tier": "standard"}
        return message


_PIECES = {
    "text": lambda text: {"type": "text_delta", "text": text},
    "thinking": lambda text: {"type": "thinking_delta", "thinking": text},
    "tool_use": lambda text: {"type": "input_json_delta", "partial_json": text},
}
_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}


def _frame(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _frame({"type": "content_block_delta", "index": index, "delta": delta})


def _error(kind: str, message: str, request_id: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def _content(block: Block, tool_use_id: str) -> dict[str, Any]:
    if block.kind == "text":
        return {"type": "text", "text": block.text}
    if block.kind == "thinking":
        return {"type": "thinking", "thinking": block.text, "signature": sign(block.text)}
    return {"type": "tool_use", "id": tool_use_id, "name": block.name, "input": _object(block.text)}


def _object(text: str) -> Any:
    """A tool's input; empty when `max_tokens` tore it."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}


def _usage(usage: Usage) -> dict[str, Any]:
    """Anthropic's input excludes what was read from or written to the cache."""
    counts: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }
    if usage.thinking:
        counts["output_tokens_details"] = {"thinking_tokens": usage.thinking}
    return counts
