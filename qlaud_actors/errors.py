"""The one error tree. `api/errors.py` alone turns these into responses.

QlaudError
├── InvalidRequest 400 ── PayloadTooLarge 413 · PriceUnknown
├── InvalidKey 401
├── BudgetRefused 402 ── SpendCapReached · WalletEmpty · TurnBudgetReached
├── ScopeMissing 403
├── NotFound 404 ── UnknownModel
├── Conflict 409 ── IdempotencyConflict
├── ProviderError 502 ── ProviderRejected · ProviderOverloaded · ProviderUnavailable
│                        ProviderNotConfigured · ResponseTooLarge
├── McpServerFailed 502 (tools/mcp.py) · LinkOver 410 · SignInLost (connectors/links.py)
├── RateLimited 429 · ServiceUnavailable 503
├── LeaseLost · JobCancelled · JobAbandoned
└── TurnError ── TurnCancelled · TurnAbandoned · TurnFailed

A class has a stable `code` and an HTTP `status` hint; its docstring is its default
message. `details` are extra JSON fields that the caller may see.
"""

from typing import Any

# The `type` of an error by its status, as Anthropic names them.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    410: "gone_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    """Anthropic's word for a status."""
    return TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


class QlaudError(Exception):
    """Something went wrong on our side."""

    code: str = "internal_error"
    status: int = 500

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.message = message or (self.__doc__ or "").strip()
        self.details = details
        super().__init__(self.message)


class InvalidRequest(QlaudError):
    """The request is malformed."""

    code = "invalid_request"
    status = 400


class PayloadTooLarge(InvalidRequest):
    """The request body is larger than allowed."""

    code = "request_too_large"
    status = 413


class PriceUnknown(InvalidRequest):
    """This model has no price, so it cannot be used where money is limited."""

    code = "price_unknown"


class InvalidKey(QlaudError):
    """The API key is missing, unknown or revoked."""

    code = "invalid_api_key"
    status = 401


class BudgetRefused(QlaudError):
    """The request does not fit the money that is left."""

    code = "budget_refused"
    status = 402


class SpendCapReached(BudgetRefused):
    """The key has reached its spend cap."""

    code = "key_cap_exceeded"


class WalletEmpty(BudgetRefused):
    """The account's wallet cannot pay for this request."""

    code = "wallet_exhausted"


class TurnBudgetReached(BudgetRefused):
    """The turn has reached the most that it may spend."""

    code = "turn_budget_exceeded"


class ScopeMissing(QlaudError):
    """This key may not do that."""

    code = "permission_denied"
    status = 403


class NotFound(QlaudError):
    """There is no such thing, or it is not yours."""

    code = "not_found"
    status = 404


class UnknownModel(NotFound):
    """There is no such model in the catalogue."""

    code = "model_not_found"


class Conflict(QlaudError):
    """The request conflicts with what is stored."""

    code = "conflict"
    status = 409


class IdempotencyConflict(Conflict):
    """This Idempotency-Key was used before with another request body."""

    code = "idempotency_conflict"


class ProviderError(QlaudError):
    """The model provider failed."""

    code = "provider_error"
    status = 502
    transient = False

    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after
        """Seconds that the provider asked us to wait, if it did."""


class ProviderRejected(ProviderError):
    """The model provider refused the request."""

    code = "provider_rejected"

    def __init__(self, message: str | None = None, *, upstream_status: int, **details: Any) -> None:
        super().__init__(message, **details)
        self.status = upstream_status


class ProviderOverloaded(ProviderError):
    """The model provider is over its rate limit or overloaded."""

    code = "provider_overloaded"
    transient = True

    def __init__(
        self,
        message: str | None = None,
        *,
        upstream_status: int = 429,
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, retry_after=retry_after, **details)
        self.status = upstream_status


class ProviderUnavailable(ProviderError):
    """The model provider could not be reached or broke off.

    `status` is the provider's own where it answered with one. A provider that refuses this server
    itself, for its `credentials` or its unpaid bill (`billing`), is not `transient`: another
    provider may answer, the same one will not. Neither flag is shown to callers.
    """

    code = "provider_unavailable"
    transient = True

    def __init__(
        self,
        message: str | None = None,
        *,
        upstream_status: int | None = None,
        retry_after: float | None = None,
        credentials: bool = False,
        billing: bool = False,
        **details: Any,
    ) -> None:
        super().__init__(
            message or "The model provider could not be reached or broke off.",
            retry_after=retry_after,
            **details,
        )
        self.status = upstream_status or 502
        self.credentials = credentials
        self.billing = billing
        self.transient = not (credentials or billing)


class ProviderNotConfigured(ProviderError):
    """No API key is set for the model's provider."""

    code = "provider_not_configured"
    status = 503


class ServiceUnavailable(QlaudError):
    """A part of the service is not reachable; try again shortly."""

    code = "service_unavailable"
    status = 503


class RateLimited(QlaudError):
    """Too much at once; try again shortly."""

    code = "rate_limited"
    status = 429

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after
        """Seconds after which the same request may pass."""
        self.headers = headers or {}
        """What the answer says of the limits."""


class ResponseTooLarge(ProviderError):
    """The model's answer is larger than a job keeps (1 MB); it was paid for."""

    code = "response_too_large"


class LeaseLost(QlaudError):
    """Another worker has taken this over."""

    code = "lease_lost"


class JobCancelled(QlaudError):
    """The job was cancelled."""

    code = "job_cancelled"
    status = 409


class JobAbandoned(QlaudError):
    """Every worker that tried this job was lost."""

    code = "job_abandoned"


class TurnError(QlaudError):
    """The turn could not be carried to its end."""

    code = "turn_failed"


class TurnCancelled(TurnError):
    """The turn was cancelled."""

    code = "turn_cancelled"
    status = 409


class TurnAbandoned(TurnError):
    """Every worker that tried this turn was lost."""

    code = "turn_abandoned"


class TurnFailed(TurnError):
    """The turn failed; the error that it was stored with, raised again for a reader."""

    def __init__(self, message: str, *, code: str, status: int, **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code
        self.status = status
