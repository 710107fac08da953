"""Streamed turns of a scripted conversation, kept to the byte."""

import json
from dataclasses import dataclass
from typing import Any

from cluster import MODEL, Api, script


@dataclass
class Turn:
    """A streamed turn: its bytes and its events."""

    raw: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events, in order."""
        lines = self.raw.split(b"\n")
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]

    @property
    def text(self) -> str:
        """What the model said at last."""
        deltas = [e.get("delta", {}) for e in self.events]
        return "".join(d["text"] for d in deltas if d.get("type") == "text_delta")

    @property
    def outputs(self) -> list[Any]:
        """What each tool call gave."""
        return [e["output"] for e in self.events if e["type"] == "qlaud.tool_dispatch_done"]


async def say(user: Api, thread: str, words: str, steps: list[dict[str, Any]]) -> Turn:
    """One streamed turn in dynamic mode."""
    body = {"model": MODEL, "max_tokens": 1024, "content": script(*steps, say=words), "stream": True}
    url = f"{user.base_url}/v1/threads/{thread}/messages"
    async with user.session.post(url, json=body, headers={"x-api-key": user.key}) as response:
        assert response.status == 200, await response.text()
        return Turn(await response.read())
