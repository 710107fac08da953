"""`run_turn`: the main path of the product. One claimed turn, one metered step after another.

Everything it does to the world goes through `Ports`. It keeps no state of its own: `Progress` is the
same whether the turn was just begun or taken over from a worker that died, so carrying on needs no
second path.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import msgspec

from qlaud_actors.billing.model import Attempted
from qlaud_actors.conversation import events
from qlaud_actors.conversation.events import Event
from qlaud_actors.conversation.model import Parked, Progress, Step, Turn, TurnOutcome
from qlaud_actors.errors import LeaseLost
from qlaud_actors.providers.model import Block, ModelEvent, ModelReply, ModelRequest
from qlaud_actors.providers.reply import ReplyBuilder
from qlaud_actors.providers.to_anthropic import stream_events
from qlaud_actors.tools.model import ToolCall, ToolOutcome
from qlaud_actors.usage import Usage

T = TypeVar("T")

PARALLEL_CALLS = 16


class Context(Protocol):
    """What of the thread a model gets to see."""

    async def request(self, progress: Progress) -> ModelRequest:
        """The model request for the next step, within the model's window.

        Raises ContextOverflow, ProviderError; LeaseLost.
        """

    def news(self) -> list[Event]:
        """What happened to the thread since the last time, to be told."""


class StepCall(Protocol):
    """The call of a step: its events, and what is known of it when they break off."""

    @property
    def step(self) -> Step:
        """The step, with the model that answers."""

    @property
    def attempts(self) -> Sequence[Attempted]:
        """Who was asked so far."""

    def events(self) -> AsyncGenerator[ModelEvent, None]:
        """The answer as it comes. Raises ProviderError."""

    def produced_usage(self, output_characters: int) -> Usage | None:
        """What to bill when it broke off after so many characters; None when it never began."""


class Models(Protocol):
    """Calls models."""

    def call(self, step: Step) -> StepCall:
        """Prepare the call of a step; nothing is sent before its events are read."""


class Steps(Protocol):
    """The journal of steps, in which money and messages move together."""

    async def open(self, number: int, request: ModelRequest) -> Step:
        """Hold the worst case. Raises BudgetRefused; LeaseLost."""

    async def settle(self, call: StepCall, reply: ModelReply) -> tuple[ToolCall, ...]:
        """Save the reply, its cost and its intended calls in one transaction. Raises LeaseLost."""

    async def settle_broken(self, call: StepCall, partial: ReplyBuilder) -> None:
        """Bill what a broken call produced, or release its hold when it produced nothing."""

    async def save_results(self, results: list[Block]) -> None:
        """Save the results as the next user message. Raises LeaseLost."""


class Tools(Protocol):
    """Runs tool calls."""

    async def run(self, call: ToolCall) -> ToolOutcome:
        """The outcome; a failing tool is an outcome too. Raises LeaseLost."""


class Approvals(Protocol):
    """Asks people whether calls may be made."""

    async def park(self, progress: Progress) -> bool:
        """Ask where the turn's policy wants it; True when the turn is parked until all are decided.

        Raises LeaseLost; TurnCancelled.
        """


class Events(Protocol):
    """Where a turn's events go."""

    def publish(self, event: Event) -> None:
        """Send an event to whoever follows; never blocks."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the loop needs of the world for one turn."""

    context: Context
    models: Models
    steps: Steps
    approvals: Approvals
    tools: Tools
    events: Events


async def run_turn(turn: Turn, progress: Progress, ports: Ports) -> TurnOutcome | Parked:
    """Carry one claimed turn to its end, or to where a person has to decide.

    Raises QlaudError when it cannot be.
    """
    while not progress.finished:
        if progress.steps >= turn.request.max_iterations:
            return TurnOutcome(hit_max_iterations=True)
        if progress.pending:
            if await ports.approvals.park(progress):
                return Parked()
            progress = await call_tools(progress, ports)
        progress = await take_step(progress, ports)
    return TurnOutcome()


async def take_step(progress: Progress, ports: Ports) -> Progress:
    """One model call: hold, stream, settle."""
    number = progress.steps + 1
    request = await ports.context.request(progress)
    step = await ports.steps.open(number, request)
    for event in ports.context.news():
        ports.events.publish(event)
    if number > 1:
        ports.events.publish(events.iteration_start(number))
    call = ports.models.call(step)
    reply = await stream_reply(call, ports)
    calls = await unbroken(ports.steps.settle(call, reply))
    return progress.replied(reply, calls)


async def stream_reply(call: StepCall, ports: Ports) -> ModelReply:
    """Pass the model's events on and fold them into its reply; a broken call is billed, then raised."""
    reply = ReplyBuilder()
    try:
        async with aclosing(call.events()) as answer:
            async for event in answer:
                reply.add(event)
                for client_event in stream_events(event, call.step.model.slug):
                    ports.events.publish(client_event)
        given = reply.build()
        # Where the provider did not tell its usage, it is estimated: nothing is free.
        return replace(given, usage=call.produced_usage(reply.output_chars) or given.usage)
    except BaseException:
        # Also when the turn is cancelled: the provider has produced, so the step is billed.
        await unbroken(ports.steps.settle_broken(call, reply))
        raise


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Finish what moves money, also when the turn is cancelled meanwhile; then let the cancel through."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def call_tools(progress: Progress, ports: Ports) -> Progress:
    """Run all pending calls in parallel, bounded; their results are the next user message."""
    slots = asyncio.Semaphore(PARALLEL_CALLS)

    async def one(call: ToolCall) -> ToolOutcome:
        async with slots:
            outcome = await ports.tools.run(call)
        ports.events.publish(
            events.tool_dispatch_done(
                call.tool_use_id, call.name, progress.steps, outcome.output, outcome.is_error
            )
        )
        return outcome

    for call in progress.pending:
        ports.events.publish(events.tool_dispatch_start(call.tool_use_id, call.name, progress.steps))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(call)) for call in progress.pending]
    except BaseExceptionGroup as failed:
        raise next((e for e in failed.exceptions if isinstance(e, LeaseLost)), failed.exceptions[0]) from None
    results = [tool_result(call, task.result()) for call, task in zip(progress.pending, tasks, strict=True)]
    await ports.steps.save_results(results)
    return progress.answered(results)


def tool_result(call: ToolCall, outcome: ToolOutcome) -> Block:
    """The block that tells the model what came of its call; other values than text become JSON text."""
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call.tool_use_id}
    text = outcome.output if isinstance(outcome.output, str) else msgspec.json.encode(outcome.output).decode()
    block["content"] = text or "(no output)"
    if outcome.is_error:
        block["is_error"] = True
    return block
