"""A built-in that is an action of a connector, on the account's own credential.

A vendor that says "too much at once" has done nothing, so it is asked again; one that is in trouble, or
did not answer, is asked again only when the action may be repeated.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from qlaud_actors.connectors.answer import Answer, shaped
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.request import Access, RequestProblem, build
from qlaud_actors.connectors.sending import Sender, SendFailed
from qlaud_actors.outbound.retry import RetryPolicy, within
from qlaud_actors.settings import Secret
from qlaud_actors.tools.builtins.model import Offer
from qlaud_actors.tools.model import Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.schema import problems
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED

ATTEMPTS = 3
"""For one call in all."""

Sleep = Callable[[float], Awaitable[None]]


def access_of(offer: Offer, config: Mapping[str, str]) -> Access:
    """The credential that a configuration holds, as a request needs it."""
    assert offer.auth is not None
    given = [field for field in offer.credential if field.name in config]
    settings = {field.name: config[field.name] for field in given if not field.secret}
    secrets = {field.name: Secret(config[field.name]) for field in given if field.secret}
    return Access(offer.auth, settings, secrets)


def arguments_of(offer: Offer, config: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the model gave, and in its place what the configuration decides."""
    properties = offer.whole_schema["properties"]
    decided = {f.sets: config[f.name] for f in offer.builtin.config if f.sets and f.name in config}
    return {**given, **{name: _typed(properties[name], value) for name, value in decided.items()}}


async def run_action(
    offer: Offer,
    tool: Tool,
    call: ToolCall,
    config: Mapping[str, str],
    sender: Sender,
    connectors: ConnectorCatalog,
    sleep: Sleep = asyncio.sleep,
) -> ToolOutcome:
    """The outcome of one call; whatever goes wrong is an outcome in words for the model."""
    connector, action = offer.connector, offer.action
    assert connector is not None
    assert action is not None
    arguments, access = arguments_of(offer, config, call.input), access_of(offer, config)
    if wrong := problems(offer.whole_schema, arguments):
        return _failed("The call was not made, because its input does not fit. " + "; ".join(wrong))
    override = connectors.overrides.get(connector.slug)
    try:
        request = build(connector, action, arguments, access, idempotency_key=call.id, override=override)
    except RequestProblem as problem:
        return _failed(f"The call was not made: {problem}")

    async def once() -> Answer:
        received = await sender.send(request, trusted=override is not None, seconds=tool.timeout_ms / 1000)
        return shaped(connector, action, arguments, received, access.spelled())

    return await _attempts(once, tool, connector.name, sleep)


async def _attempts(
    once: Callable[[], Awaitable[Answer]], tool: Tool, name: str, sleep: Sleep
) -> ToolOutcome:
    seconds = tool.timeout_ms / 1000
    deadline, policy = time.monotonic() + seconds, RetryPolicy(ATTEMPTS)
    outcome: ToolOutcome | None = None
    try:
        async with asyncio.timeout(seconds):
            for number in range(1, ATTEMPTS + 1):
                outcome = None
                outcome, again, asked = await _attempt(once, tool, name)
                wait = policy.wait(number, asked, random.random) if again else None
                pause = None if wait is None else within(wait, asked or 0.0, deadline - time.monotonic())
                if pause is None:
                    break
                await sleep(pause)
    except TimeoutError:
        return outcome or no_answer(name, SendFailed(f"none within {seconds:g} s", sent=True), tool)
    assert outcome is not None
    return outcome


async def _attempt(
    once: Callable[[], Awaitable[Answer]], tool: Tool, name: str
) -> tuple[ToolOutcome, bool, float | None]:
    """What came of it, whether another attempt is safe and may help, and how long the vendor asks to wait."""
    harmless = tool.effect != "write"
    try:
        answer = await once()
    except SendFailed as failed:
        again = not failed.permanent and (harmless or not failed.sent)
        return no_answer(name, failed, tool), again, None
    failure = answer.failure
    if failure is None:
        return ToolOutcome(answer.output), False, None
    again = failure.kind == "rate_limited" or (failure.kind == "unavailable" and harmless)
    return _failed(failure.message), again, failure.retry_after_s


def _typed(definition: Mapping[str, Any], value: str) -> Any:
    """A value of the configuration, which is text, as its input wants it."""
    match definition.get("type"):
        case "integer":
            return int(value)
        case "array":
            return [part.strip() for part in value.split(",") if part.strip()]
    return value


def no_answer(who: str, failed: SendFailed, tool: Tool) -> ToolOutcome:
    """That there is none, and whether the call may have been carried out."""
    if not failed.sent:
        return _failed(f"{who} could not be reached, so the call was not made: {failed}.")
    doubt = "" if tool.effect == "read" else f" {MAY_HAVE_HAPPENED}"
    return _failed(f"{who} gave no usable answer: {failed}.{doubt}")


def _failed(words: str) -> ToolOutcome:
    return ToolOutcome(words, is_error=True)
