"""Anthropic's Messages API: the neutral form is its own, so little is translated."""

from typing import Any

from qlaud_actors.errors import ProviderError, ProviderUnavailable
from qlaud_actors.providers import failure
from qlaud_actors.providers.model import (
    Block,
    BlockDelta,
    BlockStarted,
    BlockStopped,
    Message,
    MessageEnded,
    MessageStarted,
    Model,
    ModelEvent,
    ModelRequest,
)
from qlaud_actors.providers.names import ToolNames, legal
from qlaud_actors.providers.params import ANTHROPIC_PARAMS
from qlaud_actors.providers.stream import CUT, JsonStream, read_object
from qlaud_actors.providers.wire import WireRequest
from qlaud_actors.usage import Usage

API_VERSION = "2023-06-01"
MIN_THINKING_BUDGET = 1024
MAX_TEMPERATURE = 1.0


class AnthropicWire:
    """Translates for `POST /v1/messages` below a bare host."""

    path = "/v1/messages"

    def encode(self, request: ModelRequest, model: Model) -> WireRequest:
        """The streaming HTTP request for a neutral request."""
        names = ToolNames.for_request(request)
        params = {name: value for name, value in request.params.items() if name in ANTHROPIC_PARAMS}
        headers = {"anthropic-version": API_VERSION}
        if betas := request.params.get("betas"):
            headers["anthropic-beta"] = ",".join(betas)
        messages = _messages(request.messages, names)
        body: dict[str, Any] = {
            **_fitting(params, request, names),
            **_thinking(params.get("thinking") or {}, request.max_tokens, messages),
            "model": model.upstream,
            "max_tokens": request.max_tokens,
            "messages": messages,
            "stream": True,
        }
        if request.system:
            body["system"] = request.system
        if request.tools:
            body["tools"] = [
                {
                    **tool.extra,
                    "name": names.to_wire(tool.name),
                    "description": tool.description,
                    "input_schema": tool.input_schema,
                }
                for tool in request.tools
            ]
        return WireRequest(self.path, headers, body)

    def decoder(self, request: ModelRequest, model: Model) -> "AnthropicDecoder":
        """A fresh decoder for the answer to that request."""
        return AnthropicDecoder(ToolNames.for_request(request))

    def error(self, status: int, headers: dict[str, str], body: bytes) -> ProviderError:
        """The error that a non-2xx answer means; header names are lower case."""
        return failure.from_response(status, headers, body)

    def usage(self, figures: Any) -> Usage | None:
        """The usage object of an answer in one body; None when there is none."""
        return read_usage(figures) if figures else None


def _fitting(params: dict[str, Any], request: ModelRequest, names: ToolNames) -> dict[str, Any]:
    """The params as this wire takes them, but for `thinking`."""
    fitting = {name: value for name, value in params.items() if name != "thinking"}
    choice = fitting.get("tool_choice")
    if not request.tools:
        fitting.pop("tool_choice", None)
    elif choice and "name" in choice:
        fitting["tool_choice"] = {**choice, "name": names.to_wire(choice["name"])}
    if isinstance(temperature := fitting.get("temperature"), int | float):
        fitting["temperature"] = min(temperature, MAX_TEMPERATURE)
    return fitting


def _thinking(thinking: dict[str, Any], max_tokens: int, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The `thinking` parameter as far as the API takes it with these messages and this limit.

    The money that is left may have cut `max_tokens` below the budget: then the budget shrinks with it,
    and below its minimum thinking goes. It also goes while a tool round is open that another vendor's
    model began: there the API wants a signed thought before the calls.
    """
    if "budget_tokens" not in thinking:
        return {"thinking": thinking} if thinking else {}
    budget = min(thinking["budget_tokens"], max_tokens - 1)
    if budget < MIN_THINKING_BUDGET <= thinking["budget_tokens"] or _thoughtless_round(messages):
        return {}
    return {"thinking": {**thinking, "budget_tokens": budget}}


def _thoughtless_round(messages: list[dict[str, Any]]) -> bool:
    answers = [message["content"] for message in messages[-2:] if message["role"] == "assistant"]
    blocks = answers[-1] if answers and isinstance(answers[-1], list) else []
    called = any(block.get("type") == "tool_use" for block in blocks)
    return called and blocks[0].get("type") not in ("thinking", "redacted_thinking")


def _messages(messages: tuple[Message, ...], names: ToolNames) -> list[dict[str, Any]]:
    encoded = []
    for message in messages:
        content = message.content
        if not isinstance(content, str):
            content = [_block(block, names) for block in content if _acceptable(block, message.role)]
        if content:  # what other vendors' models left may be nothing that this one accepts
            encoded.append({"role": message.role, "content": content})
    return encoded


def _acceptable(block: Block, role: str) -> bool:
    """Whether the API takes a block back: no unsigned thinking (another vendor's), no empty text."""
    if role != "assistant":
        return True
    if block.get("type") == "thinking":
        return bool(block.get("signature"))
    return block.get("type") != "text" or bool(block.get("text"))


def _block(block: Block, names: ToolNames) -> Block:
    """The block itself, but for names and ids that another vendor allows and this one does not."""
    match block.get("type"):
        case "tool_use":
            own = {key: value for key, value in block.items() if key != "extra_content"}
            return {**own, "id": legal(block["id"]), "name": names.to_wire(block["name"])}
        case "tool_result":
            return {**block, "tool_use_id": legal(block["tool_use_id"])}
        case _:
            return block


class AnthropicDecoder(JsonStream):
    """Decodes the Messages stream. Its usage figures are cumulative: newer ones replace older ones."""

    def __init__(self, names: ToolNames) -> None:
        super().__init__()
        self._names = names
        self._blocks: set[int] = set()
        self._figures: dict[str, Any] = {}
        self._stop: dict[str, Any] | None = None
        self._ended = False

    def _take(self, data: str) -> list[ModelEvent]:
        if self._ended or data == "[DONE]":  # compatible servers may add OpenAI's end mark
            return []
        event = read_object(data)
        events: list[ModelEvent] = []
        match event.get("type"):
            case "message_start":
                self._meter(event["message"].get("usage"))
                events = [MessageStarted(event["message"]["id"], self.usage)]
            case "content_block_start":
                events = [BlockStarted(event["index"], self._begin(event["index"], event["content_block"]))]
            case "content_block_delta":
                events = [BlockDelta(self._known(event["index"]), dict(event["delta"]))]
            case "content_block_stop":
                events = [BlockStopped(self._known(event["index"]))]
            case "message_delta":
                self._meter(event.get("usage"))
                if event["delta"].get("stop_reason"):
                    self._stop = event["delta"]
                    # A server may tell nothing: then what it did is estimated, not free.
                    told = {"output_tokens"} <= (event.get("usage") or {}).keys()
                    self.usage_known = told and "input_tokens" in self._figures
            case "message_stop":
                events = self._close()
            case "error":
                raise failure.from_event(event.get("error"))
        return events  # none for a ping, or for what is newer than this code

    def _close(self) -> list[ModelEvent]:
        if self._stop is None:
            raise ProviderUnavailable(CUT)
        if self._ended:
            return []
        self._ended = True
        return [MessageEnded(self._stop["stop_reason"], self.usage, self._stop.get("stop_sequence"))]

    def _begin(self, index: int, block: Block) -> Block:
        self._blocks.add(index)
        if block["type"] == "tool_use":
            return {**block, "id": block["id"], "name": self._names.from_wire(block["name"])}
        return block

    def _known(self, index: int) -> int:
        if index not in self._blocks:
            raise ValueError("a piece of a block that never began")
        return index

    def _meter(self, figures: dict[str, Any] | None) -> None:
        given = (figures or {}).items()
        self._figures.update((name, figure) for name, figure in given if figure is not None)
        self.usage = read_usage(self._figures)


def read_usage(figures: dict[str, Any]) -> Usage:
    """Anthropic's usage object in disjoint buckets.

    `cache_creation` splits `cache_creation_input_tokens` by lifetime; where the split is missing or
    older than the sum, the sum counts and the rest of it was written for five minutes.
    """
    split = figures.get("cache_creation") or {}
    hour = split.get("ephemeral_1h_input_tokens") or 0
    written = figures.get("cache_creation_input_tokens")
    if written is None:
        written = hour + (split.get("ephemeral_5m_input_tokens") or 0)
    hour = min(hour, written)
    return Usage(
        input=figures.get("input_tokens") or 0,
        output=figures.get("output_tokens") or 0,
        cache_read=figures.get("cache_read_input_tokens") or 0,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        reasoning=(figures.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
    )
