"""The slips that price tables are known for are noticed."""

import pytest

from qlaud_actors.prices.sanity import doubts
from qlaud_actors.providers.catalog import packaged, parse
from qlaud_actors.usage import Price, Rates, Tier

RIGHT = Price(Rates(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000), (), "v")


def rates(**changes: int) -> Price:
    figures = {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write_5m": 3_750_000}
    return Price(Rates(**{**figures, "cache_write_1h": 6_000_000, **changes}), (), "v")


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (rates(output=1_000_000_001), "output is more than 1,000 USD"),
        (rates(output=299_999), "less than a tenth of input"),
        (rates(output=0), "less than a tenth of input"),
        (rates(cache_read=3_000_001), "reading from the cache costs more"),
        (rates(cache_write_5m=1), "writing to the cache costs less"),
        (rates(cache_write_1h=3_000_000), "one-hour cache write costs less"),
        (Price(RIGHT.rates, (Tier(9, rates(input=2_000_000, cache_read=1).rates),), "v"), "a tier of longer"),
        (rates(input=30_000_000, cache_write_5m=30_000_000, cache_write_1h=30_000_000), "input changes from"),
        (rates(output=1_500_000), "output changes from"),
    ],
)
def test_a_slip_is_doubted(price: Price, words: str) -> None:
    """Units lost, columns swapped, tiers upside down, jumps of ten times."""
    assert words in "; ".join(doubts(price, RIGHT))


def test_what_is_right_is_not_doubted() -> None:
    """Usual changes, free models, and models without output pass."""
    assert doubts(RIGHT) == doubts(RIGHT, RIGHT) == []
    assert doubts(rates(output=20_000_000), RIGHT) == []
    assert doubts(Price(Rates(0, 0, 0, 0, 0), (), "v")) == []
    assert doubts(rates(output=0), generates=False) == []


@pytest.mark.parametrize("name", packaged())
def test_packaged_prices_are_not_doubted(name: str) -> None:
    """Nothing that we ship needs to be forced, announced prices and those of batches included."""
    for row in parse(name, packaged()[name]).models:
        prices = [row.priced("p", row.slug, "d"), *(one.priced("p", row.slug, "d") for one in row.scheduled)]
        if row.batch:
            tiers = tuple(Tier(tier.above_input_tokens, tier.rates()) for tier in row.batch.tiers)
            prices.append(Price(row.batch.rates(), tiers, "batch"))
        generates = row.max_output_tokens > 0
        doubted = [words for price in prices for words in doubts(price, generates=generates)]
        assert doubted == [], row.slug
