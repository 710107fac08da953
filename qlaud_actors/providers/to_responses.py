"""The neutral form → OpenAI's Responses: stream events, and the response in one body. Pure.

A block is an item. An item is told as done when the next one begins or the answer ends, because only
then it is known whether the limit cut it.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from qlaud_actors.providers.model import (
    Block,
    BlockDelta,
    BlockStarted,
    MessageEnded,
    MessageStarted,
    ModelEvent,
    ModelReply,
)
from qlaud_actors.providers.reply import INVALID_JSON
from qlaud_actors.providers.responses_items import seal
from qlaud_actors.usage import Usage

Object = dict[str, Any]

ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""Fields of the request that the response repeats, with what they are when they were left out."""

_INCOMPLETE = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
}
_BEGINNING = ("response.created", "response.in_progress")
_PREFIXES = {"text": "msg", "tool_use": "fc", "thinking": "rs", "redacted_thinking": "rs"}
_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def wire_usage(usage: Usage) -> Object:
    """Usage as OpenAI spells it: the input includes what was read from and written to the cache."""
    return {
        "input_tokens": usage.input_total,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write_5m + usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input_total + usage.output,
    }


class ResponsesWriter:
    """Writes one answer of `model` for a caller who speaks the Responses dialect and asked this `body`."""

    def __init__(self, model: str, body: Mapping[str, Any]) -> None:
        echoed = {name: usual if body.get(name) is None else body[name] for name, usual in ECHOED.items()}
        self._stem = secrets.token_hex(16)
        self._response: Object = {
            "id": f"resp_{self._stem}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            **echoed,
            "background": False,
            "store": False,
            "previous_response_id": None,
        }
        self._sequence = 0
        self._done: list[Object] = []
        self._open: _Item | None = None

    def frames(self, event: ModelEvent) -> bytes:
        """The frames of one event; none for some."""
        told: list[Object] = []
        match event:
            case MessageStarted():
                begun = self._object("in_progress", [], None)
                told = [{"type": kind, "response": begun} for kind in _BEGINNING]
            case BlockStarted(_, block):
                told = self._close("completed")
                if block.get("type") in _PREFIXES:
                    self._open = _Item(block, self._id(block, len(self._done)), len(self._done))
                    told += self._open.begin()
            case BlockDelta(_, delta) if self._open:
                told = self._open.add(delta)
            case MessageEnded(stop_reason, usage):
                status = _status(stop_reason)
                told = self._close(status)
                ended = self._object(status, self._done, usage, stop_reason)
                told.append({"type": f"response.{status}", "response": ended})
        return b"".join(map(self._frame, told))

    def whole(self, reply: ModelReply) -> bytes:
        """The response in one body."""
        known = [block for block in reply.content if block.get("type") in _PREFIXES]
        status = _status(reply.stop_reason)
        last = len(known) - 1
        output = [
            _item(block, self._id(block, n), status if n == last else "completed")
            for n, block in enumerate(known)
        ]
        return msgspec.json.encode(self._object(status, output, reply.usage, reply.stop_reason))

    def _id(self, block: Block, index: int) -> str:
        return f"{_PREFIXES[block['type']]}_{self._stem}{index:02d}"

    def _close(self, status: str) -> list[Object]:
        item, self._open = self._open, None
        if item is None:
            return []
        told = item.end(status)
        self._done.append(told[-1]["item"])
        return told

    def _object(
        self, status: str, output: list[Object], usage: Usage | None, stop_reason: str = ""
    ) -> Object:
        return {
            **self._response,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": None,
            "incomplete_details": {"reason": _INCOMPLETE[stop_reason]} if status == "incomplete" else None,
            "output": output,
            "usage": None if usage is None else wire_usage(usage),
        }

    def _frame(self, told: Object) -> bytes:
        numbered = {**told, "sequence_number": self._sequence}
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (told["type"].encode(), msgspec.json.encode(numbered))


class _Item:
    """One output item on its way: its events, each without its number."""

    def __init__(self, block: Block, item_id: str, index: int) -> None:
        self._block = dict(block)
        self._kind: str = block["type"]
        self._at: Object = {"item_id": item_id, "output_index": index}
        inner = "summary_index" if self._kind == "thinking" else "content_index"
        self._part_at: Object = {**self._at, inner: 0}
        self._pieces: list[str] = []

    def begin(self) -> list[Object]:
        """The item as it is before anything is said, and what its block begins with."""
        empty = {**self._block, "text": "", "thinking": "", "input": {INVALID_JSON: ""}}
        item = _item(empty, self._at["item_id"], "in_progress")
        item |= {"content": []} if self._kind == "text" else {}
        added = {"type": "response.output_item.added", "item": item, **_index(self._at)}
        first = self._block.get(self._kind) or ""
        if self._kind == "tool_use" and self._block.get("input"):
            first = _json(self._block["input"])
        opened = [self._part("added", "")] if self._kind == "text" else []
        return [added, *opened, *self._say(first)]

    def add(self, delta: Block) -> list[Object]:
        """One piece."""
        if delta.get("type") == "signature_delta":
            self._block["signature"] = (self._block.get("signature") or "") + delta["signature"]
            return []
        return self._say(delta.get(_PIECES.get(delta.get("type", ""), "")) or "")

    def end(self, status: str) -> list[Object]:
        """What completes the item; the item itself is in the last one."""
        told = self._say("{}") if self._kind == "tool_use" and not self._pieces else []
        text = "".join(self._pieces)
        match self._kind:
            case "text":
                done = {"type": "response.output_text.done", **self._part_at, "text": text, "logprobs": []}
                told += [done, self._part("done", text)]
            case "thinking" if text:
                done = {"type": "response.reasoning_summary_text.done", **self._part_at, "text": text}
                told += [done, self._part("done", text)]
            case "tool_use":
                done = {"type": "response.function_call_arguments.done", **self._at, "arguments": text}
                told.append({**done, "name": self._block["name"]})
        block = self._block if self._kind == "redacted_thinking" else {**self._block, **self._said(text)}
        item = _item(block, self._at["item_id"], status)
        return [*told, {"type": "response.output_item.done", "item": item, **_index(self._at)}]

    def _said(self, text: str) -> Object:
        return {"input": {INVALID_JSON: text}} if self._kind == "tool_use" else {self._kind: text}

    def _say(self, piece: str) -> list[Object]:
        if not piece:
            return []
        first = not self._pieces
        self._pieces.append(piece)
        match self._kind:
            case "text":
                kind, at = "output_text", {**self._part_at, "logprobs": []}
            case "tool_use":
                kind, at = "function_call_arguments", self._at
            case _:
                kind, at = "reasoning_summary_text", self._part_at
        told = {"type": f"response.{kind}.delta", **at, "delta": piece}
        return [self._part("added", ""), told] if first and self._kind == "thinking" else [told]

    def _part(self, step: str, text: str) -> Object:
        thought = self._kind == "thinking"
        kind, part = ("reasoning_summary_part", _summary(text)) if thought else ("content_part", _text(text))
        return {"type": f"response.{kind}.{step}", **self._part_at, "part": part}


def _item(block: Block, item_id: str, status: str) -> Object:
    """An output item as it is told and repeated."""
    item: Object = {"id": item_id, "status": status}
    match block["type"]:
        case "text":
            content = [_text(block["text"])]
            return {**item, "type": "message", "role": "assistant", "content": content}
        case "tool_use":
            call = {"type": "function_call", "call_id": block["id"], "name": block["name"]}
            known = {"extra_content": block["extra_content"]} if "extra_content" in block else {}
            return {**item, **call, "arguments": _arguments(block), **known}
    thought = block.get("thinking")
    signed = block["type"] == "redacted_thinking" or block.get("signature")
    sealed = {"encrypted_content": seal(block)} if signed and status != "in_progress" else {}
    return {**item, "type": "reasoning", "summary": [_summary(thought)] if thought else [], **sealed}


def _arguments(block: Block) -> str:
    """As the model wrote them, also where that was no JSON."""
    told = block["input"].get(INVALID_JSON)
    return told if isinstance(told, str) else _json(block["input"])


def _status(stop_reason: str) -> str:
    return "incomplete" if stop_reason in _INCOMPLETE else "completed"


def _index(at: Object) -> Object:
    return {"output_index": at["output_index"]}


def _text(text: str) -> Object:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _summary(text: str) -> Object:
    return {"type": "summary_text", "text": text}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
