"""The neutral form → Chat Completions answers: chunks, and the completion in one body. Pure.

Thinking travels as `reasoning_content`, the name that most servers of this family use.
"""

import time
from typing import Any

import msgspec

from qlaud_actors.providers.model import (
    Block,
    BlockDelta,
    BlockStarted,
    BlockStopped,
    MessageEnded,
    MessageStarted,
    ModelEvent,
    ModelReply,
)
from qlaud_actors.usage import Usage

DONE = b"data: [DONE]\n\n"

_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def wire_usage(usage: Usage) -> dict[str, Any]:
    """Usage as OpenAI spells it: the prompt includes what was read from and written to the cache."""
    return {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output,
        "total_tokens": usage.input_total + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write_5m + usage.cache_write_1h,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


class OpenAIWriter:
    """Writes one answer of `model` for a caller who speaks OpenAI's dialect."""

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self._include_usage = include_usage
        self._envelope: dict[str, Any] = {"id": "", "created": int(time.time()), "model": model}
        self._calls: dict[int, int] = {}
        """Which of the answer's calls a block is."""
        self._silent: set[int] = set()
        """Calls whose arguments have not begun."""

    def frames(self, event: ModelEvent) -> bytes:
        """The chunks of one event."""
        match event:
            case MessageStarted(message_id):
                self._envelope["id"] = message_id
                return self._chunk({"role": "assistant", "content": ""})
            case BlockStarted(index, block):
                return self._begin(index, block)
            case BlockDelta(index, delta):
                return self._delta(index, delta)
            case BlockStopped(index) if index in self._silent:
                return self._arguments(index, "{}")
            case MessageEnded(stop_reason, usage):
                return self._end(stop_reason, usage)
        return b""

    def whole(self, reply: ModelReply) -> bytes:
        """The completion in one body."""
        choice = {
            "index": 0,
            "message": _message(reply.content),
            "logprobs": None,
            "finish_reason": _reason(reply.stop_reason),
        }
        envelope = {**self._envelope, "id": reply.message_id, "object": "chat.completion"}
        return msgspec.json.encode({**envelope, "choices": [choice], "usage": wire_usage(reply.usage)})

    def _begin(self, index: int, block: Block) -> bytes:
        match block.get("type"):
            case "tool_use":
                self._calls[index] = len(self._calls)
                self._silent.add(index)
                head = {"index": self._calls[index], **_call(block, "")}
                arguments = self._arguments(index, _json(block["input"])) if block.get("input") else b""
                return self._chunk({"tool_calls": [head]}) + arguments
            case "text" if block.get("text"):
                return self._chunk({"content": block["text"]})
            case "thinking" if block.get("thinking"):
                return self._chunk({"reasoning_content": block["thinking"]})
        return b""

    def _delta(self, index: int, delta: Block) -> bytes:
        match delta:
            case {"type": "text_delta", "text": str(text)} if text:
                return self._chunk({"content": text})
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                return self._chunk({"reasoning_content": text})
            case {"type": "input_json_delta", "partial_json": str(text)} if text and index in self._calls:
                return self._arguments(index, text)
        return b""

    def _arguments(self, index: int, text: str) -> bytes:
        self._silent.discard(index)
        return self._chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": text}}]})

    def _end(self, stop_reason: str, usage: Usage) -> bytes:
        frames = self._chunk({}, _reason(stop_reason))
        if self._include_usage:
            frames += self._frame([], wire_usage(usage))
        return frames + DONE

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._frame([choice], None)

    def _frame(self, choices: list[Any], usage: Any) -> bytes:
        chunk = {**self._envelope, "object": "chat.completion.chunk", "choices": choices}
        if self._include_usage:
            chunk["usage"] = usage
        return b"data: %s\n\n" % msgspec.json.encode(chunk)


def _message(content: list[Block]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _joined(content, "text"), "refusal": None}
    if thought := _joined(content, "thinking"):
        message["reasoning_content"] = thought
    if calls := [_call(block, _json(block["input"])) for block in content if block["type"] == "tool_use"]:
        message["tool_calls"] = calls
    return message


def _joined(content: list[Block], kind: str) -> str | None:
    return "".join(block[kind] for block in content if block["type"] == kind) or None


def _call(block: Block, arguments: str) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _reason(stop_reason: str) -> str:
    return _REASONS.get(stop_reason, "stop")
