"""Neutral messages → Chat Completions messages. Pure.

What has no counterpart there is left out, so that a thread can move between vendors: server tools'
blocks, redacted thinking, and (unless a model needs it back) thinking.
"""

from typing import Any

import msgspec

from qlaud_actors.providers.dialects import Dialect, dialect_of
from qlaud_actors.providers.model import Block, Message, Model, ModelRequest
from qlaud_actors.providers.names import ToolNames

NO_REASONING = " "
"""Stands for reasoning that was never there: models that want it back refuse absent and empty alike."""

Part = dict[str, Any]


def encode_messages(request: ModelRequest, model: Model, names: ToolNames) -> list[Part]:
    """All messages of a request, its system prompt first."""
    dialect, replay_reasoning = dialect_of(model), "reasoning_replay" in model.capabilities
    encoded: list[Part] = []
    if system := _text_of(request.system or ""):
        encoded.append({"role": "system", "content": system})
    for message in request.messages:
        if message.role == "assistant":
            encoded += _assistant(message, names, dialect, replay_reasoning)
        else:
            encoded += _user(_blocks(message.content), dialect)
    return encoded


def _blocks(content: str | list[Block]) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text_of(content: str | list[Block]) -> str:
    return "\n\n".join(block["text"] for block in _blocks(content) if block.get("text"))


def _assistant(message: Message, names: ToolNames, dialect: Dialect, replay_reasoning: bool) -> list[Part]:
    """The one message of an answer; none when nothing of it can be said on this wire."""
    blocks = _blocks(message.content)
    text = "".join(block["text"] for block in blocks if block.get("type") == "text")
    calls = [_call(block, names, dialect) for block in blocks if block.get("type") == "tool_use"]
    encoded: Part = {"role": "assistant", "content": text or None}
    if calls:
        encoded["tool_calls"] = calls
    if replay_reasoning:
        thoughts = [block.get("thinking", "") for block in blocks if block.get("type") == "thinking"]
        encoded["reasoning_content"] = "".join(thoughts) or NO_REASONING
    return [encoded] if text or calls else []


def _call(block: Block, names: ToolNames, dialect: Dialect) -> Part:
    call: Part = {
        "id": dialect.call_id(block["id"]),
        "type": "function",
        "function": {
            "name": names.to_wire(block["name"]),
            "arguments": msgspec.json.encode(block.get("input") or {}).decode(),
        },
    }
    if "extra_content" in block:  # Google's thought signature, which it wants back with the call
        call["extra_content"] = block["extra_content"]
    return call


def _user(blocks: list[Block], dialect: Dialect) -> list[Part]:
    """Tool messages directly behind the calls that they answer, then the user's own words.

    A tool message takes text only: images and files of results follow as the user's.
    """
    answers: list[Part] = []
    parts: list[Part] = []
    for block in blocks:
        if block.get("type") != "tool_result":
            parts += _parts(block)
            continue
        call_id = dialect.call_id(block["tool_use_id"])
        content = [part for inner in _blocks(block.get("content") or "") for part in _parts(inner)]
        attached = [part for part in content if part["type"] != "text"]
        if attached:
            parts += [{"type": "text", "text": f"Attached to {call_id}:"}, *attached]
        answer = _result_text(content, bool(attached), bool(block.get("is_error")))
        answers.append({"role": "tool", "tool_call_id": call_id, "content": answer})
    return [*answers, *_user_message(parts)]


def _result_text(content: list[Part], attached: bool, is_error: bool) -> str:
    text = "\n\n".join(part["text"] for part in content if part["type"] == "text")
    text = text or ("(see the attachment)" if attached else "(no output)")
    # The wire has no flag for failure; the model must read it.
    return f"Error: {text}" if is_error and not text.lower().startswith("error") else text


def _user_message(parts: list[Part]) -> list[Part]:
    """Plain text stays a string: not every server takes lists."""
    if not parts:
        return []
    if all(part["type"] == "text" for part in parts):
        return [{"role": "user", "content": "\n\n".join(part["text"] for part in parts)}]
    return [{"role": "user", "content": parts}]


def _parts(block: Block) -> list[Part]:
    """A user's block as content parts; a kind that the wire lacks is named, not silently lost."""
    match block.get("type"):
        case "text":
            return [_text(block["text"])] if block.get("text") else []
        case "image":
            return [_image(block.get("source") or {})]
        case "document":
            return _document(block)
        case "search_result":
            head = f"{block.get('title', '')}\n{block.get('source', '')}".strip()
            return [_text(head), *(part for inner in block.get("content") or [] for part in _parts(inner))]
        case kind:
            return [_text(f"[{kind} left out]")]


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _image(source: Block) -> Part:
    match source.get("type"):
        case "base64":
            url = f"data:{source['media_type']};base64,{source['data']}"
        case "url":
            url = source["url"]
        case _:
            return _text("[image left out]")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Block) -> list[Part]:
    source, title = block.get("source") or {}, block.get("title")
    match source.get("type"):
        case "base64":
            data = f"data:{source['media_type']};base64,{source['data']}"
            return [{"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}]
        case "text":
            return [_text(f"{title}\n\n{source['data']}" if title else source["data"])]
        case "content":
            return [part for inner in _blocks(source["content"]) for part in _parts(inner)]
        case "url":
            return [_text(f"[document: {source['url']}]")]
        case _:
            return [_text("[document left out]")]
