"""A checked Anthropic request as the model sees it."""

from typing import Any

import msgspec

from qlaud_actors.scripted.tokens import size
from qlaud_actors.scripted.view import Message, Offer, Part, View


def read(body: dict[str, Any]) -> View:
    """The view of a body that `anthropic_checks.check` let pass."""
    tools = body.get("tools") or []
    choice = body.get("tool_choice") or {"type": "auto"}
    return View(
        model=body["model"],
        messages=tuple(_message(message) for message in body["messages"]),
        system=_text(body.get("system") or ""),
        tools=tuple(_offer(tool) for tool in tools),
        tools_size=size(msgspec.json.encode(tools).decode()) if tools else 0,
        max_tokens=body.get("max_tokens"),
        stream=body.get("stream", False),
        stop_sequences=tuple(body.get("stop_sequences") or ()),
        tool_choice=choice["name"] if choice["type"] == "tool" else choice["type"],
        schema=((body.get("output_config") or {}).get("format") or {}).get("schema"),
        thinking=(body.get("thinking") or {}).get("type") == "enabled",
    )


def _offer(tool: dict[str, Any]) -> Offer:
    return Offer(tool.get("name", ""), tool.get("description") or "", tool.get("input_schema") or {})


def _message(message: dict[str, Any]) -> Message:
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    role = "assistant" if message["role"] == "assistant" else "user"
    return Message("assistant" if role == "assistant" else "user", tuple(_part(block) for block in blocks))


def _part(block: dict[str, Any]) -> Part:
    match block["type"]:
        case "text":
            return Part("text", block["text"])
        case "thinking":
            return Part("thinking", block["thinking"])
        case "tool_use":
            text = msgspec.json.encode(block["input"]).decode()
            return Part("tool_use", text, name=block["name"], input=block["input"], id=block["id"])
        case "tool_result":
            failed = bool(block.get("is_error"))
            return Part(
                "tool_result", _text(block.get("content") or ""), id=block["tool_use_id"], is_error=failed
            )
        case "image":
            return Part("image")
        case _:
            return Part("other", msgspec.json.encode(block).decode())


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text") or "" for block in content)
