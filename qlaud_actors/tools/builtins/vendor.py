"""A built-in that is an action of a connector: on the account's own credential, or on an end user's.

The first is in the tool's configuration, the second is a connection like any other. What may be repeated
is decided as for all actions of connectors (`connectors/execute.py`).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from qlaud_actors.connectors.answer import shaped
from qlaud_actors.connectors.execute import (
    ATTEMPTS,
    ActionCall,
    Executor,
    Result,
    Verdict,
    broken,
    judge,
)
from qlaud_actors.connectors.request import Access, Request, RequestProblem, build
from qlaud_actors.connectors.sending import Sender, SendFailed
from qlaud_actors.outbound.retry import RetryPolicy, within
from qlaud_actors.settings import Secret
from qlaud_actors.tools.builtins.model import Offer
from qlaud_actors.tools.connector import outcome_of, owner_of
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.schema import problems
from qlaud_actors.tools.webhook import MAY_HAVE_HAPPENED

Sleep = Callable[[float], Awaitable[None]]

REGISTER_AGAIN = "The developer has to register this tool again with a credential that works."


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


@dataclass(frozen=True, slots=True)
class VendorTools:
    """Runs them; one for each process."""

    sender: Sender
    overrides: Mapping[str, str]
    executor: Executor
    sleep: Sleep = asyncio.sleep

    async def run(
        self, offer: Offer, tool: Tool, call: ToolCall, config: Mapping[str, str], context: CallContext
    ) -> ToolOutcome:
        """The outcome of one call; whatever goes wrong is an outcome in words for the model."""
        connector, action = offer.connector, offer.action
        assert connector is not None
        assert action is not None
        arguments = arguments_of(offer, config, call.input)
        if wrong := problems(offer.whole_schema, arguments):
            return _failed("The call was not made, because its input does not fit. " + "; ".join(wrong))
        if tool.auth_mode == "per_user":
            whose, seconds = owner_of(context), tool.timeout_ms / 1000
            asked = ActionCall(call.id, whose, connector.slug, action.name, arguments, seconds)
            return outcome_of(connector.slug, await self.executor.run(asked))
        access, override = access_of(offer, config), self.overrides.get(connector.slug)
        try:
            request = build(connector, action, arguments, access, idempotency_key=call.id, override=override)
        except RequestProblem as problem:
            return _failed(f"The call was not made: {problem}")
        attempt = _Attempt(offer, arguments, access, request, trusted=override is not None)
        result = await self._attempts(attempt, tool.timeout_ms / 1000)
        if result.code == "reconnect":
            result = replace(result, output=f"{result.output} {REGISTER_AGAIN}")
        return outcome_of(connector.slug, result)

    async def _attempts(self, attempt: "_Attempt", seconds: float) -> Result:
        """Try until a verdict stands, attempts are spent, or the time is."""
        deadline, policy, number = time.monotonic() + seconds, RetryPolicy(ATTEMPTS), 1
        while True:
            left = deadline - time.monotonic()
            verdict = await attempt.make(self.sender, max(left, 0.1))
            wait = policy.wait(number, verdict.retry_after, random.random)
            left = deadline - time.monotonic()
            pause = None if wait is None else within(wait, verdict.retry_after or 0.0, left)
            if not verdict.retry or pause is None:
                return verdict.result
            await self.sleep(pause)
            number += 1


@dataclass(frozen=True, slots=True, repr=False)
class _Attempt:
    """What all attempts of a call have in common."""

    offer: Offer
    arguments: Mapping[str, Any]
    access: Access
    request: Request
    trusted: bool

    async def make(self, sender: Sender, seconds: float) -> Verdict:
        connector, action = self.offer.connector, self.offer.action
        assert connector is not None
        assert action is not None
        try:
            received = await sender.send(self.request, trusted=self.trusted, seconds=seconds)
        except SendFailed as failed:
            return broken(connector, action, failed)
        answer = shaped(connector, action, self.arguments, received, self.access.spelled())
        return judge(connector, action, answer, received)


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
