"""A Messages request → the neutral form, which is nearly its own. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.model import Block, Message, ModelRequest, ToolSpec

_TOOL = ("name", "description", "input_schema")
_KNOWN = frozenset({"model", "messages", "max_tokens", "stream", "system", "tools"})


class MessageIn(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[Block]


class MessagesBody(msgspec.Struct):
    """What the relay itself reads of a request; the rest passes through."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    messages: Annotated[list[MessageIn], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    stream: bool | None = None
    system: str | list[Block] | None = None
    tools: list[Block] | None = None
    thinking: Block | None = None
    tool_choice: Block | None = None
    output_config: Block | None = None


def neutral(read: MessagesBody, body: Mapping[str, Any], max_tokens: int) -> ModelRequest:
    """The request as any model can be asked."""
    return ModelRequest(
        model=read.model,
        messages=tuple(
            Message("assistant" if message.role == "assistant" else "user", message.content)
            for message in read.messages
        ),
        max_tokens=max_tokens,
        system=read.system or None,
        tools=tuple(map(_tool, read.tools or ())),
        params={name: value for name, value in body.items() if name not in _KNOWN and value is not None},
    )


def require_portable(read: MessagesBody) -> None:
    """Refuse what only Claude can be asked. Raises InvalidRequest."""
    for tool in read.tools or ():
        if (kind := tool.get("type") or "custom") != "custom" or not isinstance(tool.get("name"), str):
            raise InvalidRequest(f"A tool of type {str(kind)[:60]!r} exists for Claude models only.")


def _tool(tool: Block) -> ToolSpec:
    extra = {name: value for name, value in tool.items() if name not in _TOOL}
    schema = tool.get("input_schema")
    return ToolSpec(
        str(tool.get("name") or ""),
        str(tool.get("description") or ""),
        schema if isinstance(schema, dict) else {},
        extra,
    )
