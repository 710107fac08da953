"""When a delivery is tried again, and when no more."""

import pytest

from qlaud_actors.deliveries.model import MAX_ATTEMPTS, WAITS, Attempted, next_wait

FAILED = Attempted(status=500)


def test_the_waits_grow_and_fill_a_day() -> None:
    """A receiver may be away for a day; it is asked ever less often."""
    assert list(WAITS) == sorted(WAITS)
    assert 23 * 3600 < sum(WAITS) < 25 * 3600
    assert len(WAITS) + 1 == MAX_ATTEMPTS


@pytest.mark.parametrize("attempt", range(1, MAX_ATTEMPTS))
def test_a_wait_varies_by_a_tenth(attempt: int) -> None:
    """Deliveries that failed together do not come back together."""
    wait = WAITS[attempt - 1]
    assert next_wait(attempt, FAILED, lambda: 0.0) == pytest.approx(0.9 * wait)
    assert next_wait(attempt, FAILED, lambda: 1.0) == pytest.approx(1.1 * wait)


@pytest.mark.parametrize("outcome", [FAILED, Attempted(status=401), Attempted(error="no answer")])
def test_the_last_attempt_has_no_next(outcome: Attempted) -> None:
    """Then the delivery is dead."""
    assert next_wait(MAX_ATTEMPTS - 1, outcome, lambda: 0.5) is not None
    assert next_wait(MAX_ATTEMPTS, outcome, lambda: 0.5) is None


def test_who_says_gone_is_believed() -> None:
    """410 ends a delivery at its first attempt."""
    assert next_wait(1, Attempted(status=410), lambda: 0.5) is None


@pytest.mark.parametrize(("status", "taken"), [(200, True), (204, True), (302, False), (500, False)])
def test_only_2xx_is_taken(status: int, taken: bool) -> None:
    """A redirect is no receipt."""
    assert Attempted(status=status).taken == taken
