"""The OpenAI Responses wire: numbered events, bodies and usage as the vendor sends them."""

import base64
import secrets
import time
from typing import Any

import msgspec

from qlaud_actors.scripted import responses_checks, responses_read
from qlaud_actors.scripted.openai_wire import OpenAIWire
from qlaud_actors.scripted.plan import Block, Piece, Plan, Usage
from qlaud_actors.scripted.responses_checks import THOUGHT
from qlaud_actors.scripted.view import View
from qlaud_actors.scripted.wire import Answer

_PREFIXES = {"text": "msg", "thinking": "rs", "tool_use": "fc"}
_DELTAS = {
    "text": "response.output_text",
    "thinking": "response.reasoning_summary_text",
    "tool_use": "response.function_call_arguments",
}
_INCOMPLETE = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}


class ResponsesWire(OpenAIWire):
    """`POST /v1/responses`; keys, errors and headers are those of the vendor's other wire."""

    name = "responses"

    def read(self, body: Any) -> View:
        """The request as the model sees it."""
        responses_checks.check(body)
        return responses_read.read(body)

    def answer(self, view: View, plan: Plan) -> Answer:
        """The planned answer."""
        return ResponsesAnswer(view, plan)


class ResponsesAnswer:
    """One response."""

    def __init__(self, view: View, plan: Plan) -> None:
        self._plan = plan
        stem = secrets.token_hex(20)
        self._ids = [f"{_PREFIXES[block.kind]}_{stem}{n:02d}" for n, block in enumerate(plan.blocks)]
        self._call_ids = [f"call_{secrets.token_hex(12)}" for _ in plan.blocks]
        self._number = 0
        self._response: dict[str, Any] = {
            "id": f"resp_{stem}",
            "object": "response",
            "created_at": int(time.time()),
            "model": view.model,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "service_tier": "default",
            "store": False,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
        }

    def start(self, usage: Usage) -> bytes:
        """The response before anything is in it, twice."""
        begun = {**self._response, "status": "in_progress", "output": [], "usage": None}
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def piece(self, piece: Piece) -> bytes:
        """A delta, with what opens and closes its item."""
        n, block = piece.block, self._plan.blocks[piece.block]
        frames = self._open(n, block) if piece.first else b""
        at = self._at(n, block)
        logprobs: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
        frames += self._event(f"{_DELTAS[block.kind]}.delta", **at, delta=piece.text, **logprobs)
        return frames + (self._close(n, block) if piece.last else b"")

    def end(self, usage: Usage) -> bytes:
        """The response with all that is in it, and its usage unless the script leaves it out."""
        response = self._ended(usage)
        return self._event(f"response.{response['status']}", response=response)

    def broken(self, request_id: str) -> bytes:
        """An error in place of an event."""
        return self._event("error", code="server_error", message="The model failed.", param=None)

    def whole(self, usage: Usage) -> bytes:
        """The response in one body."""
        return msgspec.json.encode(self._ended(usage))

    def _ended(self, usage: Usage) -> dict[str, Any]:
        reason = _INCOMPLETE.get(self._plan.stop_reason)
        return {
            **self._response,
            "status": "incomplete" if reason else "completed",
            "incomplete_details": {"reason": reason} if reason else None,
            "output": [self._item(n, block, "completed") for n, block in enumerate(self._plan.blocks)],
            "usage": None if self._plan.omit_usage else _usage(usage),
        }

    def _open(self, n: int, block: Block) -> bytes:
        item = self._item(n, Block(block.kind, (), block.name), "in_progress")
        item |= {"content": []} if block.kind == "text" else {}
        item |= {"summary": []} if block.kind == "thinking" else {}
        added = self._event("response.output_item.added", output_index=n, item=item)
        return added + self._part(n, block, "added", "")

    def _close(self, n: int, block: Block) -> bytes:
        text = {"arguments" if block.kind == "tool_use" else "text": block.text}
        logprobs: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
        done = self._event(f"{_DELTAS[block.kind]}.done", **self._at(n, block), **text, **logprobs)
        item = self._item(n, block, "completed")
        return (
            done
            + self._part(n, block, "done", block.text)
            + self._event("response.output_item.done", output_index=n, item=item)
        )

    def _part(self, n: int, block: Block, step: str, text: str) -> bytes:
        match block.kind:
            case "text":
                kind, part = "content_part", _text(text)
            case "thinking":
                kind, part = "reasoning_summary_part", {"type": "summary_text", "text": text}
            case _:
                return b""
        return self._event(f"response.{kind}.{step}", **self._at(n, block), part=part)

    def _at(self, n: int, block: Block) -> dict[str, Any]:
        at = {"item_id": self._ids[n], "output_index": n}
        inner = {"text": {"content_index": 0}, "thinking": {"summary_index": 0}}
        return at | inner.get(block.kind, {})

    def _item(self, n: int, block: Block, status: str) -> dict[str, Any]:
        item = {"id": self._ids[n], "status": status}
        match block.kind:
            case "text":
                return {**item, "type": "message", "role": "assistant", "content": [_text(block.text)]}
            case "tool_use":
                call = {"type": "function_call", "call_id": self._call_ids[n], "name": block.name}
                return {**item, **call, "arguments": block.text}
        sealed = THOUGHT + base64.b64encode(block.text.encode(errors="replace")).decode()
        summary = [{"type": "summary_text", "text": block.text}]
        return {"id": self._ids[n], "type": "reasoning", "summary": summary, "encrypted_content": sealed}

    def _event(self, kind: str, **fields: Any) -> bytes:
        told = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(told))


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, Any]:
    """The input includes what was read from or written to the cache, the output what was thought."""
    total = usage.input + usage.cache_read + usage.cache_write
    return {
        "input_tokens": total,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.thinking},
        "total_tokens": total + usage.output,
    }
