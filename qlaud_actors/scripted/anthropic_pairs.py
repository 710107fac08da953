"""Which blocks must stand together on the Anthropic wire: calls with results, thoughts with calls."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from qlaud_actors.scripted.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring messages of one role, which the vendor reads as a single one."""

    index: int
    role: str
    blocks: list[tuple[str, dict[str, Any]]]
    """Each with its path: `messages.0.content.2`."""


def sign(thinking: str) -> str:
    """The signature of a thought, by which the vendor knows its own again."""
    digest = hashlib.sha256(b"scripted thought " + thinking.encode(errors="replace")).digest()
    return "ErUB" + base64.b64encode(digest).decode()


def check_pairs(messages: list[dict[str, Any]]) -> None:
    """Raise Refusal (400) unless every call is answered by the next message, and no other is."""
    asked: list[str] = []
    known: set[str] = set()
    previous = -1
    for run in _runs(messages):
        if run.role == "user":
            _check_results(run, asked, previous)
            asked = []
        else:
            _check_thoughts(run)
            asked = _calls(run, known)
            previous = run.index
    _check_answered(asked, set(), previous)


def _runs(messages: list[dict[str, Any]]) -> list[Run]:
    runs: list[Run] = []
    for n, message in enumerate(messages):
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        placed = [(f"messages.{n}.content.{m}", block) for m, block in enumerate(blocks)]
        role = "assistant" if message["role"] == "assistant" else "user"
        if runs and runs[-1].role == role:
            runs[-1].blocks.extend(placed)
        else:
            runs.append(Run(n, role, placed))
    return runs


def _calls(run: Run, known: set[str]) -> list[str]:
    calls = [block["id"] for _, block in run.blocks if block["type"] == "tool_use"]
    for call in calls:
        if call in known:
            raise Refusal(400, "messages: `tool_use` ids must be unique")
        known.add(call)
    return calls


def _check_results(run: Run, asked: list[str], previous: int) -> None:
    leading: set[str] = set()
    for _, block in run.blocks:
        if block["type"] != "tool_result":
            break
        leading.add(block["tool_use_id"])
    _check_answered(asked, leading, previous)
    seen: set[str] = set()
    for path, block in run.blocks:
        if block["type"] != "tool_result":
            continue
        name = block["tool_use_id"]
        if name not in asked:
            raise Refusal(
                400,
                f"{path}: unexpected `tool_use_id` found in `tool_result` blocks: {name}. Each"
                " `tool_result` block must have a corresponding `tool_use` block in the previous message.",
            )
        if name in seen:
            raise Refusal(
                400,
                f"{path}: each tool_use must have a single result. Found multiple `tool_result` blocks"
                f" with id: {name}",
            )
        seen.add(name)


def _check_answered(asked: list[str], answered: set[str], index: int) -> None:
    if missing := [name for name in asked if name not in answered]:
        raise Refusal(
            400,
            f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after:"
            f" {', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block"
            " in the next message.",
        )


def _check_thoughts(run: Run) -> None:
    for path, block in run.blocks:
        if block["type"] == "thinking" and block["signature"] != sign(block["thinking"]):
            raise Refusal(400, f"{path}: Invalid `signature` in `thinking` block")


def check_leading_thought(messages: list[dict[str, Any]]) -> None:
    """Raise Refusal (400) when the loop in progress has calls without the thought that led to them.

    Holds only while thinking is enabled with a budget.
    """
    if len(messages) < 2 or messages[-2]["role"] != "assistant":
        return
    blocks = messages[-2]["content"]
    if not isinstance(blocks, list) or not any(block["type"] == "tool_use" for block in blocks):
        return
    if (kind := blocks[0]["type"]) not in ("thinking", "redacted_thinking"):
        raise Refusal(
            400,
            f"messages.{len(messages) - 2}.content.0.type: Expected `thinking` or `redacted_thinking`, but"
            f" found `{kind}`. When `thinking` is enabled, a final `assistant` message must start with a"
            " thinking block",
        )
