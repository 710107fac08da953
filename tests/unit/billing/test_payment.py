"""Payments put together from Stripe's events: no order and no repetition changes what comes of them."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.billing.payment import Payment, due, merge, read_event

ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")
META = {"account_id": str(ACCOUNT)}
CENT = 10_000_000
"""Nano-USD."""


def event(kind: str, at: int = 0, **about: Any) -> dict[str, Any]:
    return {"type": kind, "created": at, "data": {"object": {"payment_intent": "pi", **about}}}


def paid(cents: int = 2_000) -> dict[str, Any]:
    return event(
        "checkout.session.completed", id="cs", payment_status="paid", amount_total=cents, metadata=META
    )


def refund(name: str, cents: int, status: str = "succeeded", at: int = 1) -> dict[str, Any]:
    return event("refund.updated", at, id=name, amount=cents, status=status)


def charge(cents: int, at: int = 1) -> dict[str, Any]:
    return event("charge.refunded", at, id="ch", amount_refunded=cents, metadata=META)


def dispute(cents: int, status: str, at: int = 1, name: str = "dp") -> dict[str, Any]:
    return event("charge.dispute.updated", at, id=name, amount=cents, status=status)


def known(*events: dict[str, Any]) -> Payment:
    payment = Payment()
    for one in events:
        told = read_event(one)
        assert told is not None
        assert told.payment_id == "pi"
        payment = merge(payment, told.payment)
    return payment


EVENTS = [
    paid(),
    charge(500),
    charge(200, at=2),
    refund("re_1", 500, "pending"),
    refund("re_1", 500, "failed", at=2),
    refund("re_2", 200, at=2),
    dispute(900, "needs_response"),
    dispute(900, "won"),
    dispute(300, "lost", name="dp_2"),
]


@given(st.permutations(EVENTS * 2), st.integers(0, len(EVENTS) * 2))
def test_order_and_repetition_change_nothing(order: list[dict[str, Any]], cut: int) -> None:
    """However events are shuffled, doubled and grouped, the payment is the same."""
    assert merge(known(*order[cut:]), known(*order[:cut])) == known(*EVENTS)


@given(st.lists(st.sampled_from(EVENTS)))
def test_the_ledger_follows_step_by_step(events: list[dict[str, Any]]) -> None:
    """What is due, once posted, is due no more; and no more goes back than was paid."""
    posted: dict[str, int] = {}
    payment = Payment()
    for one in [paid(), *events]:
        payment = merge(payment, known(one))
        for kind, nanos in due(payment, posted).items():
            posted[kind] = posted.get(kind, 0) + nanos
        assert due(payment, posted) == {}
        assert 0 <= sum(posted.values()) <= 2_000 * CENT
        assert posted["topup"] == 2_000 * CENT


@pytest.mark.parametrize(
    ("events", "refunded"),
    [
        ([charge(500)], 500),
        ([refund("re_1", 500)], 500),
        ([charge(500), refund("re_1", 500)], 500),
        ([charge(500), refund("re_1", 500), refund("re_2", 100, at=2)], 600),
        ([charge(500), refund("re_1", 500, "failed", at=2)], 0),
        ([refund("re_1", 500, "failed", at=2), refund("re_1", 500, "succeeded", at=3)], 0),
        ([charge(500), charge(300, at=2)], 300),
        ([charge(9_999)], 2_000),
        ([refund("re_1", 500, "canceled")], 0),
    ],
)
def test_a_refund_is_counted_once(events: list[dict[str, Any]], refunded: int) -> None:
    """Whether the refund tells of it or the charge; one that failed gives the money back."""
    assert due(known(paid(), *events), {"topup": 2_000 * CENT}).get("refund", 0) == -refunded * CENT


@pytest.mark.parametrize(
    ("events", "disputed"),
    [
        ([dispute(700, "warning_needs_response")], 0),
        ([dispute(700, "needs_response")], 700),
        ([dispute(700, "under_review")], 700),
        ([dispute(700, "lost")], 700),
        ([dispute(700, "won"), dispute(700, "needs_response", at=9)], 0),
        ([dispute(700, "warning_needs_response"), dispute(700, "needs_response", at=2)], 700),
        ([dispute(2_000, "lost"), charge(500)], 1_500),
    ],
)
def test_a_dispute_takes_what_the_bank_has(events: list[dict[str, Any]], disputed: int) -> None:
    """An inquiry takes nothing; what is closed stays closed; nobody pays back twice."""
    assert due(known(paid(), *events), {"topup": 2_000 * CENT}).get("dispute", 0) == -disputed * CENT


def test_nothing_is_due_before_the_payment_is_known() -> None:
    """A refund that comes first waits for the payment that it belongs to."""
    early = known(refund("re_1", 500))
    assert due(early, {}) == {}
    assert due(merge(early, known(paid())), {}) == {"topup": 2_000 * CENT, "refund": -500 * CENT}


@pytest.mark.parametrize(
    "other",
    [
        event("checkout.session.completed", id="cs", payment_status="unpaid", amount_total=5, metadata=META),
        event("checkout.session.completed", id="cs", payment_status="paid", amount_total=5, metadata={}),
        event("checkout.session.completed", id="cs", payment_status="paid", amount_total=5, metadata=None),
        event("charge.refunded", id="ch", amount_refunded=5, currency="eur", metadata=META),
        event("refund.created", payment_intent=None, id="re", amount=5, status="succeeded"),
        event("customer.created", id="cus"),
    ],
)
def test_what_is_none_of_ours_tells_nothing(other: dict[str, Any]) -> None:
    """Unpaid, somebody else's, in another currency, or about something else."""
    assert read_event(other) is None
