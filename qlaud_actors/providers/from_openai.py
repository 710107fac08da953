"""A Chat Completions request → the neutral form. Pure.

`neutral` translates for a model of another wire and refuses what cannot be said there; `measured` is
only for finding the bound of a request that passes through as it is.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.model import Block, Message, Model, ModelRequest, Role, ToolSpec
from qlaud_actors.providers.openai_choices import params_of, tools_of
from qlaud_actors.providers.reply import parse_input

JSON_ONLY = "Answer with one JSON object and nothing else."

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)
_TEXTS = frozenset({"text", "refusal", "thinking", "reference", "input_text", "output_text"})
"""Parts that hold all that they cost."""

_ROLES = ("assistant", "developer", "system", "user")
"""Their tokens are among those that any message takes. A tuple: a caller's role may have no hash."""

_KNOWN = frozenset({"model", "messages", "stream", "stream_options", "tools", "functions"})

Count = Annotated[int, Meta(ge=1, le=10_000_000)]


class ChatBody(msgspec.Struct):
    """What the relay itself reads of a request; the rest passes through."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    messages: Annotated[list[Block], Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: Block | None = None
    tools: list[Block] | None = None
    functions: list[Block] | None = None


def measured(read: ChatBody, body: Mapping[str, Any], max_tokens: int) -> ModelRequest:
    """The request with everything that it can cost, in no more order than that needs."""
    tools = [*(read.tools or ()), *(read.functions or ())]
    return ModelRequest(
        model=read.model,
        messages=tuple(Message("user", _counted(message)) for message in read.messages),
        max_tokens=max_tokens,
        tools=tuple(ToolSpec("", "", {}, tool) for tool in tools),
        params={name: value for name, value in body.items() if name not in _KNOWN},
    )


def neutral(read: ChatBody, body: Mapping[str, Any], model: Model, max_tokens: int) -> ModelRequest:
    """The request as a model of another wire can be asked. Raises InvalidRequest."""
    if (read.n or 1) > 1:
        raise InvalidRequest("`n` must be 1 for this model.")
    if read.functions:
        raise InvalidRequest("`functions` are not known to this model: use `tools`.")
    system, messages = conversation(read.messages, _read, "messages")
    if (body.get("response_format") or {}) == {"type": "json_object"}:
        system.append({"type": "text", "text": JSON_ONLY})
    return ModelRequest(
        model=read.model,
        messages=messages,
        max_tokens=max_tokens,
        system=joined(system),
        tools=tools_of(read.tools or []),
        params=params_of(body, model, bool(read.tools)),
    )


def _counted(message: Block) -> str | list[Block]:
    """A message's parts as blocks that `bound` knows, and its other fields as one more; of most, a text."""
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2 and message.get("role") in _ROLES:
        return content
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    fields = {name: value for name, value in message.items() if name != "content"}
    known = [_counted_part(part) for part in parts] if isinstance(parts, list) else [{"content": parts}]
    return [{"type": "fields", "fields": fields}, *known]


def _counted_part(part: Any) -> Block:
    """Text is seen; a picture has a size; whatever else a server takes may fill the window."""
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return {"type": "image", "source": {"url": url}}
        case {"type": "image_url"}:
            return {"type": "image"}
        case {"type": "file", "file": {"file_data": str(data)}}:
            return {"type": "document", "source": {"data": data}}
        case {"type": "file"}:
            return {"type": "document"}
        case {"type": str(kind)} if kind not in _TEXTS:
            return {"type": "document", "source": {"data": str(part)}}
        case dict():
            return part
    return {"type": "part", "part": part}


def joined(system: list[Block]) -> str | list[Block] | None:
    """One text; blocks only where one of them marks the end of what is to be cached."""
    if any(_mark(block) for block in system):
        return system
    return "\n\n".join(block["text"] for block in system) or None


def conversation(
    entries: list[Block], read: Callable[[Block], tuple[Any, list[Block]]], field: str
) -> tuple[list[Block], tuple[Message, ...]]:
    """System texts apart; the others with one message per change of role, as Anthropic wants them.

    `read` tells an entry's role, which may also be `system`, and its blocks; `field` is where the entries
    stand. Raises InvalidRequest.
    """
    system: list[Block] = []
    told: list[Message] = []
    for number, entry in enumerate(entries):
        try:
            role, blocks = read(entry)
        except (KeyError, TypeError, AttributeError):
            raise InvalidRequest(f"`{field}[{number}]` cannot be read.") from None
        if role == "system":
            system += blocks
        elif told and told[-1].role == role and isinstance(told[-1].content, list):
            told[-1].content.extend(blocks)
        elif blocks:
            told.append(Message(role, blocks))
    return system, tuple(told)


def _read(message: Block) -> tuple[Any, list[Block]]:
    """A message's role, which may also be `system`, and its blocks."""
    content = message.get("content")
    match message.get("role"):
        case "system" | "developer":
            return "system", texts_of(content)
        case "user":
            return _as("user"), [block for part in _parts(content) for block in _user_part(part)]
        case "assistant":
            return _as("assistant"), _assistant(message)
        case "tool":
            texts = texts_of(content)
            result = {
                "type": "tool_result",
                "tool_use_id": message["tool_call_id"],
                "content": [{"type": "text", "text": block["text"]} for block in texts],
            }
            # A mark must stand on the result itself, not inside it.
            return _as("user"), [result | next(filter(None, map(_mark, texts)), {})]
        case role:
            raise InvalidRequest(f"A message of role {str(role)[:40]!r} is not known to this model.")


def _as(role: Role) -> Role:
    return role


def _assistant(message: Block) -> list[Block]:
    thought = message.get("reasoning_content") or message.get("reasoning")
    blocks: list[Block] = [{"type": "thinking", "thinking": thought, "signature": ""}] if thought else []
    blocks += texts_of(message.get("content")) or texts_of(message.get("refusal"))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        known = {"type": "tool_use", "id": call["id"], "name": function["name"]}
        blocks.append({**known, "input": parse_input(function.get("arguments") or "")})
    return blocks


def _parts(content: Any) -> list[Block]:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def texts_of(content: Any) -> list[Block]:
    """Text blocks of a content that may hold nothing else; empty ones are left out.

    Raises TypeError, AttributeError for what is no text.
    """
    pieces = [(part.get("text") or part.get("refusal") or "", _mark(part)) for part in _parts(content)]
    if not all(isinstance(piece, str) for piece, _ in pieces):
        raise TypeError
    return [{"type": "text", "text": piece, **mark} for piece, mark in pieces if piece]


def _mark(part: Block) -> Block:
    """The `cache_control` that callers of OpenAI's dialect put on a part for Claude."""
    return {"cache_control": part["cache_control"]} if part.get("cache_control") else {}


def _user_part(part: Block) -> list[Block]:
    match part:
        case {"type": "text", "text": str(text)}:
            return [{"type": "text", "text": text, **_mark(part)}] if text else []
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return [{"type": "image", "source": source_of(url), **_mark(part)}]
        case {"type": "file", "file": {"file_data": str(data)}}:
            block: Block = {"type": "document", "source": source_of(data), **_mark(part)}
            name = part["file"].get("filename")
            return [{**block, "title": name} if name else block]
    raise InvalidRequest(f"A part of type {str(part.get('type'))[:40]!r} is not known to this model.")


def source_of(url: str) -> Block:
    """A block's source: what a data URL holds, or any other address."""
    if found := _DATA_URL.match(url):
        return {"type": "base64", "media_type": found.group(1), "data": url[found.end() :]}
    return {"type": "url", "url": url}
