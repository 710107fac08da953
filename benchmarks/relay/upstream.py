"""A provider that answers every request at once with the same words, in both dialects.

`python -m benchmarks.relay.upstream PORT`. GET answers 200 to health checks.
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

from benchmarks.relay.http import Inbox

WORDS = "The quick brown fox jumps over the lazy dog near the river bank. " * 4
FRAMES = 20
USAGE = {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80}


def openai_body() -> bytes:
    """A chat completion."""
    message = {"role": "assistant", "content": WORDS}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return _json({**_chat("chat.completion"), "choices": [choice], "usage": USAGE})


def anthropic_body() -> bytes:
    """A message."""
    return _json(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-4-5",
            "content": [{"type": "text", "text": WORDS}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 20, "output_tokens": 60},
        }
    )


def openai_stream() -> bytes:
    """The same completion in frames, as HTTP chunks."""
    chat, size = _chat("chat.completion.chunk"), -(-len(WORDS) // FRAMES)
    pieces = [WORDS[at : at + size] for at in range(0, len(WORDS), size)]
    chunks = [{**chat, "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    chunks.append({**chat, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({**chat, "choices": [], "usage": USAGE})
    frames = [b"data: " + _json(chunk) + b"\n\n" for chunk in chunks]
    return b"".join(b"%x\r\n%s\r\n" % (len(frame), frame) for frame in [*frames, b"data: [DONE]\n\n"])


def whole(body: bytes) -> bytes:
    """A response with a length."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chat(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1795000000, "model": "gpt-5.4-mini"}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


ANSWERS = {
    b"GET": whole(b'{"object":"list","data":[{"id":"gpt-5.4-mini","object":"model"}]}'),
    b"/v1/chat/completions": whole(openai_body()),
    b"/v1/messages": whole(anthropic_body()),
}
STREAM = STREAM_HEAD + openai_stream() + b"0\r\n\r\n"


class Provider(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._inbox = Inbox()

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        head = self._inbox.feed(data)
        while head is not None:
            method, path, _ = head.split(b" ", 2)
            body = self._inbox.take()
            streamed = b'"stream":true' in body or b'"stream": true' in body
            answer = STREAM if streamed else ANSWERS.get(path, ANSWERS[b"GET"])
            self._transport.write(ANSWERS[b"GET"] if method == b"GET" else answer)
            head = self._inbox.feed(b"")


async def serve(port: int) -> None:
    """Until killed."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
