"""What a model call used and what it costs: the only place where tokens become money.

The buckets of `Usage` are disjoint. Anthropic reports input without cached tokens, OpenAI
with them; the wires translate, so that every token is priced exactly once. What is billed in another
measure than text tokens (tokens of pictures and sound, characters, milliseconds, whole images) is counted
in `units`, by name, and is in no other bucket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from qlaud_actors.money import BASIS_POINTS, PICOS_PER_NANO, charge_nanos

Units: TypeAlias = Mapping[str, int]
"""Counts, or pico-USD for each, by the name of the unit:

* `image_input`, `image_output`, `audio_input`, `audio_output`: tokens of pictures and of sound;
* `characters`: Unicode characters of a text to be spoken;
* `audio_ms`: milliseconds of sound that were listened to;
* `images`, or `images/<quality>/<size>`: whole pictures.
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one model call used, by price bucket: text tokens, and units beside them. `reasoning` is a part
    of `output`, for display.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    estimated: bool = False
    units: Units = field(default_factory=dict, hash=False)

    @property
    def input_total(self) -> int:
        """All tokens that the provider read: fresh, cached and written to the cache."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write_5m + other.cache_write_5m,
            self.cache_write_1h + other.cache_write_1h,
            self.reasoning + other.reasoning,
            self.estimated or other.estimated,
            {
                name: self.units.get(name, 0) + other.units.get(name, 0)
                for name in {**self.units, **other.units}
            },
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-USD per token (1 USD per million tokens = 1,000,000 pico-USD per token)."""

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int

    def cost_picos(self, usage: Usage) -> int:
        """The provider's price of `usage` in pico-USD, exact."""
        return (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write_5m * self.cache_write_5m
            + usage.cache_write_1h * self.cache_write_1h
        )

    def dearest_input(self) -> int:
        """The highest rate at which an input token can be billed."""
        return max(self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h)


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that replace the base for the whole call once its input passes a size."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model at one provider, with where and when it was read."""

    rates: Rates
    tiers: tuple[Tier, ...]
    version: str
    """Names this price on every usage row: `<provider>/<model>@<date>`."""
    per_call: int = 0
    """Pico-USD for the call itself, however short (some providers bill a web search with each)."""
    units: Units = field(default_factory=dict, hash=False)
    """Pico-USD for each unit that is billed beside text tokens; a unit that is missing has no price."""

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates that apply to a call with this many input tokens."""
        if not self.tiers:
            return self.rates
        applicable = [t for t in self.tiers if input_tokens > t.above_input_tokens]
        if not applicable:
            return self.rates
        return max(applicable, key=lambda t: t.above_input_tokens).rates

    def cost_picos(self, usage: Usage) -> int:
        """The provider's price of `usage` in pico-USD, exact. Raises KeyError for a unit without a price."""
        tokens = self.rates_for(usage.input_total).cost_picos(usage)
        return self.per_call + tokens + self.unit_picos(usage.units)

    def unit_picos(self, counts: Units) -> int:
        """The price of so many units in pico-USD, exact. Raises KeyError for one without a price."""
        return sum(count * self.units[name] for name, count in counts.items()) if counts else 0

    def dearest(self, input_bound: int) -> Rates:
        """Rates no cheaper in any bucket than whatever a call of at most this input can be billed at."""
        if not self.tiers:
            return self.rates
        reachable = [self.rates, *(t.rates for t in self.tiers if input_bound > t.above_input_tokens)]
        if len(reachable) == 1:
            return self.rates
        return Rates(*(max(getattr(r, f.name) for r in reachable) for f in fields(Rates)))


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that a call can cost: a true bound on its input and units, and the output it asks for."""

    price: Price
    input_bound: int
    max_tokens: int
    markup_bps: int
    units: Units = field(default_factory=dict, hash=False)

    def nanos(self) -> int:
        """The bound in nano-USD, markup included. Raises KeyError for a unit without a price."""
        return self.nanos_for(self.max_tokens)

    def nanos_for(self, max_tokens: int) -> int:
        """The same for another number of output tokens."""
        output = max_tokens * self.price.dearest(self.input_bound).output
        return charge_nanos(self._fixed_picos() + output, self.markup_bps)

    def with_max_tokens(self, max_tokens: int) -> "WorstCase":
        """The same call asking for another number of output tokens."""
        return WorstCase(self.price, self.input_bound, max_tokens, self.markup_bps, self.units)

    def affordable_tokens(self, nanos: int) -> int:
        """The largest `max_tokens` whose worst case fits into `nanos` (0 when the input does not)."""
        free = self.with_max_tokens(0)
        rate = self.price.dearest(self.input_bound).output
        if free.nanos() > nanos:
            return 0
        if rate == 0:
            return self.max_tokens
        # The largest cost whose charge is at most `nanos`: the inverse of `charge_nanos`, exact.
        picos = nanos * PICOS_PER_NANO * BASIS_POINTS // (BASIS_POINTS + self.markup_bps)
        return min(self.max_tokens, (picos - self._fixed_picos()) // rate)

    def _fixed_picos(self) -> int:
        """All but the text output, which alone can be made shorter."""
        read = self.input_bound * self.price.dearest(self.input_bound).dearest_input()
        return read + self.price.per_call + self.price.unit_picos(self.units)
