"""Where a request to a Claude model says that its beginning will come again. Pure.

A mark (`cache_control`) lets the provider keep all up to it for five minutes. Marks stand at ends that stay
the same from turn to turn: of the system prompt, of the summary, of the turn before the newest; and of the
last results while the model works with tools. At most four, the caller's own among them; those that the
caller set in earlier turns are over.
"""

from collections.abc import Iterator
from dataclasses import replace

from qlaud_actors.conversation.context import HEAD, begins_turn
from qlaud_actors.conversation.history import as_blocks
from qlaud_actors.providers.model import Block, Message, Model, ModelRequest

MARK = {"type": "ephemeral"}
MOST = 4
WORTH_CHARS = 4_096
"""Shorter beginnings are not kept by any Claude model (1,024 tokens is the least)."""

MARKABLE = ("text", "image", "document", "tool_use", "tool_result")


def takes_marks(model: Model) -> bool:
    """Whether marks mean something to it: Claude, on Anthropic's wire."""
    return model.provider.wire == "anthropic" and "claude" in model.slug


def marked(request: ModelRequest, model: Model) -> ModelRequest:
    """The request with marks, for a model that takes them."""
    if not takes_marks(model):
        return request
    newest = max((n for n, message in enumerate(request.messages) if begins_turn(message)), default=0)
    messages = [message if n >= newest else _unmarked(message) for n, message in enumerate(request.messages)]
    theirs = list(_marks(request, messages))
    free = MOST - len(theirs)
    if any("ttl" in mark for mark in theirs) or _length(request) < WORTH_CHARS:
        free = 0  # marks of different lives must come in a certain order
    system = request.system
    if free > 0 and system and not any("cache_control" in block for block in as_blocks(system)):
        system, free = _mark_last(system), free - 1
    for index, first in _places(messages, newest):
        if free > 0:
            changed = _mark_summary(messages[index]) if first else _mark_message(messages[index])
            free -= changed is not messages[index]
            messages[index] = changed
    return replace(request, system=system, messages=tuple(messages))


def _places(messages: list[Message], newest: int) -> Iterator[tuple[int, bool]]:
    """Messages to mark, the most useful first, and whether it is the summary in it."""
    if newest < len(messages) - 1:
        yield len(messages) - 1, False
    if newest > 0:
        yield newest - 1, False
    if _is_summary(messages[0]):
        yield 0, True


def _is_summary(message: Message) -> bool:
    blocks = as_blocks(message.content)
    return bool(blocks) and str(blocks[0].get("text") or "").startswith(HEAD)


def _mark_summary(message: Message) -> Message:
    first, *rest = as_blocks(message.content)
    return replace(message, content=[{**first, "cache_control": MARK}, *rest])


def _mark_message(message: Message) -> Message:
    """Marked at its end; as it is where that cannot be marked, or is."""
    last = as_blocks(message.content)[-1]
    empty = last.get("type") == "text" and not str(last.get("text") or "").strip()
    if last.get("type") not in MARKABLE or "cache_control" in last or empty:
        return message
    return replace(message, content=_mark_last(message.content))


def _mark_last(content: str | list[Block]) -> list[Block]:
    *rest, last = as_blocks(content)
    return [*rest, {**last, "cache_control": MARK}]


def _unmarked(message: Message) -> Message:
    content = message.content
    if isinstance(content, str) or not any("cache_control" in block for block in content):
        return message
    bare = [{name: value for name, value in b.items() if name != "cache_control"} for b in content]
    return replace(message, content=bare)


def _marks(request: ModelRequest, messages: list[Message]) -> Iterator[Block]:
    """The caller's own."""
    contents = [as_blocks(request.system or ""), *(as_blocks(message.content) for message in messages)]
    blocks = [tool.extra for tool in request.tools] + [block for content in contents for block in content]
    for block in blocks:
        if mark := block.get("cache_control"):
            yield mark if isinstance(mark, dict) else {}


def _length(request: ModelRequest) -> int:
    """Characters of text in it, roughly: tools count by their descriptions."""
    texts = [request.system or "", *(message.content for message in request.messages)]
    return sum(len(tool.description) for tool in request.tools) + sum(
        len(text) if isinstance(text, str) else sum(len(str(block)) for block in text) for text in texts
    )
