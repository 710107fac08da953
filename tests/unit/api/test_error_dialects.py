"""One error, two dialects: the caller's SDK understands it either way."""

from typing import Any

import msgspec
import pytest
from aiohttp import web

from api.errors import error_frame, error_response
from qlaud_actors.errors import (
    TYPES,
    Conflict,
    IdempotencyConflict,
    InvalidKey,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    ProviderOverloaded,
    ProviderUnavailable,
    QlaudError,
    RateLimited,
    ScopeMissing,
    ServiceUnavailable,
    SpendCapReached,
    TurnFailed,
    UnknownModel,
    WalletEmpty,
    error_type,
)

OWN = "/v1/messages"
OPENAI = "/v1/chat/completions"

ERRORS = [
    (InvalidRequest(), 400, "invalid_request_error", "invalid_request"),
    (InvalidKey(), 401, "authentication_error", "invalid_api_key"),
    (SpendCapReached("key_cap_exceeded: spent."), 402, "billing_error", "key_cap_exceeded"),
    (WalletEmpty("wallet_exhausted: empty."), 402, "billing_error", "wallet_exhausted"),
    (ScopeMissing(), 403, "permission_error", "permission_denied"),
    (NotFound(), 404, "not_found_error", "not_found"),
    (UnknownModel(), 404, "not_found_error", "model_not_found"),
    (Conflict(), 409, "conflict_error", "conflict"),
    (IdempotencyConflict(), 409, "conflict_error", "idempotency_conflict"),
    (PayloadTooLarge(), 413, "request_too_large", "request_too_large"),
    (RateLimited(), 429, "rate_limit_error", "rate_limited"),
    (ProviderOverloaded(upstream_status=429), 429, "rate_limit_error", "provider_overloaded"),
    (ProviderOverloaded(upstream_status=529), 529, "overloaded_error", "provider_overloaded"),
    (QlaudError(), 500, "api_error", "internal_error"),
    (ProviderUnavailable(), 502, "api_error", "provider_unavailable"),
    (ServiceUnavailable(), 503, "api_error", "service_unavailable"),
]


def read(response: web.Response) -> Any:
    assert response.content_type == "application/json"
    assert isinstance(response.body, bytes)
    return msgspec.json.decode(response.body)


@pytest.mark.parametrize(("error", "status", "kind", "code"), ERRORS, ids=lambda v: getattr(v, "code", None))
def test_errors_in_our_own_shape(error: QlaudError, status: int, kind: str, code: str) -> None:
    """Anthropic's envelope, with a code and the request's id."""
    response = error_response(error, OWN, "req-1")
    assert response.status == status
    assert read(response) == {
        "type": "error",
        "error": {"type": kind, "message": error.message, "code": code},
        "request_id": "req-1",
    }


@pytest.mark.parametrize(("error", "status", "kind", "code"), ERRORS, ids=lambda v: getattr(v, "code", None))
def test_errors_in_openais_shape(error: QlaudError, status: int, kind: str, code: str) -> None:
    """The same facts where OpenAI's SDK looks for them."""
    response = error_response(error, OPENAI, "req-1")
    assert response.status == status
    assert read(response) == {"error": {"message": error.message, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("path", "openai"),
    [
        ("/v1/chat/completions", True),
        ("/v1/embeddings", True),
        ("/v1/images/generations", True),
        ("/v1/audio/speech", True),
        ("/v1/responses", True),
        ("/v1/models", True),
        ("/v1/models/gpt-5", True),
        ("/v1/messages", False),
        ("/v1/threads", False),
        ("/v1/keys", False),
        ("/nowhere", False),
    ],
)
def test_the_path_decides_the_dialect(path: str, openai: bool) -> None:
    """Routes of OpenAI's API speak as OpenAI does, all others as Anthropic does."""
    assert ("type" not in read(error_response(NotFound(), path, "r"))) == openai


@pytest.mark.parametrize("path", [OWN, OPENAI])
def test_figures_of_a_refusal_are_shown(path: str) -> None:
    """Scope, limit and the rest stand beside the message in both dialects."""
    figures = {"scope": "key", "limit_micros": 5, "resets_at": None, "retryable": False}
    shown = read(error_response(SpendCapReached("key_cap_exceeded", **figures), path, "r"))["error"]
    assert {name: shown[name] for name in figures} == figures


@pytest.mark.parametrize("path", [OWN, OPENAI])
def test_details_do_not_replace_what_an_error_is(path: str) -> None:
    """A detail that is named like a field of the envelope loses."""
    details = {"type": "x", "code_": 1}
    shown = read(error_response(TurnFailed("m", code="c", status=502, **details), path, "r"))["error"]
    assert shown["type"] == "api_error"


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (0.0, "0"), (0.2, "1"), (30.0, "30")])
def test_the_wish_to_wait_is_passed_on(seconds: float | None, header: str | None) -> None:
    """In whole seconds, rounded up."""
    response = error_response(ProviderOverloaded(retry_after=seconds), OWN, "r")
    assert response.headers.get("retry-after") == header


def test_a_refusal_for_money_names_its_reason_in_the_message() -> None:
    """Clients look for the reason in `error.message`, whoever wrote the sentence."""
    for error in (SpendCapReached(), WalletEmpty()):
        assert error.code in read(error_response(error, OWN, "r"))["error"]["message"]


def tree(root: type[QlaudError] = QlaudError) -> list[type[QlaudError]]:
    """An error class and all below it."""
    return [root, *(found for child in root.__subclasses__() for found in tree(child))]


def test_codes_name_one_kind_of_error() -> None:
    """Clients may tell errors apart by code: only a class that stands for stored errors has its parent's."""
    named = [kind for kind in tree() if "code" in vars(kind)]
    codes = [kind.code for kind in named]
    assert len(set(codes)) == len(codes)
    assert [kind for kind in tree() if kind not in named] == [TurnFailed]
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def test_every_class_has_a_sentence_and_a_type() -> None:
    """The docstring speaks when nobody else does; the status is one that the table of types decides."""
    for kind in tree():
        assert kind.__doc__
        assert 400 <= kind.status < 600
        assert kind.status in TYPES or kind.status >= 500, f"{kind.__name__} has a status without a type"


def test_each_status_has_its_own_type() -> None:
    """In both dialects the type follows from the status, also for one that no class of ours has."""
    assert len(set(TYPES.values())) == len(TYPES)
    assert [error_type(status) for status in (405, 418, 422, 500, 502, 503, 504)] == [
        *["invalid_request_error"] * 3,
        *["api_error"] * 4,
    ]


@pytest.mark.parametrize(
    ("told", "number"),
    [
        (b"", 0),
        (b": keep-alive\n\n", 0),
        (b'data: {"sequence_number":6}\n\ndata: {"type":"x", "sequence_number": 7, "delta":"y"}\n\n', 8),
        (b'data: {"sequence_number":7,"delta":"\\"sequence_number\\":99"}\n\n', 8),
    ],
)
def test_an_error_in_a_responses_stream_counts_on(told: bytes, number: int) -> None:
    """Its fields stand both where the reference and where the SDK looks; no text of a model misleads it."""
    frame = error_frame(ProviderOverloaded("Later."), "/v1/responses", "r", told)
    event = msgspec.json.decode(frame.removeprefix(b"event: error\ndata: "))
    assert event["sequence_number"] == number
    assert (event["type"], event["code"], event["message"]) == ("error", "provider_overloaded", "Later.")
    assert event["error"]["type"] == "rate_limit_error"
