"""What a payment intent of Stripe says: taken or not, why not, and what may be charged later. Pure."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qlaud_actors.ids import parse_uuid

TAKEN = ("succeeded", "processing", "requires_capture")
NEEDS_CUSTOMER = "requires_action"
"""The bank wants to see the customer, who is not here."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Nothing was taken. A `declined` one may pass later, a `final` one will not by itself."""

    reason: str
    declined: bool = True
    final: bool = False


@dataclass(frozen=True, slots=True)
class SavedMethod:
    """What an account may be charged with while its owner is away, as told at a time in seconds."""

    account_id: uuid.UUID
    customer_id: str
    payment_method_id: str
    told_at: int


@dataclass(frozen=True, slots=True)
class AutoTopupTold:
    """What an event tells of an automatic top-up; without a failure it is paid."""

    topup_id: uuid.UUID
    account_id: uuid.UUID
    payment_id: str
    failure: Failure | None


def failure_of(error: Mapping[str, Any]) -> Failure:
    """Why a bank refused; `error` has Stripe's `code` and `decline_code`."""
    codes = (error.get("decline_code"), error.get("code"))
    if "authentication_required" in codes:
        return Failure(NEEDS_CUSTOMER, final=True)
    return Failure(next((code for code in codes if code), "payment_failed"))


def outcome(intent: Mapping[str, Any]) -> Failure | None:
    """None when the money is taken, or on its way."""
    status = intent["status"]
    if status in TAKEN:
        return None
    if status == NEEDS_CUSTOMER:
        return Failure(NEEDS_CUSTOMER, final=True)
    return Failure("canceled") if status == "canceled" else failure_of(intent.get("last_payment_error") or {})


def saved_method(event: Mapping[str, Any]) -> SavedMethod | None:
    """The payment method that a paid top-up left behind for later."""
    about = event["data"]["object"]
    if event["type"] != "payment_intent.succeeded" or about.get("setup_future_usage") != "off_session":
        return None
    account_id = _id(about, "account_id")
    customer_id, method_id = name_of(about.get("customer")), name_of(about.get("payment_method"))
    if account_id is None or not customer_id or not method_id:
        return None
    return SavedMethod(account_id, customer_id, method_id, event["created"])


def auto_topup_told(event: Mapping[str, Any]) -> AutoTopupTold | None:
    """What an event tells of an automatic top-up; None when it is about something else."""
    about = event["data"]["object"]
    if not event["type"].startswith("payment_intent."):
        return None
    topup_id, account_id = _id(about, "auto_topup_id"), _id(about, "account_id")
    if topup_id is None or account_id is None:
        return None
    match event["type"]:
        case "payment_intent.succeeded":
            failure = None
        case "payment_intent.payment_failed":
            failure = failure_of(about.get("last_payment_error") or {})
        case "payment_intent.requires_action" | "payment_intent.canceled":
            failure = outcome(about)
        case _:
            return None
    return AutoTopupTold(topup_id, account_id, about["id"], failure)


def name_of(about: Any) -> str | None:
    """The id of what Stripe names by its id, or shows whole."""
    return about.get("id") if isinstance(about, dict) else about


def _id(about: Mapping[str, Any], name: str) -> uuid.UUID | None:
    return parse_uuid(str((about.get("metadata") or {}).get(name, "")))
