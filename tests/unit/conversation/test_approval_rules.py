"""Which calls a person is asked about, and which word counts."""

import uuid
from typing import Any

import pytest

from qlaud_actors.conversation.approval_rules import Decision, calls_to_ask, declined, must_record
from qlaud_actors.conversation.model import decide_takeover
from qlaud_actors.errors import Conflict
from qlaud_actors.tools.meta import CONNECTIONS, EXECUTE, META_TOOLS, SEARCH
from qlaud_actors.tools.model import Effect, Kind, Tool, ToolCall, Toolset

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def tool(name: str, effect: Effect, kind: Kind = "webhook") -> Tool:
    return Tool(name, name, "d", SCHEMA, kind, effect=effect)


READ, SAME, WRITE = tool("read", "read"), tool("same", "idempotent"), tool("write", "write")
TOOLSET = Toolset((*META_TOOLS, READ, SAME, WRITE, tool("ask", "write", "client")), (READ, SAME, WRITE))


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{name}", f"toolu_{name}", name, arguments)


def run(*names: str) -> ToolCall:
    return call(EXECUTE, calls=[{"tool": name} for name in names])


@pytest.mark.parametrize(
    ("made", "writes", "always"),
    [
        (call("read"), False, True),
        (call("same"), True, True),
        (call("write"), True, True),
        (call("write", n="one"), False, False),
        (call("nothing"), False, False),
        (call("ask"), False, False),
        (call(SEARCH, intent="x"), False, False),
        (call(CONNECTIONS, action="disconnect", tool="qlaud-mcp/linear"), True, True),
        (call(CONNECTIONS, action="connect", tool="qlaud-mcp/linear"), False, False),
        (call(CONNECTIONS, action="list"), False, False),
        (call(CONNECTIONS), False, False),
        (run("read", "same"), True, True),
        (run("read", "read"), False, True),
        (run("read", "write"), True, True),
        (run("nothing"), False, False),
        (call(EXECUTE, calls=[]), False, False),
        (call(EXECUTE, calls="x"), False, False),
    ],
)
def test_a_policy_asks_about_the_calls_it_names(made: ToolCall, writes: bool, always: bool) -> None:
    """Writes or every tool, also inside a multi-execute; never what is refused, or the caller's own."""
    assert calls_to_ask("never", [made], TOOLSET) == []
    assert calls_to_ask("writes", [made], TOOLSET) == ([made] if writes else [])
    assert calls_to_ask("always", [made], TOOLSET) == ([made] if always else [])


@pytest.mark.parametrize(
    ("approve", "state", "approved", "expired", "recorded"),
    [
        (True, "awaiting_approval", None, False, True),
        (False, "awaiting_approval", None, False, True),
        (False, "awaiting_approval", None, True, True),
        (True, "awaiting_approval", None, True, None),
        (True, "done", True, True, False),
        (False, "failed", False, True, False),
        (False, "started", True, False, None),
        (True, "failed", False, False, None),
        (True, "failed", None, False, None),
        (False, "failed", None, False, None),
    ],
)
def test_the_first_word_counts(
    approve: bool, state: str, approved: bool | None, expired: bool, recorded: bool | None
) -> None:
    """A decision is recorded once; again it changes nothing, otherwise or too late it is a conflict."""
    decision = Decision(approve, uuid.UUID(int=1))
    if recorded is None:
        with pytest.raises(Conflict):
            must_record(decision, state, approved, expired=expired)
    else:
        assert must_record(decision, state, approved, expired=expired) is recorded


def test_the_model_is_told_why() -> None:
    """A reason is passed on in the words of whoever declined."""
    assert declined("too expensive").endswith("too expensive")
    assert declined(None).endswith("it was not made.")


def test_a_call_that_waits_is_never_run() -> None:
    """Whoever finds an undecided call in the journal does not make it."""
    outcome = decide_takeover("awaiting_approval", "read", None)
    assert outcome is not None
    assert outcome.is_error
