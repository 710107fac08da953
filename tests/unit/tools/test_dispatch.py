"""Running calls: what is refused, journaled, run in parallel, and told to the model."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from fakes.kept_memory import KeptInMemory

from qlaud_actors.errors import LeaseLost
from qlaud_actors.providers.reply import INVALID_JSON
from qlaud_actors.tools.dispatch import (
    MAX_OUTPUT_BYTES,
    PARALLEL_CALLS_OF_TARGET,
    PARALLEL_INNER_CALLS,
    Dispatcher,
    NoJournal,
)
from qlaud_actors.tools.meta import EXECUTE, META_TOOLS
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome, Toolset

CONTEXT = CallContext(uuid.UUID(int=1), "req_1")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def webhook_tool(name: str) -> Tool:
    """A registered tool."""
    return Tool(f"tool_{name}", name, "Does it.", SCHEMA, "webhook")


ASK = Tool("ask", "ask", "Asks the user.", SCHEMA, "client")
ECHO, FAIL = webhook_tool("echo"), webhook_tool("fail")
DIRECT = Toolset((ECHO, FAIL, ASK))
DYNAMIC = Toolset(META_TOOLS, (ECHO, FAIL))


class Journal:
    """Remembers in a list what it is told, and knows prior outcomes."""

    def __init__(self, prior: dict[str, ToolOutcome] | None = None, lost: str = "") -> None:
        self.prior = prior or {}
        self.lost = lost
        self.begun: list[str] = []
        self.finished: dict[str, ToolOutcome] = {}

    async def begin(self, call: ToolCall, tool: Tool) -> ToolOutcome | None:
        """Note it."""
        if call.id == self.lost:
            raise LeaseLost
        self.begun.append(call.id)
        return self.prior.get(call.id)

    async def finish(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Note it."""
        self.finished[call.id] = outcome

    async def client_result(self, call: ToolCall, tool: Tool) -> ToolOutcome:
        """The user has answered."""
        return ToolOutcome("the user says yes")


class Webhooks:
    """Answers calls, notes them, and how many ran at once."""

    def __init__(self, seconds: Callable[[int], float] = lambda _: 0.0) -> None:
        self.calls: list[ToolCall] = []
        self.order: list[int] = []
        self.running = self.most = 0
        self.both = asyncio.Event()
        self._seconds = seconds

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """Wait, then answer with the number."""
        n = call.input.get("n", 0)
        self.calls.append(call)
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 2:
            self.both.set()
        await asyncio.sleep(self._seconds(n))
        self.running -= 1
        self.order.append(n)
        if n == 666:
            raise RuntimeError("a bug that names wsk_secret")
        return ToolOutcome({"n": n}, is_error=tool.name == "fail")


def dispatcher(webhooks: Webhooks, kept: KeptInMemory | None = None) -> Dispatcher:
    """A dispatcher that calls nobody."""
    return Dispatcher({"webhook": webhooks, "mcp": webhooks}, kept or KeptInMemory())


async def run(call: ToolCall, toolset: Toolset, journal: Journal, webhooks: Webhooks) -> ToolOutcome:
    """One call."""
    return await dispatcher(webhooks).run(call, toolset, CONTEXT, journal)


def call(name: str, **arguments: Any) -> ToolCall:
    """A call with the id `call_1`."""
    return ToolCall("call_1", "toolu_1", name, arguments)


def execute(*names: str, **more: Any) -> ToolCall:
    """A multi_execute whose inner calls are numbered."""
    return call(EXECUTE, calls=[{"tool": name, "args": {"n": n}} for n, name in enumerate(names)], **more)


async def test_a_call_is_journaled_before_and_after() -> None:
    """A call begins in the journal, runs once, and ends there with its outcome."""
    journal, webhooks = Journal(), Webhooks()
    outcome = await run(call("echo", n=1), DIRECT, journal, webhooks)
    assert outcome == ToolOutcome({"n": 1})
    assert journal.begun == ["call_1"]
    assert journal.finished == {"call_1": outcome}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (call("ecko"), "Did you mean echo"),
        (call("zzzzzz"), "There is no tool named"),
        (call("echo", n="one"), "does not fit"),
        (call("echo", **{INVALID_JSON: '{"n": '}), "not a JSON object"),
    ],
)
async def test_a_call_that_cannot_run_is_refused_and_never_begun(made: ToolCall, words: str) -> None:
    """Unknown tools and inputs that do not fit are told to the model: not run, and noted as failed."""
    journal, webhooks = Journal(), Webhooks()
    outcome = await run(made, DIRECT, journal, webhooks)
    assert outcome.is_error
    assert words in outcome.output
    assert (journal.begun, journal.finished, webhooks.calls) == ([], {made.id: outcome}, [])


async def test_a_tool_that_was_not_offered_does_not_run() -> None:
    """In dynamic mode a registered tool runs through multi_execute only."""
    webhooks = Webhooks()
    assert (await run(call("echo"), DYNAMIC, Journal(), webhooks)).is_error
    assert webhooks.calls == []


async def test_a_prior_outcome_is_given_again() -> None:
    """A call that the journal knows the end of is not run a second time."""
    prior = ToolOutcome("already done")
    journal, webhooks = Journal({"call_1": prior}), Webhooks()
    assert await run(call("echo"), DIRECT, journal, webhooks) is prior
    assert webhooks.calls == []
    assert journal.finished == {}


async def test_a_client_tool_waits_for_the_journal() -> None:
    """A client tool's result is what the caller posts; over REST nobody could."""
    assert (await run(call("ask"), DIRECT, Journal(), Webhooks())).output == "the user says yes"
    outcome = await dispatcher(Webhooks()).run(call("ask"), DIRECT, CONTEXT, NoJournal())
    assert outcome.is_error


async def test_a_crash_is_an_outcome() -> None:
    """A bug in a tool's kind becomes an error for the model, without its message, and is journaled."""
    journal = Journal()
    outcome = await run(call("echo", n=666), DIRECT, journal, Webhooks())
    assert outcome.is_error
    assert "wsk_secret" not in outcome.output
    assert journal.finished == {"call_1": outcome}


async def test_inner_calls_run_in_parallel_and_answer_in_order() -> None:
    """Results stand in the order of the calls though later ones end first; at most eight run at once."""
    count = PARALLEL_INNER_CALLS + 4
    webhooks = Webhooks(lambda n: 0.001 * (count - n))
    journal = Journal()
    outcome = await run(execute(*["echo"] * count), DYNAMIC, journal, webhooks)
    assert [result["output"]["n"] for result in outcome.output["results"]] == list(range(count))
    assert webhooks.order != list(range(count))
    assert webhooks.most == PARALLEL_INNER_CALLS
    assert journal.begun[0] == "call_1"
    assert set(journal.begun) == {"call_1", *(f"call_1.{n}" for n in range(count))}
    assert {made.tool_use_id for made in webhooks.calls} == {f"toolu_1.{n}" for n in range(count)}


async def test_ordered_inner_calls_wait_for_each_other() -> None:
    """With `ordered` one call runs at a time, in the order given."""
    webhooks = Webhooks(lambda n: 0.001 * (4 - n))
    await run(execute(*["echo"] * 4, ordered=True), DYNAMIC, Journal(), webhooks)
    assert webhooks.order == [0, 1, 2, 3]
    assert webhooks.most == 1


async def test_what_follows_a_failure_in_order_is_not_run() -> None:
    """With `ordered` later calls may build on earlier ones, so the first failure ends the run."""
    webhooks = Webhooks()
    outcome = await run(execute("echo", "fail", "echo", ordered=True), DYNAMIC, Journal(), webhooks)
    results = outcome.output["results"]
    assert [result.get("is_error", False) for result in results] == [False, True, True]
    assert [result["status"] for result in results] == ["ok", "error", "not_run"]
    assert "Not run" in results[2]["output"]
    assert webhooks.order == [0, 1]


async def test_large_inner_outputs_share_the_limit_and_stay_json() -> None:
    """Each inner result is cut to its share, so that the whole remains readable JSON."""

    class Talkative(Webhooks):
        async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
            return ToolOutcome("x" * MAX_OUTPUT_BYTES)

    outcome = await run(execute(*["echo"] * 4), DYNAMIC, Journal(), Talkative())
    assert len(outcome.output["results"]) == 4
    assert len(msgspec.json.encode(outcome.output)) < MAX_OUTPUT_BYTES * 1.1


async def test_one_inner_failure_leaves_the_others_alone() -> None:
    """A failing, an unknown and a crashing inner call fail alone; the whole is no error."""
    made = execute("echo", "fail", "nothing")
    made.input["calls"].append({"tool": "tool_echo", "args": {"n": 666}})
    made.input["calls"].append({"tool": EXECUTE, "args": {"calls": []}})
    made.input["calls"].append({"tool": "echo"})
    outcome = await run(made, DYNAMIC, Journal(), Webhooks())
    results = outcome.output["results"]
    assert not outcome.is_error
    assert [result.get("is_error", False) for result in results] == [False, True, True, True, True, False]
    assert results[0] == {"tool": "echo", "status": "ok", "output": {"n": 0}}
    statuses = [result["status"] for result in results]
    assert statuses == ["ok", "error", "refused", "unknown", "refused", "ok"]


async def test_finished_inner_calls_are_not_repeated() -> None:
    """After a takeover multi_execute runs again, its finished inner calls do not."""
    webhooks = Webhooks()
    journal = Journal({"call_1.0": ToolOutcome("from before")})
    outcome = await run(execute("echo", "echo"), DYNAMIC, journal, webhooks)
    assert outcome.output["results"][0]["output"] == "from before"
    assert [made.id for made in webhooks.calls] == ["call_1.1"]


@pytest.mark.parametrize("lost", ["call_1", "call_1.1"])
async def test_a_lost_lease_ends_everything(lost: str) -> None:
    """LeaseLost passes through as itself, from a call or an inner one, and nothing more is noted."""
    journal = Journal(lost=lost)
    with pytest.raises(LeaseLost):
        await run(execute("echo", "echo"), DYNAMIC, journal, Webhooks(lambda _: 0.01))
    assert "call_1" not in journal.finished


async def test_a_cancelled_call_cancels_its_inner_calls() -> None:
    """When a turn stops, the inner calls of multi_execute stop with it and are not noted as done."""
    journal, webhooks = Journal(), Webhooks(lambda _: 60.0)
    task = asyncio.create_task(run(execute("echo", "echo"), DYNAMIC, journal, webhooks))
    await webhooks.both.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.finished == {}


async def test_one_mcp_server_is_not_asked_everything_at_once() -> None:
    """Of the calls to one MCP server or connector a few run at a time, beside those to others."""
    tools = tuple(Tool(f"tool_{n}", f"crm/t{n}", "d", SCHEMA, "mcp") for n in range(8))
    webhooks = Webhooks(lambda _: 0.001)
    made = execute(*(tool.name for tool in tools))
    await run(made, Toolset(META_TOOLS, tools), Journal(), webhooks)
    assert webhooks.most == PARALLEL_CALLS_OF_TARGET
    assert len(webhooks.calls) == 8


async def test_a_call_may_be_given_less_time_than_its_tool_has() -> None:
    """`timeout_ms` of a call shortens the tool's, and never lengthens it."""
    seen: list[int] = []

    class Watching(Webhooks):
        async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
            seen.append(tool.timeout_ms)
            return ToolOutcome("ok")

    made = call(EXECUTE, calls=[{"tool": "echo", "timeout_ms": ms} for ms in (500, 100_000)], ordered=True)
    await run(made, DYNAMIC, Journal(), Watching())
    assert seen == [500, ECHO.timeout_ms]


async def test_a_call_under_a_key_of_the_callers_is_made_once() -> None:
    """The second call with an `idempotency_key` is answered as the first."""
    webhooks, kept = Webhooks(), KeptInMemory()
    made = call(EXECUTE, calls=[{"tool": "echo", "args": {"n": 5}, "idempotency_key": "k"}])
    for _ in range(2):
        outcome = await dispatcher(webhooks, kept).run(made, DYNAMIC, CONTEXT, Journal())
        assert outcome.output["results"][0]["output"] == {"n": 5}
    assert len(webhooks.calls) == 1


async def test_a_large_result_is_read_on_to_its_end() -> None:
    """What is cut names its result; page after page of the reserved tool gives all of it."""

    class Talkative(Webhooks):
        async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
            return ToolOutcome([{"name": f"customer {n}"} for n in range(20_000)])

    kept = KeptInMemory()
    context = CallContext(uuid.UUID(int=1), "req_1", key_id=uuid.UUID(int=2))
    runs = dispatcher(Talkative(), kept)
    outcome = await runs.run(execute("echo"), DYNAMIC, context, Journal())
    (result,) = outcome.output["results"]
    shown, _, note = result["output"].partition("\n… cut here: ")
    assert shown.endswith("},")
    assert f'"result_id":"{result["result_id"]}","offset":{result["next_offset"]}' in note
    offset = result["next_offset"]
    while offset is not None:
        args = {"result_id": result["result_id"], "offset": offset}
        made = call(EXECUTE, calls=[{"tool": "qlaud/read_result", "args": args}])
        page = (await runs.run(made, DYNAMIC, context, Journal())).output["results"][0]["output"]
        assert len(msgspec.json.encode(page)) < MAX_OUTPUT_BYTES * 1.1
        shown, offset = shown + page["text"], page["next_offset"]
    assert shown == kept.results[result["result_id"]]
    assert len(msgspec.json.decode(shown)) == 20_000
