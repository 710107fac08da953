"""What the meta-tools answer, and how `qlaud_multi_execute` shares out order and room."""

import uuid
from typing import Any

import pytest
from fakes.kept_memory import KeptInMemory

from qlaud_actors.tools.dispatch import MAX_OUTPUT_BYTES, Dispatcher, NoJournal, unknown_tool
from qlaud_actors.tools.meta import EXECUTE, META_TOOLS, SCHEMAS, SEARCH, answer
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome, Toolset

SCHEMA = {"type": "object", "properties": {"size": {"type": "integer"}}}
FIND = Tool("tool_1", "crm/find_customer", "Find a customer.", SCHEMA, "webhook")
MAIL = Tool("tool_2", "send_mail", "Send an email.", SCHEMA, "webhook")
TOOLSET = Toolset(META_TOOLS, (FIND, MAIL))


class Webhooks:
    """Answers with as many characters as asked; a negative size fails."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """As `WebhookCaller.call`."""
        self.names.append(tool.name)
        size = call.input.get("size", 1)
        return ToolOutcome("x" * size, is_error=size < 0)


async def execute(webhooks: Webhooks, *calls: tuple[str, int], **more: Any) -> list[dict[str, Any]]:
    """The results of a multi_execute."""
    arguments = {"calls": [{"tool": name, "args": {"size": size}} for name, size in calls], **more}
    dispatcher = Dispatcher({"webhook": webhooks, "mcp": webhooks}, KeptInMemory())
    context = CallContext(uuid.UUID(int=1), "req_1")
    outcome = await dispatcher.run(ToolCall("c", "t", EXECUTE, arguments), TOOLSET, context, NoJournal())
    results: list[dict[str, Any]] = outcome.output["results"]
    return results


def test_a_search_tells_names_and_no_schemas() -> None:
    """Results hold name, kind, description and score, best first."""
    (best, *_) = answer(SEARCH, TOOLSET, {"intent": "find a customer"}).output["results"]
    assert {"name", "kind", "description", "score", "connector", "status"} <= set(best)
    assert (best["name"], best["kind"]) == ("crm/find_customer", "webhook")
    assert len(answer(SEARCH, TOOLSET, {"intent": "mail a customer", "limit": 1}).output["results"]) == 1


@pytest.mark.parametrize("argument", ["tools", "names"])
def test_schemas_are_asked_for_under_either_name(argument: str) -> None:
    """`tools` and `names` mean the same; each tool comes once, unknown ones are told apart."""
    told = answer(SCHEMAS, TOOLSET, {argument: ["send_mail", "nothing", "send_mail"]}).output
    assert told["schemas"] == [{"name": "send_mail", "description": "Send an email.", "input_schema": SCHEMA}]
    assert told["unknown"] == ["nothing"]
    assert "unknown" not in answer(SCHEMAS, TOOLSET, {argument: ["send_mail"]}).output


@pytest.mark.parametrize("arguments", [{}, {"tools": []}, {"names": "send_mail"}, {"names": ["x"] * 26}])
def test_schemas_need_a_list_of_names(arguments: dict[str, Any]) -> None:
    """Without a usable list the model is told what is missing."""
    assert answer(SCHEMAS, TOOLSET, arguments).is_error


async def test_nothing_is_run_after_a_failure_when_ordered() -> None:
    """With `ordered` the calls after a failed one are told as not run, also after an unknown tool."""
    webhooks = Webhooks()
    results = await execute(webhooks, ("send_mail", 1), ("nope", 1), ("send_mail", 1), ordered=True)
    assert [result.get("is_error", False) for result in results] == [False, True, True]
    assert "Not run" in results[2]["output"]
    assert webhooks.names == ["send_mail"]


async def test_the_calls_share_the_room_of_one_output() -> None:
    """Large outputs are cut one by one, so that the whole stays JSON with every result in it."""
    results = await execute(Webhooks(), *[("send_mail", MAX_OUTPUT_BYTES)] * 10)
    assert len(results) == 10
    for result in results:
        assert "cut here" in result["output"]
        assert MAX_OUTPUT_BYTES // 10 < len(result["output"]) < MAX_OUTPUT_BYTES // 10 + 200


def test_a_reachable_tool_is_pointed_to_its_way() -> None:
    """A model that calls a found tool by its name learns how to run it."""
    assert EXECUTE in unknown_tool("send_mail", TOOLSET)
    assert "send_mail" in unknown_tool("send_mial", TOOLSET)
