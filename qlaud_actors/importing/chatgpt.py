"""ChatGPT's data export: `conversations.json`, a list of trees of messages.

Shape (of exports as they come in 2024 to 2026): each conversation has `mapping`, from id to a node with
`message`, `parent` and `children`, and `current_node`, the leaf that the person saw last. The way from
the root to that leaf is taken; what was edited away hangs beside it and stays behind.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from qlaud_actors.importing.model import (
    Block,
    Conversation,
    FormatError,
    Said,
    alternating,
    millis,
    note,
    text,
)

HIDDEN = ("model_editable_context", "user_editable_context", "reasoning_recap", "thoughts")
"""What the person did not say, or the model did not answer."""


def read(raw: bytes) -> Iterator[Conversation]:
    """All conversations of a `conversations.json`; those in which nobody said anything are left out."""
    try:
        listed = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise FormatError(f"conversations.json must be a list: {error}") from None
    for number, one in enumerate(listed):
        conversation = msgspec.json.decode(one)
        if not isinstance(conversation, dict) or not isinstance(conversation.get("mapping"), dict):
            raise FormatError(f"conversation {number} has no `mapping`")
        made = _conversation(conversation, number)
        if made.messages:
            yield made


def _conversation(conversation: dict[str, Any], number: int) -> Conversation:
    found = conversation.get("conversation_id") or conversation.get("id")
    if not isinstance(found, str):
        raise FormatError(f"conversation {number} has no id")
    title = conversation.get("title")
    messages = [said for message in _path(conversation) if (said := _said(message))]
    return Conversation(
        f"chatgpt:{found}",
        alternating(messages),
        title=title if isinstance(title, str) else None,
        metadata={"imported_from": "chatgpt"},
    )


def _path(conversation: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages from the root to the current leaf."""
    mapping, at = conversation["mapping"], conversation.get("current_node")
    path: list[dict[str, Any]] = []
    seen: set[str] = set()
    while isinstance(at, str) and at in mapping and at not in seen:
        seen.add(at)
        node = mapping[at] if isinstance(mapping[at], dict) else {}
        if isinstance(node.get("message"), dict):
            path.append(node["message"])
        at = node.get("parent")
    return path[::-1]


def _said(message: dict[str, Any]) -> Said | None:
    author = message.get("author")
    role = author.get("role") if isinstance(author, dict) else None
    content, metadata = message.get("content"), message.get("metadata")
    hidden = isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation")
    if hidden or role not in ("user", "assistant", "tool") or not isinstance(content, dict):
        return None
    if content.get("content_type") in HIDDEN:
        return None
    blocks = _blocks(content)
    if role == "tool":
        # Its calls have no ids, so they cannot become calls of ours: what they gave is the answer's.
        blocks = [note(f"result of {author.get('name') or 'a tool'}"), *blocks] if blocks else []  # type: ignore[union-attr]
    return Said("user" if role == "user" else "assistant", blocks, millis(message.get("create_time")))


def _blocks(content: dict[str, Any]) -> list[Block]:
    if isinstance(content.get("text"), str):  # code, execution_output, tether_quote
        return text(content["text"])
    parts = content.get("parts")
    return [block for part in (parts if isinstance(parts, list) else ()) for block in _part(part)]


def _part(part: object) -> list[Block]:
    if not isinstance(part, dict):
        return text(part)
    kind = part.get("content_type")
    if kind == "audio_transcription":
        return text(part.get("text"))
    return [note(f"{kind or 'an attachment'}, not imported")]
