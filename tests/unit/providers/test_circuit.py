"""The circuits of hosts, by a clock that the test turns."""

from collections.abc import Callable

import pytest

from qlaud_actors.errors import ProviderError, ProviderOverloaded, ProviderRejected, ProviderUnavailable
from qlaud_actors.providers.circuit import Circuit, Circuits
from qlaud_actors.providers.model import Model


def failing(circuit: Circuit, *times: float) -> Circuit:
    """The circuit after failures at these times."""
    for at in times:
        circuit = circuit.failed(at)
    return circuit


def test_five_failures_within_the_window_open_it() -> None:
    """Four do not, nor do five that are spread wider."""
    assert failing(Circuit(), 0, 1, 2, 3).state(3) == "closed"
    assert failing(Circuit(), 0, 1, 2, 3, 4).state(4) == "open"
    assert failing(Circuit(), 0, 10, 20, 29, 31).state(31) == "closed"
    assert failing(Circuit(), 0, 10, 20, 29, 31, 32).state(32) == "open"


def test_it_opens_for_twice_as_long_each_time_up_to_five_minutes() -> None:
    """Ten seconds, then twenty, … , then always three hundred."""
    circuit, now, rests = failing(Circuit(), 0, 0, 0, 0, 0), 0.0, []
    for _ in range(7):
        rests.append(circuit.rest_until - now)
        now = circuit.rest_until
        assert circuit.state(now - 0.1) == "open"
        assert circuit.state(now) == "half-open"
        circuit = circuit.tried(now).failed(now)
    assert rests == [10, 20, 40, 80, 160, 300, 300]


def test_a_half_open_circuit_lets_one_call_try() -> None:
    """Others go elsewhere meanwhile; a trial that never ends does not block the next for ever."""
    circuit = failing(Circuit(), 0, 0, 0, 0, 0)
    assert not circuit.healthy(9)
    assert circuit.tried(9) == circuit
    assert circuit.healthy(10)
    tried = circuit.tried(10)
    assert not tried.healthy(11)
    assert tried.healthy(70)


def test_failures_while_it_is_open_change_nothing() -> None:
    """Calls that were on their way when it opened do not make the rest longer."""
    circuit = failing(Circuit(), 0, 0, 0, 0, 0)
    assert circuit.failed(5) == circuit


def test_a_host_that_asks_to_be_left_alone_is() -> None:
    """For as long as it says, five minutes at most, from the first time on."""
    assert Circuit().failed(0, rest=42).rest_until == 42
    assert Circuit().failed(0, rest=9999).rest_until == 300


@pytest.mark.parametrize(
    ("error", "this", "sibling"),
    [
        (ProviderUnavailable("no", billing=True), "open", "open"),
        (ProviderUnavailable("no", credentials=True), "open", "open"),
        (ProviderOverloaded("no", retry_after=5), "open", "closed"),
        (ProviderRejected("no", upstream_status=404), "open", "closed"),
        (ProviderRejected("no", upstream_status=400), "closed", "closed"),
        (ProviderOverloaded("no"), "closed", "closed"),
        (ProviderUnavailable("no"), "closed", "closed"),
    ],
)
def test_what_one_failure_says_of_a_host(
    model: Callable[..., Model], error: ProviderError, this: str, sibling: str
) -> None:
    """A refused account concerns all models of a provider, an overload one, a refused request none."""
    circuits, mine = Circuits(), model("acme")
    circuits.failed(mine, error, 0)
    assert circuits.state(mine, 1) == this
    assert circuits.state(model("acme", upstream="upstream-2"), 1) == sibling
    assert circuits.state(model("other"), 1) == "closed"


@pytest.mark.parametrize("refused", [None, ProviderRejected("no", upstream_status=400)])
def test_an_answer_closes_the_circuit(model: Callable[..., Model], refused: ProviderError | None) -> None:
    """Also one to a request that the host refuses: it is there."""
    circuits, mine = Circuits(), model()
    for _ in range(5):
        circuits.failed(mine, ProviderUnavailable("no"), 0)
    assert not circuits.healthy(mine, 1)
    circuits.tried(mine, 11)
    assert not circuits.healthy(mine, 12)
    if refused:
        circuits.failed(mine, refused, 12)
    else:
        circuits.succeeded(mine)
    assert circuits.healthy(mine, 12)
    circuits.failed(mine, ProviderUnavailable("no"), 13)
    assert circuits.healthy(mine, 13)
