"""The arithmetic behind a hold: whatever is left is enough for the `max_tokens` that it is clamped to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.billing import meter
from qlaud_actors.errors import SpendCapReached
from qlaud_actors.usage import Price, Rates, Tier, Usage, WorstCase

rate = st.integers(0, 75_000_000)
rates = st.builds(Rates, rate, rate, rate, rate, rate)
prices = st.builds(
    Price,
    rates,
    st.lists(st.builds(Tier, st.integers(0, 300_000), rates), max_size=2).map(tuple),
    st.just("p@1"),
)
worst_cases = st.builds(
    WorstCase, prices, st.integers(0, 1_000_000), st.integers(1, 200_000), st.integers(0, 100_000)
)


@given(worst_cases, st.integers(0, 10**13))
def test_what_is_affordable_fits(worst: WorstCase, nanos: int) -> None:
    """The clamped call never costs more than the money that was granted, as soon as its input fits."""
    tokens = worst.affordable_tokens(nanos)
    assert 0 <= tokens <= worst.max_tokens
    if worst.with_max_tokens(0).nanos() <= nanos:
        assert worst.with_max_tokens(tokens).nanos() <= nanos


@given(worst_cases, st.integers(0, 10**13))
def test_nothing_affordable_is_given_away(worst: WorstCase, nanos: int) -> None:
    """One token more would not have fitted: a budget is usable to its end."""
    tokens = worst.affordable_tokens(nanos)
    if tokens < worst.max_tokens:
        assert worst.with_max_tokens(tokens + 1).nanos() > nanos


@given(worst_cases, st.integers(1, 200_000))
def test_a_hold_of_the_floor_affords_the_floor(worst: WorstCase, floor: int) -> None:
    """The smallest hold that is ever granted pays for the smallest useful answer."""
    least = worst.with_max_tokens(min(floor, worst.max_tokens))
    assert worst.affordable_tokens(least.nanos()) >= least.max_tokens


@given(worst_cases, st.data())
def test_the_bound_is_a_bound(worst: WorstCase, data: st.DataObject) -> None:
    """Whatever a call within its bounds uses, in whichever buckets, costs no more than its worst case."""
    from qlaud_actors.money import charge_nanos

    buckets = []
    left = worst.input_bound
    for _ in range(4):
        buckets.append(data.draw(st.integers(0, left)))
        left -= buckets[-1]
    fresh, read, short, long = buckets
    usage = Usage(fresh, data.draw(st.integers(0, worst.max_tokens)), read, short, long)
    assert charge_nanos(worst.price.cost_picos(usage), worst.markup_bps) <= worst.nanos()


@pytest.mark.parametrize(
    ("limit", "spent", "refused"),
    [(None, 10**12, False), (0, 0, True), (10, 9, False), (10, 10, True), (10, 11, True)],
)
def test_the_precheck_refuses_a_spent_key(limit: int | None, spent: int, refused: bool) -> None:
    """A cap of zero always refuses; no cap never does; the last nano-dollar may still be used."""
    if not refused:
        meter.precheck(limit, spent, 0)
        return
    with pytest.raises(SpendCapReached, match="key_cap_exceeded") as caught:
        meter.precheck(limit, spent, 0)
    assert caught.value.status == 402
    assert caught.value.details["scope"] == "key"
    assert caught.value.details["retryable"] is False
    assert caught.value.details["resets_at"] is None
