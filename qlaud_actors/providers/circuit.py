"""Which hosts have been failing: one circuit each. Pure state; the time (seconds, monotonic) is passed in.

Closed: calls go there. Open: others are asked first. Half-open: one call tries it again; its outcome
closes the circuit, or opens it for twice as long. A circuit orders candidates and refuses none: the last
host there is is asked even while its circuit is open.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from qlaud_actors.errors import ProviderError, ProviderRejected, ProviderUnavailable
from qlaud_actors.providers.model import Model

THRESHOLD = 5
"""Failures in a row that open a circuit, if they came within the window."""

WINDOW_SECONDS = 30.0
FIRST_REST, LONGEST_REST = 10.0, 300.0
"""Seconds for which a circuit opens: doubled each time in a row, up to the longest."""

PROBE_SECONDS = 60.0
"""A trial call that has not ended by then is taken for lost, and another is let through."""

State: TypeAlias = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class Circuit:
    """One host's recent past."""

    failures: tuple[float, ...] = ()
    """When it failed, in a row, within the window."""
    openings: int = 0
    """How often in a row it was opened; 0 is closed."""
    rest_until: float = 0.0
    probe_until: float = 0.0

    def state(self, now: float) -> State:
        """What it is at this time."""
        if not self.openings:
            return "closed"
        return "open" if now < self.rest_until else "half-open"

    def healthy(self, now: float) -> bool:
        """Whether a call should go there: closed, or half-open and nobody is trying it."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and now >= self.probe_until)

    def tried(self, now: float) -> "Circuit":
        """A call begins; in a half-open circuit it is the one that tries."""
        return replace(self, probe_until=now + PROBE_SECONDS) if self.state(now) == "half-open" else self

    def failed(self, now: float, *, at_once: bool = False, rest: float = 0.0) -> "Circuit":
        """A call failed in a way that may pass; `at_once` opens without waiting for more failures.

        `rest` is how long the host asked to be left alone, in seconds.
        """
        recent = (*(at for at in self.failures if now - at < WINDOW_SECONDS), now)
        match self.state(now):
            case "open":
                return self  # it was asked as a last resort, or before it opened
            case "closed" if len(recent) < THRESHOLD and not (at_once or rest):
                return replace(self, failures=recent)
        seconds = min(LONGEST_REST, rest or FIRST_REST * 2.0 ** min(self.openings, 10))
        return Circuit(openings=self.openings + 1, rest_until=now + seconds)


@dataclass(slots=True)
class Circuits:
    """All circuits of this process: one for each model at a host, and one for each account with a host."""

    _known: dict[tuple[str, ...], Circuit] = field(default_factory=dict)

    def state(self, model: Model, now: float) -> State:
        """The worse of the two circuits that concern this model."""
        states = [self._of(key).state(now) for key in _keys(model)]
        return max(states, key=("closed", "half-open", "open").index)

    def healthy(self, model: Model, now: float) -> bool:
        """Whether a call of this model should go to this host."""
        return all(self._of(key).healthy(now) for key in _keys(model))

    def tried(self, model: Model, now: float) -> None:
        """A call begins."""
        for key in _keys(model):
            if key in self._known:
                self._known[key] = self._known[key].tried(now)

    def succeeded(self, model: Model) -> None:
        """The host has begun to answer."""
        for key in _keys(model):
            self._known.pop(key, None)

    def failed(self, model: Model, error: ProviderError, now: float) -> None:
        """The host failed. A refusal of our account or credentials concerns all of its models."""
        account, endpoint = _keys(model)
        if isinstance(error, ProviderUnavailable) and (error.credentials or error.billing):
            self._known[account] = self._of(account).failed(now, at_once=True)
        elif error.transient:
            self._known[endpoint] = self._of(endpoint).failed(now, rest=error.retry_after or 0.0)
        elif isinstance(error, ProviderRejected) and error.status == 404:
            self._known[endpoint] = self._of(endpoint).failed(now, at_once=True)
        elif isinstance(error, ProviderRejected):
            self.succeeded(model)  # it works: the request did not

    def _of(self, key: tuple[str, ...]) -> Circuit:
        return self._known.get(key, Circuit())


def _keys(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    provider = model.provider.slug
    return (provider,), (provider, model.upstream)
