"""What a provider's complaint means for us: one judgement for error answers and error events."""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from qlaud_actors.errors import ProviderError, ProviderOverloaded, ProviderRejected, ProviderUnavailable

MAX_MESSAGE = 500

_SECRET = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|qlk|csk|fw|nvapi|pplx)[-_][\w*.-]{4,}|\bAIza[\w-]{10,}|(?i:\bbearer)\s+[\w.~+/=-]{16,}"
)

_STATUS_BY_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "context_length_exceeded": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}

# Codes, not words: Google's per-minute limit speaks of an exceeded quota and of billing, too.
_BILLING_KINDS = frozenset(
    {
        "billing_error",
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "exceeded_current_quota_error",
    }
)
_BILLING_WORDS = re.compile(r"credit balance is too low|insufficient (?:account )?balance", re.IGNORECASE)
_OVERLOAD_WORDS = re.compile(r"overload|capacity|too many|slow down|busy", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Complaint:
    """A provider's error object: `kinds` are its `type` and `code`, as far as it gave them."""

    message: str = ""
    kinds: tuple[str, ...] = ()

    @property
    def is_billing(self) -> bool:
        """Whether it is about money that this server owes, whatever status it came with."""
        return not _BILLING_KINDS.isdisjoint(self.kinds) or bool(_BILLING_WORDS.search(self.message))

    @property
    def status(self) -> int:
        """The HTTP status that it stands for when it came inside a stream; 500 when unclear."""
        for kind in reversed(self.kinds):
            if kind.isdigit() and 400 <= int(kind) < 600:
                return int(kind)
            if kind in _STATUS_BY_KIND:
                return _STATUS_BY_KIND[kind]
        return 500


def from_response(status: int, headers: dict[str, str], body: bytes) -> ProviderError:
    """The error that a non-2xx answer means; header names are lower case."""
    try:
        complaint = _read(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        complaint = Complaint()  # a proxy's HTML page says nothing that a caller could use
    return judge(status, complaint, _retry_after(headers))


def from_event(error: Any) -> ProviderError:
    """The error that an error object within a stream means."""
    complaint = _read({"error": error})
    return judge(complaint.status, complaint, None)


def judge(status: int, complaint: Complaint, retry_after: float | None) -> ProviderError:
    """Who is to blame, and with which status the caller hears of it.

    A refusal of our own credentials or account must not look like a refusal of the caller's: it
    becomes 502, and what the provider said stays in the exception's notes for the log.
    """
    said = mask(complaint.message)
    if status == 402 or complaint.is_billing:
        error: ProviderError = ProviderUnavailable(
            "The provider refused this server's account with it.", billing=True
        )
        error.add_note(said)
    elif status in (401, 403):
        error = ProviderUnavailable("The provider refused this server's credentials.", credentials=True)
        error.add_note(said)
    elif status in (429, 529) or (status == 503 and (retry_after or _OVERLOAD_WORDS.search(said))):
        error = ProviderOverloaded(said or None, upstream_status=status, retry_after=retry_after)
    elif 400 <= status < 500 and status != 408:
        error = ProviderRejected(said or None, upstream_status=status)
    else:
        kept = status if status == 408 or 500 <= status < 600 else None
        error = ProviderUnavailable(
            said or f"The provider answered with status {status}.",
            upstream_status=kept,
            retry_after=retry_after,
        )
    return error


def mask(text: str) -> str:
    """`text` without anything that looks like an API key, at most `MAX_MESSAGE` characters."""
    masked = _SECRET.sub("[secret]", text)
    return masked if len(masked) <= MAX_MESSAGE else masked[: MAX_MESSAGE - 1] + "…"


def _read(payload: Any) -> Complaint:
    if isinstance(payload, list):  # Google wraps its error object into a list
        payload = payload[0] if payload else {}
    if not isinstance(payload, dict):
        return Complaint()
    error = payload.get("error") or payload
    if not isinstance(error, dict):
        return Complaint(str(error))
    message = next((error[key] for key in ("message", "detail") if isinstance(error.get(key), str)), "")
    kinds = [error[key] for key in ("type", "code") if isinstance(error.get(key), str | int)]
    return Complaint(message, tuple(str(kind) for kind in kinds))


def _retry_after(headers: dict[str, str]) -> float | None:
    """Seconds to wait, never negative: `retry-after-ms`, or `retry-after` as seconds or as a date."""
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return max(0.0, millis / 1000)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None:
        at = _date(value)
        # The answer's own date is the clock that the wish refers to.
        seconds = None if at is None else at - (_date(headers.get("date")) or time.time())
    return None if seconds is None else max(0.0, seconds)


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if number < 1e9 else None  # also keeps infinity and NaN out


def _date(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value or "").timestamp()
    except ValueError:
        return None
