"""The arithmetic of a key's pace."""

from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.keys.model import KeyLimits
from qlaud_actors.keys.pace import WINDOW_MS, Counts, headers, refusal, seconds_until

COUNT = st.integers(0, 1_000)


def estimate(before: int, present: int, now_ms: int) -> float:
    """What the last minute saw, at a time that may lie in the minute after."""
    minute, passed = divmod(now_ms, WINDOW_MS)
    if minute == 1:
        before, present = present, 0
    return before * (1 - passed / WINDOW_MS) + present if minute < 2 else 0.0


@given(room=COUNT, before=COUNT, present=COUNT, now_ms=st.integers(0, WINDOW_MS - 1))
def test_the_wait_is_as_long_as_it_must_be(room: int, before: int, present: int, now_ms: int) -> None:
    """After it there is room, a little before it there is none; it is two minutes at most."""
    wait = seconds_until(room, before, present, now_ms)
    assert 0 <= wait <= 120
    assert estimate(before, present, now_ms + round(wait * 1000) + 1) <= room + 1e-6
    if wait > 0.01:
        assert estimate(before, present, now_ms + round(wait * 1000) - 10) >= room - 1e-6


def test_the_limit_that_holds_back_longest_is_named() -> None:
    """A caller who waits that long passes them all."""
    limits = KeyLimits(rpm=10, tpm=100, max_concurrent=2)
    assert refusal(limits, Counts(0, 0, 9, 0, 90, 1), 10) is None
    refused = refusal(limits, Counts(30_000, 0, 10, 0, 100, 2), 10)
    assert refused is not None
    assert (refused.scope, refused.limit, refused.retry_after) == ("requests", 10, 36)
    refused = refusal(limits, Counts(30_000, 0, 10, 0, 100, 2), 50)
    assert refused is not None
    assert (refused.scope, refused.retry_after) == ("tokens", 60)
    refused = refusal(limits, Counts(0, 0, 1, 0, 1, 2), 1)
    assert refused is not None
    assert (refused.scope, refused.limit, refused.retry_after) == ("concurrency", 2, 1)


def test_headers_tell_what_is_left() -> None:
    """Rounded so that nobody is promised a request too many; limits that a key has not are not told."""
    told = headers(KeyLimits(rpm=10), Counts(15_000, 5, 3, 0, 0, 0))
    assert told == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "105s",
    }
    assert headers(KeyLimits(max_concurrent=1), Counts(0, 1, 1, 1, 1, 1)) == {}
    told = headers(KeyLimits(tpm=100), Counts(0, 0, 0, 0, 500, 0))
    assert told["x-ratelimit-remaining-tokens"] == "0"
