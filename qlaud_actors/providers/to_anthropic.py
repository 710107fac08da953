"""The neutral form → Anthropic's Messages answers: stream events, and the message in one body. Pure."""

from typing import Any

import msgspec

from qlaud_actors.providers.model import (
    BlockDelta,
    BlockStarted,
    BlockStopped,
    MessageEnded,
    MessageStarted,
    ModelEvent,
    ModelReply,
)
from qlaud_actors.usage import Usage


def wire_usage(usage: Usage) -> dict[str, int]:
    """Usage as Anthropic spells it: input without cached tokens."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }


def stream_events(event: ModelEvent, model: str) -> list[dict[str, Any]]:
    """The stream events that a client gets for one event of the model; each begins with its `type`."""
    match event:
        case MessageStarted(message_id, usage):
            message: dict[str, Any] = {
                "id": message_id,
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": wire_usage(usage),
            }
            return [{"type": "message_start", "message": message}]
        case BlockStarted(index, block):
            return [{"type": "content_block_start", "index": index, "content_block": block}]
        case BlockDelta(index, delta):
            return [{"type": "content_block_delta", "index": index, "delta": delta}]
        case BlockStopped(index):
            return [{"type": "content_block_stop", "index": index}]
        case MessageEnded(stop_reason, usage, stop_sequence):
            delta = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
            return [
                {"type": "message_delta", "delta": delta, "usage": wire_usage(usage)},
                {"type": "message_stop"},
            ]


class AnthropicWriter:
    """Writes one answer of `model` for a caller who speaks Anthropic's dialect."""

    def __init__(self, model: str) -> None:
        self._model = model

    def frames(self, event: ModelEvent) -> bytes:
        """The frames of one event."""
        return b"".join(
            b"event: %s\ndata: %s\n\n" % (told["type"].encode(), msgspec.json.encode(told))
            for told in stream_events(event, self._model)
        )

    def whole(self, reply: ModelReply) -> bytes:
        """The message in one body."""
        return msgspec.json.encode(
            {
                "id": reply.message_id,
                "type": "message",
                "role": "assistant",
                "model": self._model,
                "content": reply.content,
                "stop_reason": reply.stop_reason,
                "stop_sequence": reply.stop_sequence,
                "usage": wire_usage(reply.usage),
            }
        )
