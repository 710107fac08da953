"""Which calls a person has to approve, and what becomes of a decision. Pure."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qlaud_actors.errors import Conflict
from qlaud_actors.tools.model import MANAGE_CONNECTIONS, MULTI_EXECUTE, Tool, ToolCall, Toolset
from qlaud_actors.tools.schema import refusal

Approval: TypeAlias = Literal["never", "writes", "always"]
"""Whom a turn asks before a call: nobody; a person before what changes something, whether or not a repetition
would change it again; a person before every tool."""

APPROVAL_SECONDS = 24 * 3600
MAX_APPROVAL_SECONDS = 7 * 24 * 3600

EXPIRED = "This call was not made: nobody approved it in time."
TURN_ENDED = "This call was not made: the turn ended before anybody had approved it."


@dataclass(frozen=True, slots=True)
class Awaited:
    """A call that waits for a person's word until `expires_at_ms`."""

    turn_id: uuid.UUID
    tool_use_id: str
    name: str
    input: dict[str, Any]
    step: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's word, and with which key it came."""

    approve: bool
    key_id: uuid.UUID
    reason: str | None = None


def calls_to_ask(policy: Approval, calls: Sequence[ToolCall], toolset: Toolset) -> list[ToolCall]:
    """Those of a step's calls that a person has to approve; not those that are refused anyway."""
    if policy == "never":
        return []
    return [call for call in calls if _to_ask(policy, call, toolset)]


def _to_ask(policy: Approval, call: ToolCall, toolset: Toolset) -> bool:
    """Client tools are the caller's own business. The calls of a multi-execute are approved as one."""
    tool = toolset.find(call.name)
    if tool is None or refusal(tool, call.input):
        return False
    if tool.name == MANAGE_CONNECTIONS:
        return bool(call.input["action"] == "disconnect")  # connecting is a person's doing, on a page
    if tool.kind == "meta":
        inner = [toolset.find_reachable(made["tool"]) for made in inner_calls(call.name, call.input)]
        return any(found is not None and _concerns(policy, found) for found in inner)
    return tool.kind != "client" and _concerns(policy, tool)


def _concerns(policy: Approval, tool: Tool) -> bool:
    return policy == "always" or tool.effect != "read"


def inner_calls(name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls that a multi-execute would make, as `{tool, args}`; none for other tools."""
    if name != MULTI_EXECUTE:
        return []
    return [{"tool": call["tool"], "args": call.get("args") or {}} for call in arguments.get("calls", ())]


def must_record(decision: Decision, state: str, approved: bool | None, *, expired: bool) -> bool:
    """Whether a decision is the first one; the same one again changes nothing. Raises Conflict."""
    if approved is not None:
        if approved != decision.approve:
            word = "approved" if approved else "declined"
            raise Conflict(f"This call was {word} already.")
        return False
    if state != "awaiting_approval":
        raise Conflict("The turn has ended: this call is not made any more.")
    if expired and decision.approve:
        raise Conflict("This call counts as declined: nobody approved it in time.")
    return True


def declined(reason: str | None) -> str:
    """What the model is told of a call that a person does not want."""
    said = f" The reason they gave: {reason}" if reason else ""
    return f"The user declined this call, so it was not made.{said}"
