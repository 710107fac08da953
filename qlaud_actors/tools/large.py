"""Results that are larger than what a model gets to read at once: cut, kept whole, read on. Pure."""

from dataclasses import replace
from typing import Any

import msgspec

from qlaud_actors.tools.model import MULTI_EXECUTE, Cut, Tool, ToolOutcome

MAX_KEPT_BYTES = 2 * 1024 * 1024
CONTEXT_CHARACTERS = 200
"""What is shown before the place that `find` found."""

# Where a text may be cut without hurting it, best first: between items, lines, words.
PLACES = ("},{", "\n", ", ", " ")

READ_RESULT = Tool(
    "qlaud/read_result",
    "qlaud/read_result",
    f"Read on in a result that was cut. A reserved name: run it with {MULTI_EXECUTE} like any tool.",
    {
        "type": "object",
        "properties": {
            "result_id": {"type": "string", "maxLength": 128, "description": "As the cut result says it."},
            "offset": {
                "type": "integer",
                "minimum": 0,
                "maximum": MAX_KEPT_BYTES,
                "description": "The character to begin at, 0 if absent.",
            },
            "find": {
                "type": "string",
                "minLength": 1,
                "maxLength": 200,
                "description": "Begin where this text comes next, behind `offset`.",
            },
        },
        "required": ["result_id"],
    },
    "meta",
    effect="read",
)


def as_text(output: Any) -> str:
    """An output as a model reads it: text as it is, everything else as JSON."""
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def trimmed(outcome: ToolOutcome, limit: int) -> ToolOutcome:
    """An outcome of at most `limit` bytes and a note; a larger one becomes the beginning of its text."""
    text = as_text(outcome.output)
    size = len(text.encode())
    if size <= limit:
        return outcome
    return replace(outcome, output=_noted(_beginning(text, limit), size, "Ask for less, or for the rest."))


def cut(outcome: ToolOutcome, limit: int, result_id: str) -> ToolOutcome:
    """The beginning of an outcome that is kept under `result_id`, and how to read on."""
    text = as_text(outcome.output)
    kept = _beginning(text, limit)
    call = {"tool": READ_RESULT.name, "args": {"result_id": result_id, "offset": len(kept)}}
    advice = f"Read on with {MULTI_EXECUTE}: {msgspec.json.encode(call).decode()}"
    output = _noted(kept, len(text.encode()), advice)
    return replace(outcome, output=output, cut=Cut(result_id, len(kept), len(text)))


def page(result_id: str, text: str, arguments: dict[str, Any], limit: int) -> dict[str, Any]:
    """A part of a kept result; its JSON has about `limit` bytes at most."""
    start, wanted = arguments.get("offset") or 0, arguments.get("find")
    told: dict[str, Any] = {"result_id": result_id}
    if wanted is not None:
        found = text.find(wanted, start)
        told["found_at"] = found if found >= 0 else None
        start = max(start, found - CONTEXT_CHARACTERS) if found >= 0 else len(text)
    size = limit
    while len(msgspec.json.encode(part := text[start : start + size])) > limit:
        size //= 2
    end = start + len(part)
    following = end if end < len(text) else None
    return {**told, "offset": start, "text": part, "next_offset": following, "total_characters": len(text)}


def _beginning(text: str, limit: int) -> str:
    """At most `limit` bytes, up to a sensible place in their last quarter."""
    kept = text.encode()[:limit].decode(errors="ignore")
    for place in PLACES:
        at = kept.rfind(place, len(kept) * 3 // 4)
        if at >= 0:
            return kept[: at + max(len(place) - 1, 1)]
    return kept


def _noted(kept: str, size: int, advice: str) -> str:
    return f"{kept}\n… cut here: {len(kept.encode())} of {size} bytes are shown. {advice}"
