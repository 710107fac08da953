"""Tool names reach providers in a form that they accept, and come back as they were."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from qlaud_actors.providers.model import Message, ModelRequest, ToolSpec
from qlaud_actors.providers.names import ToolNames, legal

LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@given(st.lists(st.text(max_size=90) | st.from_regex(r"[a-z]{1,8}/[a-z_]{1,80}", fullmatch=True)))
@settings(deadline=None)
def test_round_trip(names: list[str]) -> None:
    """Any set of names maps to legal, distinct names, and each of them maps back."""
    mapped = ToolNames.of(names)
    wire = {name: mapped.to_wire(name) for name in names}
    assert all(LEGAL.fullmatch(name) for name in wire.values())
    assert len(set(wire.values())) == len(set(names))
    assert all(mapped.from_wire(wire[name]) == name for name in names)


def test_legal_names_pass() -> None:
    """A name that providers accept is not touched."""
    assert ToolNames.of(["get-time_2"]).to_wire("get-time_2") == "get-time_2"


def test_readable_and_stable() -> None:
    """The mapped form is readable and depends on the name alone, so that prompts stay cacheable."""
    alone = ToolNames.of(["linear/search"]).to_wire("linear/search")
    among = ToolNames.of(["a", "b/c", "linear/search"]).to_wire("linear/search")
    assert alone == among == "linear_search_ea4b5968f4"
    assert ToolNames.of([]).to_wire("linear/search") == alone


def test_collision() -> None:
    """A legal name that looks like another one's mapped form keeps its spelling; the other one yields."""
    taken = legal("linear/search")
    names = ToolNames.of(["linear/search", taken])
    assert names.to_wire(taken) == taken
    assert names.to_wire("linear/search") != taken
    assert names.from_wire(names.to_wire("linear/search")) == "linear/search"


def test_invented_name() -> None:
    """A name that the model made up comes back as it is."""
    assert ToolNames.of(["linear/search"]).from_wire("linear_serach") == "linear_serach"


def test_names_of_history() -> None:
    """Calls of tools that are no longer offered are mapped and come back, too."""
    past = Message("assistant", [{"type": "tool_use", "id": "toolu_1", "name": "old/tool", "input": {}}])
    request = ModelRequest("m", (Message("user", "x"), past), 10, tools=(ToolSpec("new/tool", "", {}),))
    names = ToolNames.for_request(request)
    assert names.from_wire(names.to_wire("old/tool")) == "old/tool"
    assert names.from_wire(names.to_wire("new/tool")) == "new/tool"
