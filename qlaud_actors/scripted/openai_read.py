"""A checked OpenAI request as the model sees it."""

from typing import Any

import msgspec

from qlaud_actors.scripted.tokens import size
from qlaud_actors.scripted.view import Message, Offer, Part, View

_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def read(body: dict[str, Any]) -> View:
    """The view of a body that `openai_checks.check` let pass."""
    tools = body.get("tools") or []
    choice = body.get("tool_choice")
    stop = body.get("stop") or ()
    stream = bool(body.get("stream"))
    options = body.get("stream_options") or {}
    return View(
        model=body["model"],
        messages=tuple(_messages(body["messages"])),
        system="\n".join(
            text_of(m["content"]) for m in body["messages"] if m["role"] in ("system", "developer")
        ),
        tools=tuple(_offer(tool["function"]) for tool in tools),
        tools_size=size(msgspec.json.encode(tools).decode()) if tools else 0,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stream=stream,
        include_usage=bool(options.get("include_usage")) if stream else True,
        stop_sequences=(stop,) if isinstance(stop, str) else tuple(stop),
        tool_choice=choice["function"]["name"] if isinstance(choice, dict) else _CHOICES[choice or "auto"],
        schema=((body.get("response_format") or {}).get("json_schema") or {}).get("schema"),
        copies=body.get("n") or 1,
    )


def _offer(function: dict[str, Any]) -> Offer:
    return Offer(function["name"], function.get("description") or "", function.get("parameters") or {})


def _messages(messages: list[dict[str, Any]]) -> list[Message]:
    """The conversation, with neighbouring tool messages joined into one message of results."""
    found: list[Message] = []
    results: list[Part] = []
    for message in [*messages, {"role": "end"}]:
        if message["role"] in ("tool", "function"):
            name = message.get("tool_call_id") or ""
            results.append(Part("tool_result", text_of(message["content"]), id=name))
            continue
        if results:
            found.append(Message("user", tuple(results)))
            results = []
        if message["role"] == "user":
            found.append(Message("user", tuple(_parts(message["content"]))))
        elif message["role"] == "assistant":
            found.append(Message("assistant", tuple(_said(message))))
    return found


def _said(message: dict[str, Any]) -> list[Part]:
    parts = [Part("thinking", message["reasoning_content"])] if message.get("reasoning_content") else []
    parts += _parts(message.get("content") or [])
    for call in message.get("tool_calls") or []:
        text = call["function"]["arguments"]
        parts.append(
            Part("tool_use", text, name=call["function"]["name"], input=object_of(text), id=call["id"])
        )
    return parts


def _parts(content: str | list[dict[str, Any]]) -> list[Part]:
    if isinstance(content, str):
        return [Part("text", content)]
    return [_part(part) for part in content]


def _part(part: dict[str, Any]) -> Part:
    match part["type"]:
        case "text":
            return Part("text", part["text"])
        case "image_url":
            return Part("image")
        case _:
            return Part("other", msgspec.json.encode(part).decode())


def text_of(content: Any) -> str:
    """All text of a content, plain or in parts."""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content or [])


def object_of(text: str) -> dict[str, Any]:
    """The JSON object that a call's arguments are; empty for anything else."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
