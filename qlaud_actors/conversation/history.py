"""Stored rows → the messages of a model request. Pure.

A provider refuses a history in which a tool call has no result, a result has no call, two calls have one
id, or a message is empty. Turns that failed, were cancelled or ran into their limit leave such histories;
`heal` makes any of them acceptable, so that no thread is ever stuck.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import TypeAlias

from qlaud_actors.conversation.model import StoredMessage, TurnRequest
from qlaud_actors.providers.model import Block, Message, ModelRequest, ToolSpec
from qlaud_actors.tools.model import Toolset

Call: TypeAlias = tuple[str, str]
"""The id under which a call is shown, and its own."""

NOT_RUN = "This call was not run."


def build_request(
    turn: TurnRequest, messages: Iterable[Message], tools: Toolset, *, first: bool
) -> ModelRequest:
    """The model request for the next step. A forced tool is forced in the first step only."""
    params = turn.params if first else {k: v for k, v in turn.params.items() if k != "tool_choice"}
    return ModelRequest(
        model=turn.model,
        messages=heal(messages),
        max_tokens=turn.max_tokens,
        system=turn.system,
        tools=tuple(ToolSpec(t.name, t.description, t.input_schema) for t in tools.offered),
        params=params,
    )


def messages_from(rows: Iterable[StoredMessage]) -> tuple[Message, ...]:
    """Rows as messages, untouched."""
    return tuple(Message(row.role, row.content) for row in rows)


def heal(messages: Iterable[Message]) -> tuple[Message, ...]:
    """A history that every provider accepts, beginning with the user."""
    healed: list[Message] = []
    known: set[str] = set()
    open_calls: list[Call] = []
    for message in messages:
        if message.role == "assistant":
            blocks = as_blocks(message.content)
            if not blocks or not healed:
                continue
            _close_calls(healed, open_calls)
            content, open_calls = _own_calls(message.content, known)
            _append(healed, Message("assistant", content))
        else:
            content = _user_content(message.content, open_calls)
            open_calls = []
            if content:
                _append(healed, Message("user", content))
    _close_calls(healed, open_calls)
    return tuple(healed)


def _own_calls(content: str | list[Block], known: set[str]) -> tuple[str | list[Block], list[Call]]:
    """An answer with its calls, each under an id of its own: some models count theirs anew in each turn."""
    calls: list[Call] = []
    shown: list[Block] = []
    for block in as_blocks(content):
        if block.get("type") == "tool_use":
            own = next(name for name in _names(block["id"]) if name not in known)
            known.add(own)
            calls.append((own, block["id"]))
            shown.append({**block, "id": own})
        else:
            shown.append(block)
    return (shown if calls else content), calls


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{n}" for n in count(2))


def as_blocks(content: str | list[Block]) -> list[Block]:
    """Content in its block form; no block for an empty string."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def _user_content(content: str | list[Block], open_calls: list[Call]) -> str | list[Block]:
    """A user message with exactly one result per open call, results first."""
    if isinstance(content, str) and not open_calls:
        return content
    blocks = as_blocks(content)
    results = {b["tool_use_id"]: b for b in blocks if b.get("type") == "tool_result"}
    answered = [{**results.get(call, _not_run(call)), "tool_use_id": own} for own, call in open_calls]
    return [*answered, *(b for b in blocks if b.get("type") != "tool_result")]


def _close_calls(healed: list[Message], open_calls: list[Call]) -> None:
    if open_calls:
        _append(healed, Message("user", [_not_run(own) for own, _ in open_calls]))
        open_calls.clear()


def _append(healed: list[Message], message: Message) -> None:
    """Add a message; two in a row of one role become one."""
    if healed and healed[-1].role == message.role:
        joined = [*as_blocks(healed[-1].content), *as_blocks(message.content)]
        healed[-1] = Message(message.role, joined)
    else:
        healed.append(message)


def _not_run(tool_use_id: str) -> Block:
    return {"type": "tool_result", "tool_use_id": tool_use_id, "is_error": True, "content": NOT_RUN}
