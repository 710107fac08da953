"""A checked Responses request as the model sees it."""

from typing import Any

import msgspec

from qlaud_actors.scripted.openai_read import object_of, text_of
from qlaud_actors.scripted.tokens import size
from qlaud_actors.scripted.view import Message, Offer, Part, View

_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_SYSTEM = ("system", "developer")


def read(body: dict[str, Any]) -> View:
    """The view of a body that `responses_checks.check` let pass."""
    said = body["input"]
    items = [{"role": "user", "content": said}] if isinstance(said, str) else said
    system = [text_of(item["content"]) for item in items if item.get("role") in _SYSTEM]
    tools = body.get("tools") or []
    choice = body.get("tool_choice")
    return View(
        model=body["model"],
        messages=tuple(_messages([item for item in items if item.get("role") not in _SYSTEM])),
        system="\n".join([*filter(None, [body.get("instructions")]), *system]),
        tools=tuple(_offer(tool) for tool in tools),
        tools_size=size(msgspec.json.encode(tools).decode()) if tools else 0,
        max_tokens=body.get("max_output_tokens"),
        stream=bool(body.get("stream")),
        tool_choice=choice["name"] if isinstance(choice, dict) else _CHOICES[choice or "auto"],
        thinking=(body.get("reasoning") or {}).get("effort") not in (None, "none"),
    )


def _offer(tool: dict[str, Any]) -> Offer:
    return Offer(tool.get("name") or "", tool.get("description") or "", tool.get("parameters") or {})


def _messages(items: list[dict[str, Any]]) -> list[Message]:
    """The conversation: neighbouring items of an answer, or results, are one message."""
    found: list[Message] = []
    joined: str | None = None
    for item in items:
        kind = item.get("type") or "message"
        group = "user" if kind == "message" and item["role"] == "user" else "assistant"
        group = "results" if kind == "function_call_output" else group
        parts = tuple(_parts(item, kind))
        if group != "user" and group == joined:
            found[-1] = Message(found[-1].role, found[-1].parts + parts)
        else:
            found.append(Message("assistant" if group == "assistant" else "user", parts))
        joined = group
    return found


def _parts(item: dict[str, Any], kind: str) -> list[Part]:
    match kind:
        case "function_call":
            text = item["arguments"]
            return [Part("tool_use", text, name=item["name"], input=object_of(text), id=item["call_id"])]
        case "function_call_output":
            return [Part("tool_result", text_of(item["output"]), id=item["call_id"])]
        case "reasoning":
            return [Part("thinking", "\n".join(part["text"] for part in item["summary"]))]
    content = item["content"]
    return [Part("text", content)] if isinstance(content, str) else [_part(part) for part in content]


def _part(part: dict[str, Any]) -> Part:
    match part["type"]:
        case "input_text" | "output_text":
            return Part("text", part["text"])
        case "input_image":
            return Part("image")
        case _:
            return Part("other", msgspec.json.encode(part).decode())
