"""Accounts, for the operator: whoever holds the master key."""

from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import no_nul, path_uuid, read_json, usd_nanos
from api.context import caller, services
from api.responses import json_response
from api.routes.keys import key_object
from qlaud_actors.billing import wallet
from qlaud_actors.billing.wallet import Account, Billing
from qlaud_actors.errors import ScopeMissing
from qlaud_actors.keys import accounts
from qlaud_actors.money import nanos_to_micros, nanos_to_usd

routes = web.RouteTableDef()

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class AccountBody(msgspec.Struct):
    """`POST /v1/accounts`."""

    name: Name
    billing: Billing = "prepaid"
    starter_credit_usd: msgspec.Raw = msgspec.Raw(b"0")


class AccountPatch(msgspec.Struct):
    """`PATCH /v1/accounts/:id`; a field that is absent stays as it is."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    billing: Billing | msgspec.UnsetType = msgspec.UNSET
    low_balance_usd: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@routes.post("/v1/accounts")
async def create_account(request: web.Request) -> web.Response:
    """A new account with its admin key, whose secret is in this answer and nowhere else."""
    _check_operator(request)
    body = await read_json(request, AccountBody)
    no_nul("name", body.name)
    credit = usd_nanos("starter_credit_usd", body.starter_credit_usd) or 0
    new = accounts.NewAccount(body.name, body.billing, credit)
    account, key, secret = await accounts.create(services(request).pool, new)
    answer = {**account_object(account), "key": key_object(key), "secret": secret.reveal()}
    return json_response(answer, status=201)


@routes.get("/v1/accounts")
async def list_accounts(request: web.Request) -> web.Response:
    """All accounts with what they have."""
    _check_operator(request)
    found = await wallet.list_accounts(services(request).pool)
    return json_response({"accounts": [account_object(account) for account in found]})


@routes.get("/v1/accounts/{account_id}")
async def get_account(request: web.Request) -> web.Response:
    """One account."""
    _check_operator(request)
    account = await wallet.get_account(services(request).pool, path_uuid(request, "account_id"))
    return json_response(account_object(account))


@routes.patch("/v1/accounts/{account_id}")
async def patch_account(request: web.Request) -> web.Response:
    """Another name, another low balance, or prepaid instead of postpaid; the balance stays what it is."""
    _check_operator(request)
    body = await read_json(request, AccountPatch)
    low = None
    if isinstance(body.low_balance_usd, msgspec.Raw):
        low = usd_nanos("low_balance_usd", body.low_balance_usd)
    pool = services(request).pool
    account = await wallet.get_account(pool, path_uuid(request, "account_id"))
    if body.name is not msgspec.UNSET:
        no_nul("name", body.name)
        await wallet.rename(pool, account.id, body.name)
    if body.billing is not msgspec.UNSET:
        await wallet.set_billing(pool, account.id, body.billing)
    if body.low_balance_usd is not msgspec.UNSET:
        await wallet.set_low_balance(pool, account.id, low)
    return json_response(account_object(await wallet.get_account(pool, account.id)))


def account_object(account: Account) -> dict[str, object]:
    """An account as the API shows it."""
    low = account.low_balance_nanos
    return {
        "id": str(account.id),
        "object": "account",
        "name": account.name,
        **balance_object(account),
        "low_balance_usd": None if low is None else nanos_to_usd(low),
        "created_at": account.created_at_ms,
    }


def balance_object(account: Account) -> dict[str, object]:
    """What an account has, as `GET /v1/billing/balance` answers."""
    return {
        "balance_usd": nanos_to_usd(account.balance_nanos),
        "balance_micros": account.balance_nanos // 1_000,
        "held_micros": nanos_to_micros(account.held_nanos),
        "currency": "usd",
        "billing": account.billing,
    }


def _check_operator(request: web.Request) -> None:
    if not caller(request).is_master:
        raise ScopeMissing("Accounts are the operator's: this route needs the master key.")
