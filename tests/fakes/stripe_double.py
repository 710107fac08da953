"""A small Stripe on loopback: keeps sessions, customers, payments, refunds, disputes and meters, and signs
its events.

Everything that it is asked, answers or sends is checked against the vendor's specification.
"""

import contextlib
import hashlib
import hmac
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer
from fakes.stripe_schema import check, check_meter_event, read_form, read_meter_event

SECRET_KEY = "sk_test_double"
WEBHOOK_SECRET = "whsec_double"
SESSIONS, INTENTS = "/v1/checkout/sessions", "/v1/payment_intents"


DAY = 86_400


@dataclass(frozen=True)
class Refused(Exception):
    """An answer that is an error."""

    status: int
    error: dict[str, Any]


class StripeDouble:
    """Its state, and what customers and banks do to it; each of these returns the event that follows."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.fail_next = 0
        """So many requests are answered with 500, and nothing is done."""
        self.lose_next = 0
        """So many requests are carried out, but their answer does not arrive."""
        self.card = "fine"
        """What the bank says to a saved card: `fine`, `slow`, or a decline code."""
        self.events: list[dict[str, Any]] = []
        """What happened to payments without their customer, oldest first."""
        self.meters: set[str] = set()
        self.customers: set[str] = set()
        self.counted: Counter[tuple[str, str]] = Counter()
        """By event name and customer."""
        self._identifiers: set[str] = set()
        self._objects: dict[str, dict[str, Any]] = {}
        self._answers: dict[str, tuple[dict[str, str], int, dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def app(self) -> web.Application:
        """Its HTTP side."""
        app = web.Application()
        app.router.add_post("/v1/checkout/sessions", self._create_session)
        app.router.add_post("/v1/payment_intents", self._create_intent)
        app.router.add_get("/v1/payment_intents", self._list_intents)
        app.router.add_post("/v1/billing/meter_events", self._create_meter_event)
        app.router.add_get("/v1/charges/{id}", self._get)
        app.router.add_get("/v1/checkout/sessions/{id}", self._get)
        return app

    def pay(self, session_id: str, *, settled: bool = True) -> dict[str, Any]:
        """The customer pays; a bank debit is `settled` later."""
        session = self._objects[session_id]
        about = session["payment_intent_data"]
        intent = self._intent(session["amount_total"], about["metadata"], settled=settled)
        if session["customer_creation"] == "always":
            session["customer"] = self.new_customer()
        intent |= {"customer": session["customer"], "payment_method": self._id("pm")}
        intent["setup_future_usage"] = about.get("setup_future_usage")
        session |= {"status": "complete", "payment_status": "paid" if settled else "unpaid"}
        session["payment_intent"] = intent["id"]
        return self.event("checkout.session.completed", session)

    def paid_intent(self, session_id: str) -> dict[str, Any]:
        """What the payment of a paid session says."""
        intent = self._objects[self._objects[session_id]["payment_intent"]]
        return self.event("payment_intent.succeeded", intent)

    def new_customer(self) -> str:
        """Somebody who may be billed."""
        customer_id = self._id("cus")
        self.customers.add(customer_id)
        return customer_id

    def intents(self) -> list[dict[str, Any]]:
        """Every payment that was attempted."""
        return [about for about in self._objects.values() if about["object"] == "payment_intent"]

    def forget_keys(self) -> None:
        """A day passes: idempotency keys are pruned."""
        self._answers.clear()

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

    async def _create_session(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, lambda form: self._session(read_form(SESSIONS, form)))

    async def _create_intent(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, lambda form: self._off_session(read_form(INTENTS, form)))

    async def _create_meter_event(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, lambda form: self._count(read_meter_event(form)))

    async def _answer(
        self, request: web.Request, make: Callable[[dict[str, str]], dict[str, Any]]
    ) -> web.StreamResponse:
        """Once per idempotency key, errors of the work itself included."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        key = request.headers.get("idempotency-key", "")
        self.requests.append((key, form))
        if refusal := self._refusal(request, key, form):
            return refusal
        if key not in self._answers:
            try:
                self._answers[key] = form, 200, make(form)
            except Refused as refused:
                check("error", {"error": refused.error})
                self._answers[key] = form, refused.status, {"error": refused.error}
        if self.lose_next:
            self.lose_next -= 1
            assert request.transport
            request.transport.abort()
        _, status, answer = self._answers[key]
        headers = {"stripe-should-retry": "false"} if status == 400 else {}
        return web.json_response(answer, status=status, headers=headers)

    def _refusal(self, request: web.Request, key: str, form: dict[str, str]) -> web.Response | None:
        if request.headers.get("authorization") != f"Bearer {SECRET_KEY}":
            return _error(401, "invalid_request_error", "Invalid API Key provided")
        if self.fail_next:
            self.fail_next -= 1
            return _error(500, "api_error", "Try again")
        if key in self._answers and self._answers[key][0] != form:
            return _error(400, "idempotency_error", "Keys for idempotent requests need the same parameters")
        return None

    def _off_session(self, form: dict[str, Any]) -> dict[str, Any]:
        """A saved card is charged while its owner is away (docs.stripe.com/payments/save-during-payment)."""
        assert form["confirm"] is True
        assert form["off_session"] is True
        if "return_url" not in form and form["automatic_payment_methods"].get("allow_redirects") != "never":
            raise _refused("A `return_url` must be specified", param="return_url")
        saved = [i for i in self.intents() if i.get("payment_method") == form["payment_method"]]
        if not saved or saved[0]["customer"] != form["customer"]:
            raise _refused("No such payment method", code="resource_missing", param="payment_method")
        settled = self.card == "fine"
        intent = self._intent(form["amount"], form["metadata"], settled=settled)
        intent |= {"customer": form["customer"], "payment_method": form["payment_method"]}
        if self.card in ("fine", "slow"):
            if settled:
                self.events.append(self.event("payment_intent.succeeded", intent))
            return _shown(intent)
        error = {"type": "card_error", "code": "card_declined", "decline_code": self.card, "message": "No."}
        if self.card == "authentication_required":
            error["code"] = self.card
        intent |= {"status": "requires_payment_method", "amount_received": 0, "last_payment_error": error}
        self.events.append(self.event("payment_intent.payment_failed", intent))
        raise Refused(402, {**error, "payment_intent": _shown(intent)})

    def _count(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A meter event: counted once per identifier (docs.stripe.com/api/billing/meter-event/create)."""
        name, identifier, payload = fields["event_name"], fields["identifier"], fields["payload"]
        at, customer = int(fields.get("timestamp", _now())), payload["stripe_customer_id"]
        if name not in self.meters:
            raise _refused(f"No active meter found for event name {name}")
        if customer not in self.customers:
            raise _refused(f"No such customer: '{customer}'", code="resource_missing")
        if not _now() - 35 * DAY <= at <= _now() + 300:
            raise _refused("The timestamp is out of range")
        if not payload["value"].isdigit() or len(payload["value"]) > 15:
            raise _refused("The value in the event payload is not a number of at most 15 digits")
        if identifier in self._identifiers:
            raise _refused(f"An event already exists with identifier {identifier}.")
        self._identifiers.add(identifier)
        self.counted[name, customer] += int(payload["value"])
        answer = {"object": "billing.meter_event", "created": _now(), "event_name": name, "livemode": False}
        answer |= {"identifier": identifier, "payload": payload, "timestamp": at}
        check_meter_event(answer)
        return answer

    def _session(self, typed: dict[str, Any]) -> dict[str, Any]:
        session_id = self._id("cs_test")
        price = typed["line_items"][0]["price_data"]
        cents = price["unit_amount"]
        if cents < 50:
            raise _refused("The amount is too small", code="amount_too_small")
        if typed.get("customer") not in {None, *self.customers}:
            raise _refused("No such customer", code="resource_missing", param="customer")
        session: dict[str, Any] = {
            "id": session_id,
            "object": "checkout.session",
            "amount_subtotal": cents,
            "amount_total": cents,
            "automatic_tax": {"enabled": False, "status": None},
            "cancel_url": typed["cancel_url"],
            "client_reference_id": typed.get("client_reference_id"),
            "created": _now(),
            "currency": price["currency"],
            "customer": typed.get("customer"),
            "customer_creation": typed.get("customer_creation", "if_required"),
            "custom_fields": [],
            "custom_text": {"shipping_address": None, "submit": None},
            "expires_at": _now() + 86_400,
            "livemode": False,
            "metadata": typed["metadata"],
            "mode": typed["mode"],
            "payment_intent": None,
            "payment_intent_data": typed["payment_intent_data"],
            "payment_method_types": ["card"],
            "payment_status": "unpaid",
            "shipping_options": [],
            "status": "open",
            "success_url": typed["success_url"],
            "url": f"{self.url}/pay/{session_id}",
        }
        self._objects[session_id] = session
        check("checkout.session", _shown(session))
        return _shown(session)

    async def _list_intents(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request, "", {}):
            return refusal
        asked = read_form("GET /v1/payment_intents", dict(request.query))
        since = asked["created"]["gte"]
        found = [i for i in self.intents() if i["customer"] == asked["customer"] and i["created"] >= since]
        shown = [_shown(intent) for intent in reversed(found)]
        for intent in shown:
            check("payment_intent", intent)
        listed = {"object": "list", "url": "/v1/payment_intents", "has_more": False, "data": shown}
        return web.json_response(listed)

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
    """Serve one on loopback. The library in this process waits for nothing between its retries."""
    double = StripeDouble()
    without_delay = mock.patch.object(stripe.HTTPClient, "INITIAL_DELAY", 0)
    async with TestServer(double.app()) as server:
        double.url = str(server.make_url("")).rstrip("/")
        with without_delay:
            yield double


def _shown(about: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(json.dumps(about))
    shown.pop("payment_intent_data", None)
    return shown


def _refused(message: str, **fields: str) -> Refused:
    return Refused(400, {"type": "invalid_request_error", "message": message, **fields})


def _error(status: int, kind: str, message: str) -> web.Response:
    error = {"error": {"type": kind, "message": message}}
    check("error", error)
    return web.json_response(error, status=status)


def _now() -> int:
    return int(time.time())
