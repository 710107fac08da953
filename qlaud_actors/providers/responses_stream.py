"""The decoder of OpenAI's Responses streams: what passes is watched in it for the bill."""

from typing import Any

from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.providers import failure
from qlaud_actors.providers.brackets import Brackets
from qlaud_actors.providers.model import Block, MessageEnded, MessageStarted, ModelEvent
from qlaud_actors.providers.openai_stream import read_usage as read_chat_usage
from qlaud_actors.providers.stream import CUT, JsonStream, read_object
from qlaud_actors.usage import Usage

_REASONS = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}
_TEXTS = ("response.output_text.delta", "response.refusal.delta")
_THOUGHTS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesDecoder(JsonStream):
    """Decodes response events. The answer ends with its last response object, which has the usage."""

    def __init__(self) -> None:
        super().__init__()
        self._brackets = Brackets()
        self._calls: dict[int, Block] = {}
        self._refused = False
        self._started = False
        self._ended = False

    def _take(self, data: str) -> list[ModelEvent]:
        if self._ended or data.strip() == "[DONE]":  # compatible servers may add it
            return []
        event = read_object(data)
        kind = event.get("type")
        if kind == "error":
            raise failure.from_event(event.get("error") or event)
        if "response" in event:
            return self._response(event["response"], str(kind))
        match kind:
            case "response.output_item.added" if event["item"].get("type") == "function_call":
                return self._call(event["output_index"], event["item"])
            case "response.function_call_arguments.delta":
                return self._write(("call", event["output_index"]), event)
            case str() if kind in _TEXTS:
                self._refused = self._refused or kind == "response.refusal.delta"
                return self._write(("text", event["output_index"], event.get("content_index")), event)
            case str() if kind in _THOUGHTS:
                return self._write(("thinking", event["output_index"]), event)
        return self._other(event)

    def _response(self, response: dict[str, Any], kind: str) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        if not self._started:
            self._started = True
            events.append(MessageStarted(response["id"], Usage()))
        if kind not in _ENDS:
            return events
        if usage := read_usage(response.get("usage")):
            self.usage, self.usage_known = usage, True
        if kind == "response.failed":
            raise failure.from_event(response.get("error"))
        self._ended = True
        return [*events, *self._brackets.close(), MessageEnded(self._stop_reason(response), self.usage)]

    def _call(self, index: int, item: Block) -> list[ModelEvent]:
        call = {"type": "tool_use", "id": item["call_id"], "name": item["name"], "input": {}}
        self._calls[index] = call
        return self._brackets.write(("call", index), call, item.get("arguments") or "")

    def _write(self, key: tuple[Any, ...], event: dict[str, Any]) -> list[ModelEvent]:
        kind = key[0]
        start = self._calls[key[1]] if kind == "call" else {"type": kind, kind: ""}
        return self._brackets.write(key, start, event["delta"])

    def _other(self, event: dict[str, Any]) -> list[ModelEvent]:
        """A piece of a kind that is newer than this code, which is written, and billed, all the same."""
        delta = event.get("delta")
        if not isinstance(delta, str) or not self._started:
            return []
        key = ("thinking", event.get("output_index"))
        return self._brackets.write(key, {"type": "thinking", "thinking": ""}, delta)

    def _close(self) -> list[ModelEvent]:
        if not self._ended:
            raise ProviderUnavailable(CUT)
        return []

    def _stop_reason(self, response: dict[str, Any]) -> str:
        reason = (response.get("incomplete_details") or {}).get("reason")
        if reason:
            return _REASONS.get(reason, str(reason))
        if self._refused:
            return "refusal"
        return "tool_use" if self._calls else "end_turn"


def read_usage(figures: Any) -> Usage | None:
    """A Responses usage object in disjoint buckets, as that of Chat Completions; None where it tells
    nothing. Servers that answer in this form may still name the figures as there.
    """
    if not isinstance(figures, dict) or not ({"input_tokens", "prompt_tokens"} & figures.keys()):
        return None
    return read_chat_usage(
        {
            "prompt_tokens": figures.get("input_tokens"),
            "completion_tokens": figures.get("output_tokens"),
            "prompt_tokens_details": figures.get("input_tokens_details"),
            "completion_tokens_details": figures.get("output_tokens_details"),
            **figures,
        }
    )
