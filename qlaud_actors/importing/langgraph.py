"""LangGraph threads: what its API answers for a thread, its state or its history.

Read are, as one JSON document, a list, or a document on each line: a thread (`thread_id`, `values`,
`metadata`), a state (`values`, `checkpoint`), or the history of a thread (a list of states, the newest
first, of which the newest is taken). `values.messages` are LangChain messages, as the API sends them
(`type`: human, ai, tool, system) or as LangChain itself writes them (`lc`, `id`, `kwargs`).
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from qlaud_actors.importing.documents import documents, objects, table
from qlaud_actors.importing.model import (
    Block,
    Conversation,
    FormatError,
    Said,
    alternating,
    image,
    note,
    text,
)

CLASSES = {"HumanMessage": "human", "AIMessage": "ai", "AIMessageChunk": "ai", "ToolMessage": "tool"}
OWN_BLOCKS = ("image", "document", "tool_use", "thinking")
"""Blocks that LangChain keeps as Anthropic sent them."""


def read(raw: bytes) -> Iterator[Conversation]:
    """All threads of a file; of several states of one thread the first."""
    seen: set[str] = set()
    for where, document in documents(raw):
        values = document.get("values")
        if not isinstance(values, dict) or not isinstance(values.get("messages"), list):
            raise FormatError(f"{where} has no `values.messages`")
        thread_id = _thread_id(document)
        if thread_id is None:
            raise FormatError(f"{where} has no thread id")
        if thread_id not in seen:
            seen.add(thread_id)
            yield _conversation(thread_id, document, values["messages"])


def _conversation(thread_id: str, document: dict[str, Any], messages: list[Any]) -> Conversation:
    metadata = table(document, "metadata")
    user = metadata.get("user_id") or metadata.get("owner")
    said = [one for message in objects(messages) if (one := _said(_plain(message)))]
    return Conversation(
        f"langgraph:{thread_id}",
        alternating(said),
        end_user_id=user if isinstance(user, str) else None,
        metadata={**metadata, "imported_from": "langgraph"},
    )


def _thread_id(document: dict[str, Any]) -> str | None:
    places = [document, *(table(document, name) for name in ("checkpoint", "metadata"))]
    places.append(table(table(document, "config"), "configurable"))
    return next((place["thread_id"] for place in places if isinstance(place.get("thread_id"), str)), None)


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message in the form of the API."""
    kwargs, names = message.get("kwargs"), message.get("id")
    if "lc" not in message or not isinstance(kwargs, dict) or not isinstance(names, list) or not names:
        return message
    return {**kwargs, "type": CLASSES.get(str(names[-1]), "other")}


def _said(message: dict[str, Any]) -> Said | None:
    match message.get("type") or message.get("role"):
        case "human" | "user":
            return Said("user", _content(message.get("content")))
        case "ai" | "assistant" | "AIMessageChunk":
            return Said("assistant", _with_calls(message))
        case "tool":
            content = message.get("content")
            shown = content if isinstance(content, str) else msgspec.json.encode(content).decode()
            result = {
                "type": "tool_result",
                "tool_use_id": str(message.get("tool_call_id")),
                "content": shown,
                **({"is_error": True} if message.get("status") == "error" else {}),
            }
            return Said("user", [result])
    return None


def _with_calls(message: dict[str, Any]) -> list[Block]:
    """Text and calls; a call that is among the blocks already is not told twice."""
    blocks = _content(message.get("content"))
    told = {block["id"] for block in blocks if block["type"] == "tool_use" and "id" in block}
    calls = [
        {"type": "tool_use", "id": str(c.get("id")), "name": str(c.get("name")), "input": c.get("args") or {}}
        for c in objects(message.get("tool_calls"))
        if c.get("id") not in told
    ]
    return [*blocks, *calls]


def _content(content: object) -> list[Block]:
    if isinstance(content, str):
        return text(content)
    blocks: list[Block] = []
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            blocks += text(part)
        elif part.get("type") == "text":
            blocks += text(part.get("text"))
        elif part.get("type") == "image_url":
            found = part.get("image_url")
            blocks.append(image(found.get("url") if isinstance(found, dict) else found))
        elif part.get("type") in OWN_BLOCKS:
            blocks.append(part)
        else:
            blocks.append(note(f"{part.get('type') or 'an attachment'}, not imported"))
    return blocks
