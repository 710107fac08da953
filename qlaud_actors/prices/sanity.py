"""Whether a price can be true: the slips that price tables are known for. Pure.

A unit confused (per thousand, per million, per token), input and output swapped, a tier below its base.
What is doubted is refused unless somebody insists.
"""

from collections.abc import Iterator
from itertools import pairwise

from qlaud_actors.usage import Price, Rates

DEAREST = 1_000_000_000
"""Pico-USD per token: 1,000 USD per million tokens."""

INPUT_OVER_OUTPUT = 10
"""Input that costs more than ten times the output has been swapped, or one of them lost its unit."""

JUMP = 10
"""A price that is ten times the one before, or a tenth of it, has more likely lost its unit."""


def doubts(price: Price, before: Price | None = None, *, generates: bool = True) -> list[str]:
    """What is implausible about a price, in words; `before` is the price that it replaces.

    `generates` is false for models without output tokens (embeddings).
    """
    found = [words for rates in _all_rates(price) for words in _of_rates(rates, generates=generates)]
    found += _of_tiers(price)
    if before is not None:
        found += _of_change(before.rates, price.rates)
    return list(dict.fromkeys(found))


def _all_rates(price: Price) -> list[Rates]:
    return [price.rates, *(tier.rates for tier in price.tiers)]


def _of_rates(rates: Rates, *, generates: bool) -> Iterator[str]:
    for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"):
        if getattr(rates, name) > DEAREST:
            yield f"{name} is more than 1,000 USD per million tokens"
    if generates and rates.output * INPUT_OVER_OUTPUT < rates.input:
        yield "output costs less than a tenth of input"
    if rates.cache_read > rates.input:
        yield "reading from the cache costs more than fresh input"
    if rates.cache_write_5m < rates.input:
        yield "writing to the cache costs less than fresh input"
    if rates.cache_write_1h < rates.cache_write_5m:
        yield "a one-hour cache write costs less than a five-minute one"


def _of_tiers(price: Price) -> Iterator[str]:
    steps = _all_rates(price)
    for lower, higher in pairwise(steps):
        if higher.input < lower.input or higher.output < lower.output:
            yield "a tier of longer inputs is cheaper than the one below"


def _of_change(before: Rates, now: Rates) -> Iterator[str]:
    for name in ("input", "output"):
        old, new = getattr(before, name), getattr(now, name)
        if old and new and not old < new * JUMP < old * JUMP * JUMP:
            yield f"{name} changes from {old:,} to {new:,} pico-USD per token: ten times or more"
