"""What providers complain about becomes the right error, with the right status, and without secrets."""

from collections.abc import Callable

import pytest

from qlaud_actors.errors import ProviderError, ProviderOverloaded, ProviderRejected, ProviderUnavailable
from qlaud_actors.providers.failure import MAX_MESSAGE, from_event, from_response, mask
from qlaud_actors.providers.wires import WIRES


@pytest.mark.parametrize(
    ("name", "status", "kind", "seen", "words"),
    [
        ("anthropic_400_invalid.json", 400, ProviderRejected, 400, "Field required"),
        ("anthropic_400_credit.json", 400, ProviderUnavailable, 502, "refused this server's account"),
        ("anthropic_401.json", 401, ProviderUnavailable, 502, "refused this server's credentials"),
        ("anthropic_404.json", 404, ProviderRejected, 404, "model: claude-none"),
        ("anthropic_429.json", 429, ProviderOverloaded, 429, "rate limit of 50,000"),
        ("anthropic_500.json", 500, ProviderUnavailable, 500, "Internal server error"),
        ("anthropic_500.json", 408, ProviderUnavailable, 408, "Internal server error"),
        ("anthropic_529.json", 529, ProviderOverloaded, 529, "Overloaded"),
        ("openai_400_context.json", 400, ProviderRejected, 400, "maximum context length"),
        ("openai_401.json", 401, ProviderUnavailable, 502, "refused this server's credentials"),
        ("openai_401.json", 403, ProviderUnavailable, 502, "refused this server's credentials"),
        ("openai_429_rate.json", 429, ProviderOverloaded, 429, "try again in 1.2s"),
        ("openai_429_quota.json", 429, ProviderUnavailable, 502, "refused this server's account"),
        ("openai_503.json", 503, ProviderOverloaded, 503, "overloaded"),
        ("deepseek_402.json", 402, ProviderUnavailable, 502, "refused this server's account"),
        ("google_429.json", 429, ProviderOverloaded, 429, "exceeded your current quota"),
        ("proxy_502.html", 502, ProviderUnavailable, 502, "answered with status 502"),
        ("proxy_502.html", 302, ProviderUnavailable, 502, "answered with status 302"),
    ],
)
def test_answers(
    recorded: Callable[[str], bytes],
    name: str,
    status: int,
    kind: type[ProviderError],
    seen: int,
    words: str,
) -> None:
    """Each recorded error answer becomes its error; both wires judge alike."""
    errors = [wire.error(status, {}, recorded(f"errors/{name}")) for wire in WIRES.values()]
    for error in errors:
        assert type(error) is kind
        assert error.status == seen
        assert words in error.message


def test_refusals_of_ours(recorded: Callable[[str], bytes]) -> None:
    """What concerns this server's account is flagged for us, not repeated, and not shown to callers."""
    broke = from_response(400, {}, recorded("errors/anthropic_400_credit.json"))
    locked = from_response(401, {}, recorded("errors/openai_401.json"))
    assert isinstance(broke, ProviderUnavailable)
    assert isinstance(locked, ProviderUnavailable)
    assert (broke.billing, broke.credentials, broke.transient) == (True, False, False)
    assert (locked.billing, locked.credentials, locked.transient) == (False, True, False)
    assert broke.details == locked.details == {}
    assert "credit balance" in broke.__notes__[0]
    assert "sk-proj" not in locked.__notes__[0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Tue, 24 Nov 2026 10:00:30 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Tue, 24 Nov 2026 09:00:00 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates are understood; nonsense is no wish at all."""
    assert from_response(429, headers, b"{}").retry_after == seconds
    assert from_response(500, headers, b"{}").retry_after == seconds


def test_503_with_a_wish() -> None:
    """A 503 that says when to come back is an overload, any other one a fault."""
    assert type(from_response(503, {"retry-after": "2"}, b"")) is ProviderOverloaded
    assert type(from_response(503, {}, b"")) is ProviderUnavailable


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, ProviderOverloaded, 529),
        ({"type": "api_error", "message": "x"}, ProviderUnavailable, 500),
        ({"type": "timeout_error", "message": "x"}, ProviderUnavailable, 504),
        ({"type": "invalid_request_error", "message": "x"}, ProviderRejected, 400),
        ({"code": 502, "message": "x"}, ProviderUnavailable, 502),
        ({"code": "429", "message": "x"}, ProviderOverloaded, 429),
        ({"type": "server_error", "code": "rate_limit_exceeded", "message": "x"}, ProviderOverloaded, 429),
        ("just words", ProviderUnavailable, 500),
        (None, ProviderUnavailable, 500),
    ],
)
def test_events(error: object, kind: type[ProviderError], status: int) -> None:
    """An error within a stream is judged by its type or code."""
    judged = from_event(error)
    assert (type(judged), judged.status) == (kind, status)


@pytest.mark.parametrize("body", [b"", b"[]", b"[1]", b"3", b'{"error":3}', b'{"error":null}', b"\xff"])
def test_strange_bodies(body: bytes) -> None:
    """No error body can break the judgement."""
    assert from_response(400, {}, body).status == 400


def test_plain_shapes() -> None:
    """Servers that send `detail`, or words instead of an error object, are heard."""
    assert from_response(422, {}, b'{"detail":"too short"}').message == "too short"
    assert from_response(422, {}, b'{"error":"too short"}').message == "too short"


@pytest.mark.parametrize(
    "secret",
    ["sk-ant-api03-AbC_dEf", "sk-proj-abc***xyz", "Bearer abcdef1234567890", "AIzaSyD-1234567890abc"],
)
def test_masks_keys(secret: str) -> None:
    """Nothing that looks like a key is repeated."""
    assert mask(f"bad key {secret}, sorry") == "bad key [secret], sorry"


def test_masking_spares_words() -> None:
    """Ordinary words that begin like a key stay."""
    words = "a skeleton of risk-free task-based bearer tokens"
    assert mask(words) == words


def test_truncates() -> None:
    """A message ends after its first 500 characters."""
    assert len(mask("x" * 10_000)) == MAX_MESSAGE
