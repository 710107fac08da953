"""Threads of OpenAI's Assistants API and conversations of its Conversations API.

Both were never exported by the vendor as files; people save what the API answered. Read are, as one JSON
document, a list of such documents, or a document on each line:

* `{"thread": {thread object}, "messages": [message objects] or {"data": […]}}`, optionally `"run_steps"`;
* `{"conversation": {conversation object}, "items": [items] or {"data": […]}}`.

Lists of the API come with the newest first or last; `created_at` puts messages in order, and items that
have none stay as they are.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from qlaud_actors.importing.documents import documents, objects, table
from qlaud_actors.importing.model import (
    Block,
    Conversation,
    FormatError,
    Role,
    Said,
    alternating,
    image,
    millis,
    note,
    text,
)

TEXTS = ("text", "input_text", "output_text", "summary_text", "refusal")


def read(raw: bytes) -> Iterator[Conversation]:
    """All threads and conversations of a file."""
    for where, document in documents(raw):
        if "messages" in document:
            yield _from_thread(where, document)
        elif "items" in document:
            yield _from_conversation(where, document)
        else:
            raise FormatError(f"{where} has neither `messages` nor `items`")


def _from_thread(where: str, document: dict[str, Any]) -> Conversation:
    messages = sorted(objects(document["messages"]), key=lambda m: m.get("created_at") or 0)
    thread = table(document, "thread")
    found = thread.get("id") or next((m["thread_id"] for m in messages if m.get("thread_id")), None)
    said = [Said(_role(m), _content(m.get("content")), millis(m.get("created_at"))) for m in messages]
    return _named(where, found, thread, alternating(said))


def _from_conversation(where: str, document: dict[str, Any]) -> Conversation:
    head = table(document, "conversation")
    items = list(objects(document["items"]))
    if any("created_at" in item for item in items):
        items.sort(key=lambda item: item.get("created_at") or 0)
    said = [one for item in items if (one := _item(item))]
    return _named(where, head.get("id"), head, alternating(said))


def _named(where: str, found: object, source: dict[str, Any], messages: list[Said]) -> Conversation:
    if not isinstance(found, str):
        raise FormatError(f"{where} has no id")
    metadata = table(source, "metadata")
    title = metadata.get("title")
    return Conversation(
        f"openai:{found}",
        messages,
        title=title if isinstance(title, str) else None,
        metadata={**metadata, "imported_from": "openai"},
    )


def _role(message: dict[str, Any]) -> Role:
    return "assistant" if message.get("role") == "assistant" else "user"


def _content(content: object) -> list[Block]:
    if isinstance(content, str):
        return text(content)
    return [block for part in objects(content) for block in _part(part)]


def _part(part: dict[str, Any]) -> list[Block]:
    kind = part.get("type")
    if kind in TEXTS:
        found = part.get("text", part.get("refusal"))
        return text(found.get("value") if isinstance(found, dict) else found)
    if kind == "image_url":
        found = part.get("image_url")
        return [image(found.get("url") if isinstance(found, dict) else found)]
    if kind == "input_image" and part.get("image_url"):
        return [image(part["image_url"])]
    return [note(f"{kind or 'an attachment'}, not imported")]


def _item(item: dict[str, Any]) -> Said | None:
    """An item of a conversation; reasoning, which is sealed for its vendor, stays behind."""
    when = millis(item.get("created_at"))
    match item.get("type", "message"):
        case "message" if item.get("role") in ("user", "assistant"):
            return Said(_role(item), _content(item.get("content")), when)
        case "function_call":
            return Said("assistant", [_call(item)], when)
        case "function_call_output":
            output = item.get("output")
            shown = output if isinstance(output, str) else msgspec.json.encode(output).decode()
            result = {"type": "tool_result", "tool_use_id": str(item.get("call_id")), "content": shown}
            return Said("user", [result], when)
    return None


def _call(item: dict[str, Any]) -> Block:
    try:
        arguments = msgspec.json.decode(item.get("arguments") or "{}")
    except msgspec.DecodeError:
        arguments = None
    given = arguments if isinstance(arguments, dict) else {"arguments": item.get("arguments")}
    return {
        "type": "tool_use",
        "id": str(item.get("call_id")),
        "name": str(item.get("name")),
        "input": given,
    }
