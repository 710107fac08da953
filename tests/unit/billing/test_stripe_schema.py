"""What the tests hold Stripe's double to is what Stripe published."""

import json
from typing import Any

import pytest
from fakes import stripe_schema
from fakes.stripe_schema import check, read_form, read_meter_event
from jsonschema import ValidationError

PAY = {"amount": "500", "currency": "usd", "off_session": "true", "metadata[account_id]": "a"}


def test_the_extract_is_what_the_specification_says() -> None:
    """Where the vendor's whole document is at hand, making the extract anew changes nothing."""
    found = stripe_schema.specification()
    if found:
        made = stripe_schema.extract(stripe_schema.read_specification(found))
        assert json.loads(stripe_schema.EXTRACT.read_text()) == json.loads(json.dumps(made))


def test_a_form_is_read_with_the_types_that_stripe_gives_it() -> None:
    """Numbers, booleans and nested fields, as the server would understand them."""
    assert read_form("/v1/payment_intents", PAY) == {
        "amount": 500,
        "currency": "usd",
        "off_session": True,
        "metadata": {"account_id": "a"},
    }


@pytest.mark.parametrize(
    "wrong", [{"amonut": "5"}, {"setup_future_usage": "later"}, {"capture_method": "automagic"}]
)
def test_a_form_that_stripe_does_not_know_is_refused(wrong: dict[str, str]) -> None:
    """A misspelt field or value of ours would not pass as if Stripe had taken it."""
    with pytest.raises(ValidationError):
        read_form("/v1/payment_intents", {**PAY, **wrong})
    with pytest.raises(AssertionError):
        read_meter_event({"event_name": "e", "payload[value]": "1", **wrong})


@pytest.mark.parametrize("wrong", [{"object": "dispute"}, {"amount": "5"}, {"id": None}])
def test_an_object_that_stripe_would_not_send_is_refused(wrong: dict[str, Any]) -> None:
    """The double's objects have the fields and values of Stripe's."""
    refund = {"id": "re_1", "object": "refund", "amount": 5, "currency": "usd", "created": 1}
    check("refund", refund)
    with pytest.raises(ValidationError):
        check("refund", {**refund, **wrong})
