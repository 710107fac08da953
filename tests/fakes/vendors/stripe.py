"""Stripe's API as a connector uses it: forms in, objects out, and a POST that is repeated answers the same.

`fakes/stripe_double.py` is the other one: it plays the payments of our own wallet.
"""

import json
from typing import Any

from fakes.vendors.server import Answer, Call, VendorDouble

ACCOUNT = "acct_1Acme0000000000"


class Stripe(VendorDouble):
    """An account without customers."""

    slug = "stripe"
    file = "stripe"

    def __init__(self, credential: str) -> None:
        super().__init__(credential)
        self._given: dict[str, tuple[str, Answer]] = {}

    def answer(self, call: Call) -> Answer:
        """The account, its customers, a new one."""
        match call.operation:
            case "GET /v1/account":
                dashboard = {"display_name": "Acme Ltd", "timezone": "Etc/UTC"}
                return Answer(200, {"id": ACCOUNT, "object": "account", "settings": _settings(dashboard)})
            case "GET /v1/customers":
                email = call.query.get("email")
                found = [c for c in reversed(self.made) if email in (None, c["email"])]
                listed = {"object": "list", "url": "/v1/customers", "has_more": False, "data": found}
                return Answer(200, listed)
            case "POST /v1/customers":
                return self._once(call)
        return self.unknown()

    def _once(self, call: Call) -> Answer:
        """Repeated with its key a request gives the first answer; another one with that key is refused."""
        key, asked = call.headers.get("Idempotency-Key"), json.dumps(call.body, sort_keys=True)
        if key in self._given:
            form, first = self._given[key]
            if form != asked:
                return _refusal(400, "idempotency_error", "This key was first used with other parameters.")
            return Answer(first.status, first.body, {"Idempotent-Replayed": "true"})
        answer = self._create(call.body or {})
        if key is not None:
            self._given[key] = (asked, answer)
        return answer

    def _create(self, asked: dict[str, Any]) -> Answer:
        customer = {
            "id": f"cus_{len(self.made) + 1:014d}",
            "object": "customer",
            "created": 1_764_000_000,
            "livemode": False,
            "balance": 0,
            "currency": None,
            "delinquent": False,
            "metadata": asked.get("metadata") or {},
            **{name: asked.get(name) for name in ("name", "email", "phone", "description")},
        }
        self.made.append(customer)
        return Answer(200, customer)

    def unauthenticated(self, credential: str) -> Answer:
        """As its API refuses a key: with most of it hidden."""
        if not credential:
            return _refusal(401, "invalid_request_error", "You did not provide an API key.")
        hidden = f"{credential[:8]}{'*' * 12}{credential[-4:]}"
        return _refusal(401, "invalid_request_error", f"Invalid API Key provided: {hidden}")

    def invalid(self, problems: list[str]) -> Answer:
        """As its API refuses parameters."""
        return _refusal(400, "invalid_request_error", "; ".join(problems))

    def unknown(self) -> Answer:
        """No such path."""
        return _refusal(404, "invalid_request_error", "Unrecognized request URL.")


def _settings(dashboard: dict[str, Any]) -> dict[str, Any]:
    """The settings that the description requires of an account."""
    names = ("branding", "card_payments", "payments")
    return {"dashboard": dashboard, **{name: {} for name in names}}


def _refusal(status: int, kind: str, message: str) -> Answer:
    return Answer(status, {"error": {"type": kind, "message": message}})
