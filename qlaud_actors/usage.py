"""What a model call used and what it costs: the only place where tokens become money.

The buckets of `Usage` are disjoint. Anthropic reports input without cached tokens, OpenAI
with them; the wires translate, so that every token is priced exactly once.
"""

from dataclasses import dataclass, fields

from qlaud_actors.money import BASIS_POINTS, PICOS_PER_NANO, charge_nanos


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call by price bucket; `reasoning` is a part of `output`, for display."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    estimated: bool = False

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

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates that apply to a call with this many input tokens."""
        applicable = [t for t in self.tiers if input_tokens > t.above_input_tokens]
        if not applicable:
            return self.rates
        return max(applicable, key=lambda t: t.above_input_tokens).rates

    def cost_picos(self, usage: Usage) -> int:
        """The provider's price of `usage` in pico-USD, exact."""
        return self.per_call + self.rates_for(usage.input_total).cost_picos(usage)

    def dearest(self, input_bound: int) -> Rates:
        """Rates no cheaper in any bucket than whatever a call of at most this input can be billed at."""
        reachable = [self.rates, *(t.rates for t in self.tiers if input_bound > t.above_input_tokens)]
        if len(reachable) == 1:
            return self.rates
        return Rates(*(max(getattr(r, f.name) for r in reachable) for f in fields(Rates)))


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that a call can cost: a true bound on its input, and the output it asks for."""

    price: Price
    input_bound: int
    max_tokens: int
    markup_bps: int

    def nanos(self) -> int:
        """The bound in nano-USD, markup included."""
        rates = self.price.dearest(self.input_bound)
        picos = self.input_bound * rates.dearest_input() + self.max_tokens * rates.output
        picos += self.price.per_call
        return charge_nanos(picos, self.markup_bps)

    def with_max_tokens(self, max_tokens: int) -> "WorstCase":
        """The same call asking for another number of output tokens."""
        return WorstCase(self.price, self.input_bound, max_tokens, self.markup_bps)

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
        picos -= self.input_bound * self.price.dearest(self.input_bound).dearest_input()
        picos -= self.price.per_call
        return min(self.max_tokens, picos // rate)
