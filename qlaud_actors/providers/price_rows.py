"""How a price is spelled, the same in the catalogue's files and in the API.

Prices are whole pico-USD per token: 1 USD per million tokens is 1_000_000. A bucket that a row leaves
out is billed like the next dearer one: cached input and five-minute cache writes like fresh input,
one-hour cache writes like five-minute ones.
"""

import datetime as dt
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from qlaud_actors.providers.media_rows import UnitName, UnitPicos
from qlaud_actors.providers.pricing import UNPRICED, Dated, named
from qlaud_actors.usage import Price, Rates, Tier

Picos: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""Pico-USD per token. More than 1,000 USD per million tokens is a slip of the unit, not a price."""

CallPicos: TypeAlias = Annotated[int, Meta(ge=0, le=10**12)]
"""Pico-USD per call, at most one dollar."""

Count: TypeAlias = Annotated[int, Meta(ge=1, le=100_000_000)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=400)]


class RatesRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price as a file spells it."""

    input: Picos
    output: Picos
    cache_read: Picos | None = None
    cache_write_5m: Picos | None = None
    cache_write_1h: Picos | None = None

    def rates(self) -> Rates:
        """The same with every bucket filled."""
        cache_read = self.input if self.cache_read is None else self.cache_read
        write_5m = self.input if self.cache_write_5m is None else self.cache_write_5m
        write_1h = write_5m if self.cache_write_1h is None else self.cache_write_1h
        return Rates(self.input, self.output, cache_read, write_5m, write_1h)


class TierRow(RatesRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rates for the whole of a call whose input is longer than this."""

    above_input_tokens: Count


Tiers: TypeAlias = Annotated[tuple[TierRow, ...], Meta(max_length=20)]


class BatchRow(RatesRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a provider's batch API costs, for the record: no route uses it."""

    tiers: Tiers = ()


class PriceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a price consists of, the same in files and in the API. A row without `price` is unpriced."""

    price: RatesRow | None = None
    tiers: Tiers = ()
    per_call: CallPicos = 0
    units: dict[UnitName, UnitPicos] = {}
    """Pico-USD for each unit that is billed beside text tokens."""
    batch: BatchRow | None = None

    def priced(self, provider: str, model: str, date: str) -> Price:
        """The price that this row describes, under its name."""
        if self.price is None:
            return UNPRICED
        tiers = tuple(Tier(tier.above_input_tokens, tier.rates()) for tier in self.tiers)
        return named(Price(self.price.rates(), tiers, "", self.per_call, self.units), provider, model, date)

    def price_problem(self) -> str | None:
        """What is wrong with the price as a whole."""
        steps = [tier.above_input_tokens for tier in self.tiers]
        if steps != sorted(set(steps)):
            return "tiers must ascend by above_input_tokens"
        if self.price is None and (self.tiers or self.per_call or self.units):
            return "tiers, per_call and units need a price"
        return None


class ScheduledRow(PriceRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A price that was announced: it counts from the beginning of a day (UTC) on."""

    begins: dt.date = msgspec.field(name="from")
    source: Text
    checked: dt.date

    def dated(self, provider: str, model: str) -> Dated:
        """The same as an entry of the model's timeline."""
        begins = dt.datetime.combine(self.begins, dt.time(), dt.UTC)
        price = self.priced(provider, model, self.begins.isoformat())
        return Dated(int(begins.timestamp() * 1000), price, self.source, self.checked.isoformat())
