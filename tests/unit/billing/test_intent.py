"""What payment intents and their events say."""

import uuid
from typing import Any

import pytest

from qlaud_actors.billing.intent import (
    AutoTopupTold,
    Failure,
    SavedMethod,
    auto_topup_told,
    failure_of,
    outcome,
    saved_method,
)

ACCOUNT, TOPUP = uuid.uuid4(), uuid.uuid4()
ABOUT = {"account_id": str(ACCOUNT), "auto_topup_id": str(TOPUP)}
AWAY = Failure("requires_action", final=True)


def event(kind: str = "payment_intent.succeeded", **about: Any) -> dict[str, Any]:
    right = {"id": "pi_1", "status": "succeeded", "metadata": ABOUT, "customer": "cus_1"}
    return {"type": kind, "created": 7, "data": {"object": {**right, "payment_method": "pm_1", **about}}}


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ({"code": "card_declined", "decline_code": "insufficient_funds"}, Failure("insufficient_funds")),
        ({"code": "expired_card"}, Failure("expired_card")),
        ({"code": "authentication_required"}, AWAY),
        ({"code": "card_declined", "decline_code": "authentication_required"}, AWAY),
        ({}, Failure("payment_failed")),
    ],
)
def test_why_a_bank_refused(error: dict[str, str], failure: Failure) -> None:
    """The bank's own word if there is one; a wish to see the customer is final."""
    assert failure_of(error) == failure


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        ("succeeded", None),
        ("processing", None),
        ("requires_action", AWAY),
        ("canceled", Failure("canceled")),
        ("requires_payment_method", Failure("do_not_honor")),
    ],
)
def test_whether_the_money_is_taken(status: str, failure: Failure | None) -> None:
    """A bank debit on its way counts as taken, until an event says otherwise."""
    error = {"code": "card_declined", "decline_code": "do_not_honor"}
    assert outcome({"status": status, "last_payment_error": error}) == failure
    assert outcome({"status": "requires_payment_method"}) == Failure("payment_failed")


def test_what_an_event_tells_of_an_automatic_topup() -> None:
    """Paid, failed, or nothing, when it is about another payment or another stage of this one."""
    assert auto_topup_told(event()) == AutoTopupTold(TOPUP, ACCOUNT, "pi_1", None)
    failed = auto_topup_told(event("payment_intent.payment_failed", last_payment_error={"code": "x"}))
    assert failed == AutoTopupTold(TOPUP, ACCOUNT, "pi_1", Failure("x"))
    waits = auto_topup_told(event("payment_intent.requires_action", status="requires_action"))
    assert waits is not None
    assert waits.failure == AWAY
    for other in (
        event("payment_intent.created"),
        event("charge.succeeded"),
        event(metadata={"account_id": str(ACCOUNT)}),
        event(metadata={**ABOUT, "auto_topup_id": "x"}),
        event(metadata=None),
    ):
        assert auto_topup_told(other) is None


def test_what_may_be_charged_later() -> None:
    """Only what a customer agreed to while paying, by id or as a whole object."""
    saved = SavedMethod(ACCOUNT, "cus_1", "pm_1", 7)
    assert saved_method(event(setup_future_usage="off_session")) == saved
    assert saved_method(event(setup_future_usage="off_session", customer={"id": "cus_1"})) == saved
    for other in (
        event(),
        event(setup_future_usage="on_session"),
        event(setup_future_usage="off_session", customer=None),
        event(setup_future_usage="off_session", metadata={}),
        event("payment_intent.processing", setup_future_usage="off_session"),
    ):
        assert saved_method(other) is None
