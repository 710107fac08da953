"""When to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.outbound.retry import CAP_SECONDS, PATIENCE_SECONDS, RetryPolicy, delay


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (9, 8.0)])
def test_backoff_doubles_up_to_its_cap(attempt: int, longest: float) -> None:
    """Without a wish of the peer's, the longest wait doubles from half a second to eight."""
    assert delay(attempt, None, lambda: 1.0) == longest
    assert delay(attempt, None, lambda: 0.0) == 0.0


@given(st.integers(1, 60), st.none() | st.floats(0, PATIENCE_SECONDS), st.floats(0, 1, exclude_max=True))
def test_wait_keeps_to_both_limits(attempt: int, retry_after: float | None, chance: float) -> None:
    """A wait is never shorter than the peer asked and never longer than the cap and that wish."""
    wait = delay(attempt, retry_after, lambda: chance)
    assert wait is not None
    assert (retry_after or 0.0) <= wait <= max(CAP_SECONDS, retry_after or 0.0)


def test_a_long_wish_means_no_retry() -> None:
    """A peer that wants us away for more than half a minute is not waited for."""
    assert delay(1, 30.0, lambda: 0.5) == 30.0
    assert delay(1, 30.1, lambda: 0.5) is None


def test_attempts_are_counted_with_the_first() -> None:
    """A policy of three attempts waits twice, a policy of one never."""
    assert [RetryPolicy(3).wait(n, None, lambda: 1.0) for n in (1, 2, 3)] == [0.5, 1.0, None]
    assert RetryPolicy(1).wait(1, 0.0, lambda: 1.0) is None
