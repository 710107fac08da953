"""Failing over from host to host, told by calls that are written down here."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from qlaud_actors.errors import (
    InvalidRequest,
    LeaseLost,
    ProviderError,
    ProviderOverloaded,
    ProviderRejected,
    ProviderUnavailable,
    SpendCapReached,
)
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.providers.fallback import Fallback, FallbackCall
from qlaud_actors.providers.model import Model

OVERLOADED = ProviderOverloaded("Busy.")
UNPAID = ProviderUnavailable("Pay.", billing=True)
REFUSED = ProviderRejected("Wrong.", upstream_status=400)
GONE = ProviderRejected("No such model.", upstream_status=404)


@dataclass
class Script:
    """A call that yields its words, then fails if it is to."""

    words: list[str]
    error: ProviderError | None = None
    accepted: bool = False
    begun: bool = False
    closed: bool = False

    async def events(self) -> AsyncGenerator[str, None]:
        """The words, then the error."""
        try:
            for word in self.words:
                self.begun = self.accepted = True
                yield word
            if self.error:
                raise self.error
        finally:
            self.closed = True


@dataclass
class World:
    """Hosts a, b, c, … with a script each (the last stands for all that come after); notes who was asked."""

    model: Callable[..., Model]
    scripts: list[Script]
    asked: list[str] = field(default_factory=list)
    time: float = 1.0
    refusing: dict[str, Exception] = field(default_factory=dict)
    attempts: int = 1

    def __post_init__(self) -> None:
        self.fallback = Fallback(RetryPolicy(self.attempts), clock=lambda: self.time, sleep=self._sleep)

    def call(self) -> FallbackCall[Script]:
        """A call of all hosts in order."""
        models = [self.model("abc"[index]) for index in range(len(self.scripts))]
        return self.fallback.call(models, self._open, self._before)

    async def _sleep(self, seconds: float) -> None:
        self.time += seconds

    def _open(self, model: Model) -> Script:
        self.asked.append(model.provider.slug)
        self.time += 0.25
        return self.scripts["abc".index(model.provider.slug)]

    async def _before(self, model: Model) -> None:
        if refusal := self.refusing.get(model.provider.slug):
            raise refusal


async def read(call: FallbackCall[Script], words: list[str] | None = None) -> list[str]:
    """All that comes; also what comes before an error, when a list is given."""
    words = [] if words is None else words
    async for word in call.events():
        words.append(word)
    return words


async def test_the_first_answer_is_the_answer(model: Callable[..., Model]) -> None:
    """Nobody else is asked; one attempt is on record."""
    world = World(model, [Script(["a", "b"]), Script(["c"])])
    call = world.call()
    assert not call.begun
    assert call.current is None
    assert await read(call) == ["a", "b"]
    assert world.asked == ["a"]
    assert [(t.provider, t.status, t.ms, t.error) for t in call.attempts] == [("a", 200, 250, None)]
    assert call.begun
    assert call.current is world.scripts[0]


@pytest.mark.parametrize("error", [OVERLOADED, UNPAID, GONE, ProviderUnavailable("x"), ProviderError("x")])
async def test_what_another_may_answer_is_asked_of_another(
    model: Callable[..., Model], error: ProviderError
) -> None:
    """Overload, outage, our unpaid bill, a model that is missing there: the next one is asked."""
    world = World(model, [Script([], error), Script(["b"])])
    call = world.call()
    assert await read(call) == ["b"]
    assert world.asked == ["a", "b"]
    assert [(t.status, t.error) for t in call.attempts] == [(error.status, error.code), (200, None)]
    assert call.model is not None
    assert call.model.provider.slug == "b"


async def test_a_refused_request_is_refused(model: Callable[..., Model]) -> None:
    """A 400 is the caller's: asking others would only repeat it."""
    world = World(model, [Script([], REFUSED), Script(["b"])])
    with pytest.raises(ProviderRejected):
        await read(world.call())
    assert world.asked == ["a"]


async def test_an_answer_in_one_piece_fails_over_alike(model: Callable[..., Model]) -> None:
    """Who is asked, what the circuits learn and what is on record are the same as piece by piece."""

    async def joined(script: Script) -> str:
        return "".join([word async for word in script.events()])

    world = World(model, [Script([], OVERLOADED), Script([], GONE), Script(["a", "b"])])
    call, told = world.call(), World(model, world.scripts).call()
    assert await call.whole(joined) == "".join(await read(told)) == "ab"
    assert call.attempts == told.attempts
    assert [(t.provider, t.error) for t in call.attempts] == [
        ("a", OVERLOADED.code),
        ("b", GONE.code),
        ("c", None),
    ]
    assert world.fallback.circuits.state(model("b"), world.time) == "open"

    world = World(model, [Script(["a"], OVERLOADED), Script(["b"])])
    with pytest.raises(ProviderOverloaded):
        await world.call().whole(joined)
    assert world.asked == ["a"]


async def test_nothing_is_repeated_after_the_first_byte(model: Callable[..., Model]) -> None:
    """An answer that breaks off is an error, whoever else could answer."""
    world = World(model, [Script(["a"], OVERLOADED), Script(["b"])])
    call = world.call()
    heard: list[str] = []
    with pytest.raises(ProviderOverloaded):
        await read(call, heard)
    assert (heard, world.asked) == (["a"], ["a"])
    assert call.accepted


async def test_a_host_that_works_on_it_is_not_left(model: Callable[..., Model]) -> None:
    """Once it has accepted the call it bills; another host would bill a second time."""
    world = World(model, [Script([], ProviderUnavailable("Silent."), accepted=True), Script(["b"])])
    with pytest.raises(ProviderUnavailable):
        await read(world.call())
    assert world.asked == ["a"]


async def test_the_last_error_is_told_when_nobody_answers(model: Callable[..., Model]) -> None:
    """The last candidate is asked as the last."""
    world = World(model, [Script([], UNPAID), Script([], OVERLOADED)])
    call = world.call()
    with pytest.raises(ProviderOverloaded):
        await read(call)
    assert world.asked == ["a", "b"]
    assert not call.accepted


async def test_a_candidate_that_the_meter_refuses_is_passed_over(model: Callable[..., Model]) -> None:
    """A dearer one that the key cannot pay is not asked; a cheaper one behind it is."""
    world = World(model, [Script([], OVERLOADED), Script(["b"]), Script(["c"])])
    world.refusing["b"] = SpendCapReached()
    call = world.call()
    assert await read(call) == ["c"]
    assert [t.status for t in call.attempts] == [429, 402, 200]
    world = World(model, [Script([], OVERLOADED), Script(["b"])], refusing={"b": SpendCapReached()})
    with pytest.raises(ProviderOverloaded):
        await read(world.call())
    world = World(model, [Script(["a"])], refusing={"a": SpendCapReached()})
    with pytest.raises(SpendCapReached):
        await read(world.call())


async def test_other_errors_before_an_attempt_end_the_call(model: Callable[..., Model]) -> None:
    """A lost lease is no opinion on a candidate."""
    world = World(model, [Script(["a"]), Script(["b"])], refusing={"a": LeaseLost()})
    with pytest.raises(LeaseLost):
        await read(world.call())
    assert world.asked == []


async def test_circuits_learn_from_calls(model: Callable[..., Model]) -> None:
    """Five failures open the circuit; after the rest one call tries, and its answer closes it."""
    world = World(model, [Script([], OVERLOADED), Script(["b"])])
    host = model("a")
    for _ in range(5):
        assert world.fallback.healthy(host)
        await read(world.call())
    assert not world.fallback.healthy(host)
    world.time += 10
    assert world.fallback.healthy(host)
    world.scripts[0] = Script(["a"])
    assert await read(world.call()) == ["a"]
    assert world.fallback.healthy(host)


async def test_a_reader_who_leaves_closes_the_call(model: Callable[..., Model]) -> None:
    """The host's stream is closed at once, not when the garbage is collected."""
    world = World(model, [Script(["a", "b"])])
    async with aclosing(world.call().events()) as words:
        await anext(words)
    assert world.scripts[0].closed


async def test_an_empty_answer_is_an_answer(model: Callable[..., Model]) -> None:
    """It is on record, and nobody else is asked."""
    world = World(model, [Script([]), Script(["b"])])
    call = world.call()
    assert await read(call) == []
    assert [t.status for t in call.attempts] == [200]


async def test_all_are_asked_before_any_is_asked_again(model: Callable[..., Model]) -> None:
    """Then those whose failure may pass are, after a while, as often as the policy has it."""
    world = World(model, [Script([], OVERLOADED), Script([], UNPAID), Script([], OVERLOADED)], attempts=3)
    call = world.call()
    with pytest.raises(ProviderOverloaded):
        await read(call)
    assert world.asked == ["a", "b", "c", "a", "c"]
    assert [t.provider for t in call.attempts] == ["a", "b", "c", "a", "c"]


async def test_a_host_is_not_asked_again_before_it_wants(model: Callable[..., Model]) -> None:
    """`Retry-After` counts from the refusal; one that asks for too much patience is asked no more."""
    busy = ProviderOverloaded("Busy.", retry_after=7.0)
    world = World(model, [Script([], busy)], attempts=2)
    with pytest.raises(ProviderOverloaded):
        await read(world.call())
    assert (world.asked, world.time) == (["a", "a"], 1.0 + 2 * 0.25 + 7.0)
    world = World(model, [Script([], ProviderOverloaded("Busy.", retry_after=120.0))], attempts=2)
    with pytest.raises(ProviderOverloaded):
        await read(world.call())
    assert world.asked == ["a"]


async def test_a_call_can_begin_before_it_is_read(model: Callable[..., Model]) -> None:
    """Money is held for the first candidate that it suffices for; those before it are asked no more."""
    world = World(model, [Script(["a"]), Script(["b"])], refusing={"a": SpendCapReached()})
    call = world.call()
    await call.begin()
    assert world.asked == []
    world.refusing.clear()
    assert await read(call) == ["b"]
    assert world.asked == ["b"]
    world.refusing = {"a": InvalidRequest("No."), "b": SpendCapReached()}
    with pytest.raises(InvalidRequest):
        await world.call().begin()
