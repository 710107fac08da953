"""Scripts: a test says in the user's message what the model shall do, step by step.

`<<script [{"text": "Hello"}, …] >>` anywhere in the last thing a user said. The first step
answers that message, the second the results of the first step's tool calls, and so on; the last
step stays for all that follow. The scripts live in the conversation, so the server needs no
memory and any number of them can run at once.
"""

import json
import math
import re
from typing import Any

import msgspec

from qlaud_actors.scripted.arguments import arguments
from qlaud_actors.scripted.plan import Block, Counts, Fault, Plan
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.view import View, wire_name

_OPENING = re.compile(r"<<script\s*")
_INPUT_PIECE = 24
"""Characters of a tool's input in one piece."""


class ToolStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call; `name` in our slash form or as the wire has it."""

    name: str
    input: dict[str, Any] = {}


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer. Without text, tools or echo it is a short `OK.`, or JSON of the schema that is wanted."""

    text: str | None = None
    chunks: int | None = None
    """Pieces to cut the text into; by words when absent."""
    repeat: int = 1
    quote: str | None = None
    """A pattern: what it finds in the last results of tools stands for each `{quote}` of the text."""
    echo: bool = False
    """Answer with a JSON account of what the model saw, in place of `text`."""
    thinking: str | None = None
    tools: tuple[ToolStep, ...] = ()
    first_byte_ms: float = 0
    delay_ms: float = 0
    status: int | None = None
    retry_after: float | None = None
    cut_after: int | None = None
    error_after: int | None = None
    times: int | None = None
    """How often this body meets the step's fault (`status`, `cut_after`, `error_after`)."""
    only: str | None = None
    """Which model, or end of an API key, meets it."""
    stop_reason: str | None = None
    usage: Counts = Counts()
    omit_usage: bool = False


def find(text: str) -> tuple[Step, ...] | None:
    """The last script in a message. Raises Refusal (400) for one that cannot be read.

    The last, because messages of turns that came to nothing are joined with the one after them.
    """
    openings = list(_OPENING.finditer(text))
    if not openings:
        return None
    opening = openings[-1]
    try:
        # The standard module, because the JSON ends somewhere inside the message.
        steps, end = json.JSONDecoder().raw_decode(text, opening.end())
        script = msgspec.convert(steps, tuple[Step, ...])
        for step in script:
            re.compile(step.quote or "")
    except (ValueError, re.error) as error:
        raise Refusal(400, f"The script cannot be read: {error}") from None
    if not text[end:].lstrip().startswith(">>"):
        raise Refusal(400, "The script cannot be read: no >> after its JSON")
    return script or None


def play(steps: tuple[Step, ...], view: View) -> Plan:
    """The step that is due, as a plan."""
    step = steps[min(view.steps_taken, len(steps) - 1)]
    return Plan(
        blocks=tuple(_blocks(step, view)),
        stop_reason=step.stop_reason or ("tool_use" if step.tools else "end_turn"),
        first_byte_ms=step.first_byte_ms,
        delay_ms=step.delay_ms,
        counts=step.usage,
        omit_usage=step.omit_usage,
        fault=Fault(step.status, step.retry_after, step.cut_after, step.error_after, step.times, step.only),
    )


def _blocks(step: Step, view: View) -> list[Block]:
    blocks = []
    if step.thinking:
        blocks.append(Block("thinking", by_words(step.thinking)))
    if text := _text(step, view):
        blocks.append(Block("text", in_chunks(text, step.chunks) if step.chunks else by_words(text)))
    blocks.extend(tool_block(view, tool.name, tool.input) for tool in step.tools)
    return blocks


def _text(step: Step, view: View) -> str:
    if step.echo:
        return seen(view)
    text = (_unsaid(step, view) if step.text is None else step.text) * step.repeat
    return text if step.quote is None else text.replace("{quote}", _quoted(step.quote, view))


def _quoted(pattern: str, view: View) -> str:
    """What a pattern finds in the last results of tools; says so when that is nothing."""
    results = view.messages[-1].parts if view.messages else ()
    found = (re.search(pattern, part.text) for part in results if part.kind == "tool_result")
    return next((match[0] for match in found if match), f"(nothing like {pattern})")


def _unsaid(step: Step, view: View) -> str:
    """The text of a step without one: JSON of the wanted schema, if any."""
    if step.tools:
        return ""
    return "OK." if view.schema is None else msgspec.json.encode(arguments(view.schema, "")).decode()


def tool_block(view: View, name: str, values: dict[str, Any]) -> Block:
    """A call of the offered tool that `name` means; a name nobody offered is called all the same."""
    offer = view.offered(name)
    text = msgspec.json.encode(values).decode()
    pieces = tuple(text[n : n + _INPUT_PIECE] for n in range(0, len(text), _INPUT_PIECE))
    return Block("tool_use", pieces, name=offer.name if offer else wire_name(name))


def by_words(text: str) -> tuple[str, ...]:
    """The text cut after each word's space; joined it is the same again."""
    return tuple(re.findall(r"\s*\S+\s?|\s+", text))


def in_chunks(text: str, count: int) -> tuple[str, ...]:
    """The text in `count` pieces of about equal length (fewer when it is shorter)."""
    width = max(1, math.ceil(len(text) / max(1, count)))
    return tuple(text[n : n + width] for n in range(0, len(text), width))


def seen(view: View) -> str:
    """A JSON account of a request as the model saw it."""
    account = {
        "model": view.model,
        "system": view.system,
        "tools": [tool.name for tool in view.tools],
        "max_tokens": view.max_tokens,
        "messages": [
            {"role": message.role, "blocks": [_account(part) for part in message.parts]}
            for message in view.messages
        ],
    }
    return msgspec.json.encode(account).decode()


def _account(part: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"type": part.kind, "text": part.text}
    if part.kind == "tool_use":
        known |= {"name": part.name, "input": part.input}
    if part.kind == "tool_result":
        known["is_error"] = part.is_error
    return known
