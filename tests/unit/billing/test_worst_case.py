"""Tokens into money: tiers, markup and the one rounding, against exact fractions."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.money import charge_nanos
from qlaud_actors.usage import Price, Rates, Tier, Usage, WorstCase

BASE = Rates(1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000)
LONG = Rates(2_000_000, 7_500_000, 200_000, 2_500_000, 4_000_000)
LONGER = Rates(3_000_000, 6_000_000, 300_000, 3_750_000, 6_000_000)
# Not in order, as a catalogue file may have them.
TIERED = Price(BASE, (Tier(400_000, LONGER), Tier(200_000, LONG)), "t/m@1")

picos = st.integers(0, 10**18)
markups = st.integers(0, 100_000)


@given(picos, markups)
def test_a_charge_is_exact_and_rounded_up_once(cost: int, markup_bps: int) -> None:
    """Cost times markup as a fraction, then up to the next nano-dollar: never below, never one more."""
    assert charge_nanos(cost, markup_bps) == ceil(
        Fraction(cost, 1_000) * Fraction(10_000 + markup_bps, 10_000)
    )


@pytest.mark.parametrize(
    ("cost", "markup_bps", "nanos"),
    [
        (0, 700, 0),
        (1, 0, 1),
        (1_000, 0, 1),
        (1_000, 700, 2),
        (100_000, 700, 107),
        (100_001, 700, 108),
        (1_000_000, 10_000, 2_000),
        (935, 700, 2),  # 1.00045 nano-dollars; rounding before the markup would say the same for 934
        (934, 700, 1),
    ],
)
def test_charges_by_hand(cost: int, markup_bps: int, nanos: int) -> None:
    """Pico-USD and basis points to nano-USD, worked out on paper."""
    assert charge_nanos(cost, markup_bps) == nanos


@given(st.lists(picos, min_size=1, max_size=8), markups)
def test_parts_never_cost_less_than_the_whole(costs: list[int], markup_bps: int) -> None:
    """Rounding each call up costs at most a nano-dollar a call, and never undercuts."""
    apart = sum(charge_nanos(cost, markup_bps) for cost in costs)
    assert 0 <= apart - charge_nanos(sum(costs), markup_bps) < len(costs)


@pytest.mark.parametrize(
    ("input_tokens", "rates"),
    [(0, BASE), (200_000, BASE), (200_001, LONG), (400_000, LONG), (400_001, LONGER), (10**7, LONGER)],
)
def test_a_tier_begins_above_its_size(input_tokens: int, rates: Rates) -> None:
    """The highest tier that was passed prices the whole call, wherever it stands in the list."""
    assert TIERED.rates_for(input_tokens) == rates
    usage = Usage(input=input_tokens, output=7)
    assert TIERED.cost_picos(usage) == input_tokens * rates.input + 7 * rates.output


@pytest.mark.parametrize(
    ("usage", "cached_rate"),
    [
        (Usage(input=1, cache_read=200_000), LONG.cache_read),
        (Usage(input=1, cache_write_5m=200_000), LONG.cache_write_5m),
        (Usage(input=1, cache_write_1h=200_000), LONG.cache_write_1h),
    ],
)
def test_cached_tokens_count_towards_a_tier(usage: Usage, cached_rate: int) -> None:
    """A provider looks at all that it read, from wherever."""
    assert TIERED.cost_picos(usage) == LONG.input + 200_000 * cached_rate


def test_the_worst_case_takes_the_dearest_rate_of_each_bucket() -> None:
    """Output may be dearer in a tier that the call passes by: it counts as soon as it is in reach."""
    assert TIERED.dearest(200_000) == BASE
    assert TIERED.dearest(200_001) == LONG
    assert TIERED.dearest(400_001) == Rates(3_000_000, 7_500_000, 300_000, 3_750_000, 6_000_000)


@given(st.integers(0, 500_000), st.integers(0, 200_000), markups)
def test_a_worst_case_grows_with_each_bound(input_bound: int, max_tokens: int, markup_bps: int) -> None:
    """More input or more output is never cheaper, also across the edge of a tier."""
    worst = WorstCase(TIERED, input_bound, max_tokens, markup_bps)
    assert WorstCase(TIERED, input_bound + 1, max_tokens, markup_bps).nanos() >= worst.nanos()
    assert worst.with_max_tokens(max_tokens + 1).nanos() >= worst.nanos()


@given(st.integers(0, 500_000), st.integers(1, 200_000), markups, st.integers(-2, 2))
def test_the_affordable_answer_is_exact_at_the_edge(
    input_bound: int, tokens: int, markup_bps: int, off: int
) -> None:
    """With the price of `tokens` to the nano-dollar they are affordable; a nano-dollar less is one fewer."""
    worst = WorstCase(TIERED, input_bound, 10**9, markup_bps)
    nanos = worst.with_max_tokens(tokens).nanos() + off
    affordable = worst.affordable_tokens(nanos)
    assert affordable == (tokens if off >= 0 else tokens - 1)
    assert affordable == 0 or worst.with_max_tokens(affordable).nanos() <= nanos


def test_money_that_does_not_cover_the_input_affords_nothing() -> None:
    """Zero tokens says so; that the input itself is refused is the floor's work."""
    worst = WorstCase(TIERED, 1_000, 100, 700)
    assert worst.affordable_tokens(worst.with_max_tokens(0).nanos() - 1) == 0
    assert worst.affordable_tokens(0) == 0


def test_output_that_costs_nothing_is_not_clamped() -> None:
    """A free model, and one whose input alone is billed."""
    free = Price(Rates(0, 0, 0, 0, 0), (), "free@1")
    assert WorstCase(free, 1_000, 4_096, 700).affordable_tokens(0) == 4_096
    embedding = WorstCase(Price(Rates(1_000, 0, 0, 0, 0), (), "e@1"), 1_000, 4_096, 700)
    assert embedding.affordable_tokens(embedding.nanos()) == 4_096
    assert embedding.affordable_tokens(embedding.nanos() - 1) == 0
