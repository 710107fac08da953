"""The items of a Responses request: as a conversation of blocks, and as what they can cost. Pure."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.from_openai import conversation as told_apart
from qlaud_actors.providers.from_openai import source_of, texts_of
from qlaud_actors.providers.model import Block, Message
from qlaud_actors.providers.reply import parse_input

SEALED = "qlaud1:"
"""How `encrypted_content` begins that holds another wire's thought: the block itself, for its way back."""

_THOUGHTS = ("thinking", "redacted_thinking")
_REFERENCES = frozenset({"image_url", "file_data", "file_id", "file_url"})
"""Fields that stand for more than their own text."""


def conversation(items: list[Block]) -> tuple[list[Block], tuple[Message, ...]]:
    """System texts apart; the others with one message per change of role. Raises InvalidRequest."""
    return told_apart(items, _read, "input")


def counted(item: Block) -> list[Block]:
    """An item's parts as blocks that `bound` knows, and its other fields as one more."""
    name = "output" if item.get("type") == "function_call_output" else "content"
    content = item.get(name)
    fields = {key: value for key, value in item.items() if key != name}
    blocks: list[Block] = [{"type": "fields", "fields": _without_references(fields)}, *_referred(fields)]
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    for part in parts if isinstance(parts, list) else [] if parts is None else [{"content": parts}]:
        blocks += _counted_part(part)
    return blocks


def native(items: list[Block]) -> list[Block]:
    """The items without what only this server put there, for hosts of this dialect: they refuse both."""
    return [
        {name: value for name, value in item.items() if name != "extra_content"}
        if item.get("type") == "function_call"
        else item
        for item in items
        if not is_sealed(item)
    ]


def seal(block: Block) -> str:
    """A thought as `encrypted_content`: its signature holds for its own text alone, so both travel."""
    texts = {name: value for name, value in block.items() if isinstance(value, str)}
    return SEALED + base64.b64encode(msgspec.json.encode(texts)).decode()


def is_sealed(item: Block) -> bool:
    """Whether an item is a thought that another wire's model had here."""
    return item.get("type") == "reasoning" and str(item.get("encrypted_content")).startswith(SEALED)


def _read(item: Block) -> tuple[Any, list[Block]]:
    """An item's role, which may also be `system`, and its blocks."""
    match item.get("type") or "message":
        case "message":
            return _message(item)
        case "function_call":
            return "assistant", [_call(item)]
        case "function_call_output":
            return "user", [_result(item)]
        case "reasoning":
            return "assistant", _thoughts(item)
        case kind:
            raise InvalidRequest(f"An item of type {str(kind)[:40]!r} is not known to this model.")


def _message(item: Block) -> tuple[Any, list[Block]]:
    content = item.get("content")
    match item.get("role"):
        case "system" | "developer":
            return "system", texts_of(content)
        case "user":
            return "user", [block for part in _parts(content) for block in _user_part(part)]
        case "assistant":
            return "assistant", texts_of(content)
        case role:
            raise InvalidRequest(f"A message of role {str(role)[:40]!r} is not known to this model.")


def _call(item: Block) -> Block:
    call = {"type": "tool_use", "id": _name(item["call_id"]), "name": _name(item["name"])}
    if "extra_content" in item:  # Google's thought signature, which it wants back with the call
        call["extra_content"] = item["extra_content"]
    return {**call, "input": parse_input(item.get("arguments") or "")}


def _result(item: Block) -> Block:
    output = item.get("output")
    blocks = [block for part in _parts(output) for block in _user_part(part)]
    return {"type": "tool_result", "tool_use_id": _name(item["call_id"]), "content": blocks}


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _thoughts(item: Block) -> list[Block]:
    if is_sealed(item):
        return [_unsealed(item["encrypted_content"])]
    told = [part["text"] for part in item.get("content") or item.get("summary") or ()]
    return [{"type": "thinking", "thinking": "\n\n".join(told), "signature": ""}] if told else []


def _unsealed(sealed: str) -> Block:
    try:
        block = msgspec.json.decode(base64.b64decode(sealed.removeprefix(SEALED)), type=dict[str, str])
    except (binascii.Error, ValueError):
        block = {}
    if block.get("type") not in _THOUGHTS:
        raise InvalidRequest("The `encrypted_content` of a reasoning item could not be verified.")
    return dict(block)


def _parts(content: Any) -> list[Block]:
    if content is None:
        return []
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else list(content)


def _user_part(part: Block) -> list[Block]:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)}:
            return [{"type": "text", "text": text}] if text else []
        case {"type": "input_image", "image_url": str(url)}:
            return [{"type": "image", "source": source_of(url)}]
        case {"type": "input_file", "file_data": str(data)} | {"type": "input_file", "file_url": str(data)}:
            block: Block = {"type": "document", "source": source_of(data)}
            return [{**block, "title": part["filename"]} if part.get("filename") else block]
    raise InvalidRequest(f"A part of type {str(part.get('type'))[:40]!r} is not known to this model.")


def _counted_part(part: Any) -> list[Block]:
    if not isinstance(part, dict):
        return [{"type": "part", "part": part}]
    referred = list(_referred(part))
    if not referred and isinstance(part.get("text"), str):
        return [{**part, "type": "text"}]
    return [{"type": "part", "part": _without_references(part)}, *referred]


def _referred(value: Any) -> Iterator[Block]:
    """A picture or a file for each field, at any depth, that stands for one."""
    match value:
        case list():
            for inner in value:
                yield from _referred(inner)
        case dict():
            if value.get("image_url") or (value.get("file_id") and "file" not in str(value.get("type"))):
                yield {"type": "image"}
            elif value.get("file_data"):
                yield {"type": "document", "source": {"data": value["file_data"]}}
            elif value.get("file_id") or value.get("file_url"):
                yield {"type": "document"}
            for inner in value.values():
                yield from _referred(inner)


def _without_references(value: Any) -> Any:
    match value:
        case list():
            return [_without_references(inner) for inner in value]
        case dict():
            return {k: _without_references(v) for k, v in value.items() if k not in _REFERENCES}
    return value
