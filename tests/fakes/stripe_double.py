"""A small Stripe on loopback: keeps sessions, payments, refunds and disputes, and signs its events.

Where the vendor's specification is at hand, everything it answers or sends is checked against it.
"""

import contextlib
import hashlib
import hmac
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from fakes.stripe_schema import check

SECRET_KEY = "sk_test_double"
WEBHOOK_SECRET = "whsec_double"


class StripeDouble:
    """Its state, and what customers and banks do to it; each of these returns the event that follows."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.fail_next = 0
        """So many requests are answered with 500."""
        self._objects: dict[str, dict[str, Any]] = {}
        self._answers: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def app(self) -> web.Application:
        """Its HTTP side."""
        app = web.Application()
        app.router.add_post("/v1/checkout/sessions", self._create_session)
        app.router.add_get("/v1/charges/{id}", self._get)
        app.router.add_get("/v1/checkout/sessions/{id}", self._get)
        return app

    def pay(self, session_id: str, *, settled: bool = True) -> dict[str, Any]:
        """The customer pays; a bank debit is `settled` later."""
        session = self._objects[session_id]
        intent = self._intent(session["amount_total"], session["payment_intent_metadata"], settled=settled)
        session |= {"status": "complete", "payment_status": "paid" if settled else "unpaid"}
        session["payment_intent"] = intent["id"]
        return self.event("checkout.session.completed", session)

    def settle(self, session_id: str) -> dict[str, Any]:
        """The bank debit of a completed session arrives."""
        session = self._objects[session_id]
        session["payment_status"] = "paid"
        self._objects[session["payment_intent"]]["status"] = "succeeded"
        return self.event("checkout.session.async_payment_succeeded", session)

    def refund(self, intent_id: str, cents: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Money goes back: what the refund says, and what the charge says."""
        charge = self._objects[self._objects[intent_id]["latest_charge"]]
        refund = {
            "id": self._id("re"),
            "object": "refund",
            "amount": cents,
            "currency": "usd",
            "charge": charge["id"],
            "payment_intent": intent_id,
            "created": _now(),
            "status": "succeeded",
            "metadata": {},
        }
        self._objects[refund["id"]] = refund
        charge["amount_refunded"] += cents
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        return self.event("refund.created", refund), self.event("charge.refunded", charge)

    def fail_refund(self, refund_id: str) -> dict[str, Any]:
        """The customer's bank did not take the refund: the money is back."""
        refund = self._objects[refund_id]
        refund["status"] = "failed"
        self._objects[refund["charge"]]["amount_refunded"] -= refund["amount"]
        return self.event("refund.failed", refund)

    def dispute(self, intent_id: str, cents: int, status: str = "needs_response") -> dict[str, Any]:
        """The customer's bank takes the money back, or only asks (`warning_needs_response`)."""
        charge = self._objects[self._objects[intent_id]["latest_charge"]]
        dispute = {
            "id": self._id("dp"),
            "object": "dispute",
            "amount": cents,
            "currency": "usd",
            "charge": charge["id"],
            "payment_intent": intent_id,
            "balance_transactions": [],
            "created": _now(),
            "evidence": {},
            "evidence_details": {"has_evidence": False, "past_due": False, "submission_count": 0},
            "is_charge_refundable": False,
            "livemode": False,
            "metadata": {},
            "reason": "fraudulent",
            "status": status,
        }
        self._objects[dispute["id"]] = dispute
        return self.event("charge.dispute.created", dispute)

    def close_dispute(self, dispute_id: str, status: str) -> dict[str, Any]:
        """The bank has decided: `won`, `lost` or `warning_closed`."""
        dispute = self._objects[dispute_id]
        dispute["status"] = status
        return self.event("charge.dispute.closed", dispute)

    def event(self, kind: str, about: dict[str, Any]) -> dict[str, Any]:
        """An event with the object as it is now."""
        event = {
            "id": self._id("evt"),
            "object": "event",
            "api_version": "2022-11-15",
            "created": _now(),
            "data": {"object": _shown(about)},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }
        check("event", event)
        check(about["object"], event["data"]["object"])
        return event

    def _intent(self, cents: int, metadata: dict[str, str], *, settled: bool) -> dict[str, Any]:
        intent_id = self._id("pi")
        charge: dict[str, Any] = {
            "id": self._id("ch"),
            "object": "charge",
            "amount": cents,
            "amount_captured": cents,
            "amount_refunded": 0,
            "billing_details": {"address": None, "email": None, "name": None, "phone": None},
            "captured": True,
            "created": _now(),
            "currency": "usd",
            "disputed": False,
            "livemode": False,
            "metadata": metadata,
            "paid": True,
            "payment_intent": intent_id,
            "refunded": False,
            "status": "succeeded" if settled else "pending",
        }
        intent: dict[str, Any] = {
            "id": intent_id,
            "object": "payment_intent",
            "amount": cents,
            "amount_received": cents,
            "capture_method": "automatic",
            "confirmation_method": "automatic",
            "created": _now(),
            "currency": "usd",
            "latest_charge": charge["id"],
            "livemode": False,
            "metadata": metadata,
            "payment_method_types": ["card"],
            "status": "succeeded" if settled else "processing",
        }
        self._objects |= {charge["id"]: charge, intent_id: intent}
        return intent

    async def _create_session(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        key = request.headers.get("idempotency-key", "")
        self.requests.append((key, form))
        if refusal := self._refusal(request, key, form):
            return refusal
        if key in self._answers:
            return web.json_response(self._answers[key][1])
        session = self._session(form)
        answer = _shown(session)
        check("checkout.session", answer)
        self._answers[key] = form, answer
        return web.json_response(answer)

    def _refusal(self, request: web.Request, key: str, form: dict[str, str]) -> web.Response | None:
        if request.headers.get("authorization") != f"Bearer {SECRET_KEY}":
            return _error(401, "invalid_request_error", "Invalid API Key provided")
        if self.fail_next:
            self.fail_next -= 1
            return _error(500, "api_error", "Try again")
        if key in self._answers and self._answers[key][0] != form:
            return _error(400, "idempotency_error", "Keys for idempotent requests need the same parameters")
        if int(form["line_items[0][price_data][unit_amount]"]) < 50:
            return _error(400, "invalid_request_error", "The amount is too small")
        return None

    def _session(self, form: dict[str, str]) -> dict[str, Any]:
        session_id = self._id("cs_test")
        cents = int(form["line_items[0][price_data][unit_amount]"])
        session: dict[str, Any] = {
            "id": session_id,
            "object": "checkout.session",
            "amount_subtotal": cents,
            "amount_total": cents,
            "automatic_tax": {"enabled": False, "status": None},
            "cancel_url": form["cancel_url"],
            "client_reference_id": form.get("client_reference_id"),
            "created": _now(),
            "currency": form["line_items[0][price_data][currency]"],
            "custom_fields": [],
            "custom_text": {"shipping_address": None, "submit": None},
            "expires_at": _now() + 86_400,
            "livemode": False,
            "metadata": _nested(form, "metadata"),
            "mode": form["mode"],
            "payment_intent": None,
            "payment_intent_metadata": _nested(form, "payment_intent_data[metadata]"),
            "payment_method_types": ["card"],
            "payment_status": "unpaid",
            "shipping_options": [],
            "status": "open",
            "success_url": form["success_url"],
            "url": f"{self.url}/pay/{session_id}",
        }
        self._objects[session_id] = session
        return session

    async def _get(self, request: web.Request) -> web.Response:
        found = self._objects.get(request.match_info["id"])
        if found is None:
            return _error(404, "invalid_request_error", "No such object")
        check(found["object"], _shown(found))
        return web.json_response(_shown(found))

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):024d}"


def signed(event: dict[str, Any], *, secret: str = WEBHOOK_SECRET, age: int = 0) -> tuple[bytes, str]:
    """The body of a webhook and its `Stripe-Signature` (docs.stripe.com/webhooks/signature)."""
    body = json.dumps(event, indent=2).encode()
    at = _now() - age
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return body, f"t={at},v1={mac},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"


@contextlib.asynccontextmanager
async def stripe_double() -> AsyncIterator[StripeDouble]:
    """Serve one on loopback."""
    double = StripeDouble()
    async with TestServer(double.app()) as server:
        double.url = str(server.make_url("")).rstrip("/")
        yield double


def _shown(about: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(json.dumps(about))
    shown.pop("payment_intent_metadata", None)
    return shown


def _nested(form: dict[str, str], prefix: str) -> dict[str, str]:
    pattern = re.compile(re.escape(prefix) + r"\[(\w+)\]")
    return {match.group(1): value for name, value in form.items() if (match := pattern.fullmatch(name))}


def _error(status: int, kind: str, message: str) -> web.Response:
    error = {"error": {"type": kind, "message": message}}
    check("error", error)
    return web.json_response(error, status=status)


def _now() -> int:
    return int(time.time())
