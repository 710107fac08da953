"""A vendor's answer that is a failure: what kind, its words, and how long to wait. Pure."""

import datetime as dt
import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qlaud_actors.connectors.model import Connector, Limits
from qlaud_actors.connectors.paths import first_text, texts_at

FailureKind: TypeAlias = Literal["refused", "reconnect", "rate_limited", "unavailable"]
"""The request is wrong; the credential is dead; too much at once; the vendor is in trouble."""

MAX_MESSAGE = 600
MAX_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed. `retry_after_s` is the vendor's own wish."""

    kind: FailureKind
    message: str
    code: str | None = None
    retry_after_s: float | None = None
    told: str = ""
    """The vendor's own words in `message`."""


def failure_of(
    connector: Connector, status: int, headers: Mapping[str, str], answer: Any, now: float
) -> Failure | None:
    """The failure that an answer tells, if any. `headers` in lower case, `now` in unix seconds."""
    if not _failed(connector, status, answer):
        return None
    code = first_text(answer, connector.errors.code) or _ok_code(connector, answer)
    kind = _kind(connector, status, code, headers)
    wait = _wait(connector.limits, headers, now) if kind in ("rate_limited", "unavailable") else None
    told = _told(connector, status, answer, code)
    return Failure(kind, _message(connector, status, told, kind), code, wait, told)


def _failed(connector: Connector, status: int, answer: Any) -> bool:
    if not 200 <= status < 300:
        return True
    if not isinstance(answer, dict):
        return False
    match connector.errors.signal:
        case "errors":
            return bool(answer.get("errors"))
        case "ok":
            return answer.get("ok") is False
        case _:
            return False


def _ok_code(connector: Connector, answer: Any) -> str | None:
    return first_text(answer, ("error",)) if connector.errors.signal == "ok" else None


def _kind(connector: Connector, status: int, code: str | None, headers: Mapping[str, str]) -> FailureKind:
    limits = connector.limits
    spent = bool(limits.remaining) and headers.get(str(limits.remaining).lower(), "").strip() == "0"
    spent = spent or "retry-after" in headers  # a refusal for good names no time
    if status in limits.statuses or code in limits.codes or (status == 403 and spent):
        return "rate_limited"
    if status == 401 or (code is not None and code in connector.errors.reconnect):
        return "reconnect"
    return "unavailable" if status >= 500 else "refused"


def _told(connector: Connector, status: int, answer: Any, code: str | None) -> str:
    words = first_text(answer, connector.errors.message) or code or f"HTTP {status}"
    details = [detail for path in connector.errors.detail for detail in texts_at(answer, path)][:5]
    told = f"{words} ({'; '.join(details)})" if details else words
    return told if len(told) <= MAX_MESSAGE else told[:MAX_MESSAGE] + "…"


def _message(connector: Connector, status: int, told: str, kind: FailureKind) -> str:
    shown = f" ({status})" if status >= 300 else ""
    match kind:
        case "reconnect":
            return f"{connector.name} no longer accepts this connection{shown}: {told}. Connect again."
        case "rate_limited":
            return f"{connector.name} was asked too much at once{shown}: {told}. Try again later."
        case "unavailable":
            return f"{connector.name} is not available{shown}: {told}."
        case _:
            return f"{connector.name} refused the call{shown}: {told}"


def _wait(limits: Limits, headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until the vendor wants to be asked again."""
    wait = _retry_after(headers.get("retry-after", ""), now)
    if wait is None and limits.reset:
        wait = _reset(limits, headers.get(limits.reset.lower(), ""), now)
    return None if wait is None or not math.isfinite(wait) else min(max(wait, 0.0), MAX_WAIT_S)


def _retry_after(value: str, now: float) -> float | None:
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - now
    except ValueError:
        return None


def _reset(limits: Limits, value: str, now: float) -> float | None:
    try:
        match limits.reset_is:
            case "seconds":
                return float(value)
            case "epoch":
                return float(value) - now
            case "epoch_ms":
                return float(value) / 1000 - now
            case _:
                return dt.datetime.fromisoformat(value).timestamp() - now
    except ValueError:
        return None
