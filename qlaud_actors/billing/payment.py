"""One payment through Stripe, put together from events that come late, twice and in any order.

Each event tells a part. `merge` joins parts so that neither order nor repetition matters (it is
commutative, associative and idempotent), and `due` says which ledger entries are still missing.
Amounts are cents of USD; other currencies are not ours.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from qlaud_actors.ids import parse_uuid
from qlaud_actors.money import NANOS_PER_USD

Due: TypeAlias = Literal["topup", "refund", "dispute"]

NANOS_PER_CENT = NANOS_PER_USD // 100

REFUND_FAILED = ("failed", "canceled")
DISPUTE_TAKES = ("needs_response", "under_review", "lost")
"""While a dispute is in these states the bank has the money; an inquiry (`warning_…`) takes none."""
DISPUTE_CLOSED = ("won", "lost", "warning_closed", "prevented")


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A refund or a dispute as an event told it. Of two the greater is the newer: compared by field."""

    final: bool
    at: int
    cents: int
    takes: bool


@dataclass(frozen=True, slots=True)
class Payment:
    """What is known of a payment; `refunded` is what the charge said, at its `refunded_at` (s)."""

    account_id: uuid.UUID | None = None
    paid: int = 0
    refunded_at: int = 0
    refunded: int = 0
    refunds: Mapping[str, Claim] = field(default_factory=dict)
    disputes: Mapping[str, Claim] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """What one event tells of the payment with this id."""

    payment_id: str
    payment: Payment


def merge(one: Payment, other: Payment) -> Payment:
    """All that both know."""
    refunded_at, refunded = max((p.refunded_at, p.refunded) for p in (one, other))
    return Payment(
        account_id=one.account_id or other.account_id,
        paid=max(one.paid, other.paid),
        refunded_at=refunded_at,
        refunded=refunded,
        refunds=_newest(one.refunds, other.refunds),
        disputes=_newest(one.disputes, other.disputes),
    )


def due(payment: Payment, posted: Mapping[str, int]) -> dict[Due, int]:
    """Nano-USD by kind of entry that the ledger lacks, given the sums that it has for this payment."""
    if payment.account_id is None:
        return {}
    refunded = min(_refunded(payment), payment.paid)
    disputed = min(sum(d.cents for d in payment.disputes.values() if d.takes), payment.paid - refunded)
    whole: dict[Due, int] = {"topup": payment.paid, "refund": -refunded, "dispute": -disputed}
    missing = {kind: cents * NANOS_PER_CENT - posted.get(kind, 0) for kind, cents in whole.items()}
    return {kind: nanos for kind, nanos in missing.items() if nanos}


def read_event(event: Mapping[str, Any]) -> Told | None:
    """What an event tells; None when it is none of ours."""
    about, kind, at = event["data"]["object"], event["type"], event["created"]
    if about.get("currency", "usd") != "usd":
        return None
    match kind:
        case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
            return _paid(about, about.get("amount_total")) if about.get("payment_status") == "paid" else None
        case "payment_intent.succeeded":
            return _paid({**about, "payment_intent": about["id"]}, about.get("amount_received"))
        case "charge.refunded":
            told = Payment(_account(about), refunded_at=at, refunded=about["amount_refunded"])
        case "charge.refund.updated" | "refund.created" | "refund.updated" | "refund.failed":
            failed = about.get("status") in REFUND_FAILED
            told = Payment(refunds={about["id"]: Claim(failed, at, about["amount"], not failed)})
        case _ if kind.startswith("charge.dispute."):
            status = about["status"]
            claim = Claim(status in DISPUTE_CLOSED, at, about["amount"], status in DISPUTE_TAKES)
            told = Payment(disputes={about["id"]: claim})
        case _:
            return None
    payment_id = payment_of(about)
    return Told(payment_id, told) if payment_id else None


def payment_of(about: Mapping[str, Any]) -> str | None:
    """The payment intent that an object of Stripe names."""
    named = about.get("payment_intent")
    return named["id"] if isinstance(named, dict) else named


def _paid(about: Mapping[str, Any], cents: int | None) -> Told | None:
    account_id = _account(about)
    if account_id is None or not cents:
        return None
    return Told(payment_of(about) or about["id"], Payment(account_id, paid=cents))


def _account(about: Mapping[str, Any]) -> uuid.UUID | None:
    return parse_uuid(str((about.get("metadata") or {}).get("account_id", "")))


def _refunded(payment: Payment) -> int:
    """What the charge said less what failed since, or what the refunds say, if that is more."""
    failed = (r.cents for r in payment.refunds.values() if not r.takes and r.at >= payment.refunded_at)
    return max(payment.refunded - sum(failed), sum(r.cents for r in payment.refunds.values() if r.takes))


def _newest(one: Mapping[str, Claim], other: Mapping[str, Claim]) -> dict[str, Claim]:
    both = {**one, **other}
    return {name: max(one.get(name, claim), other.get(name, claim)) for name, claim in both.items()}
