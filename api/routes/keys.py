"""API keys, for admins."""

import re
from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import check_end_user, path_uuid, read_json, usd_nanos
from api.context import caller, services
from api.key_limits import LimitBody, limits_from, limits_object
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.errors import Conflict, InvalidRequest
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.model import UNLIMITED, ApiKey, CapPeriod, Scope, ThreadAccess
from qlaud_actors.money import nanos_to_micros, nanos_to_usd

routes = web.RouteTableDef()

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]

ABSENT = msgspec.Raw()
NO_CAP = msgspec.Raw(b"null")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class KeyBody(LimitBody, kw_only=True):
    """`POST /v1/keys`."""

    name: Name
    scope: Scope = "standard"
    max_spend_usd: msgspec.Raw = NO_CAP
    """Kept as it is written, so that no binary fraction comes in between."""
    cap_period: CapPeriod = "lifetime"
    end_user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    thread_access: ThreadAccess = "own"


class KeyPatch(LimitBody):
    """`PATCH /v1/keys/:id`; a field that is absent stays as it is."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    max_spend_usd: msgspec.Raw = ABSENT
    cap_period: CapPeriod | msgspec.UnsetType = msgspec.UNSET


class RotateBody(msgspec.Struct):
    """`POST /v1/keys/:id/rotate`."""

    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] = 3_600.0
    """How long the present secret works beside the new one."""


@routes.post("/v1/keys")
@require_admin
async def mint_key(request: web.Request) -> web.Response:
    """A new key; its secret is in this answer and nowhere else."""
    body = await read_json(request, KeyBody)
    _check_name("name", body.name)
    _check_name("end_user_id", body.end_user_id)
    check_end_user(body.end_user_id)
    new = lifecycle.NewKey(
        name=body.name,
        scope=body.scope,
        limit_nanos=usd_nanos("max_spend_usd", body.max_spend_usd),
        cap_period=body.cap_period,
        end_user_id=body.end_user_id,
        thread_access=body.thread_access,
        limits=limits_from(body, services(request).catalog, UNLIMITED),
    )
    key, secret = await lifecycle.mint(services(request).pool, caller(request).account_id, new)
    return json_response({**key_object(key), "secret": secret.reveal()}, status=201)


@routes.get("/v1/keys")
@require_admin
async def list_keys(request: web.Request) -> web.Response:
    """All keys of the account, also revoked ones."""
    keys = await lifecycle.list_keys(services(request).pool, caller(request).account_id)
    return json_response({"keys": [key_object(key) for key in keys]})


@routes.get("/v1/keys/{key_id}")
@require_admin
async def get_key(request: web.Request) -> web.Response:
    """One key."""
    return json_response(key_object(await _key(request)))


@routes.patch("/v1/keys/{key_id}")
@require_admin
async def patch_key(request: web.Request) -> web.Response:
    """Another cap, another period for it, other limits, another name."""
    body = await read_json(request, KeyPatch)
    limit = None if body.max_spend_usd is ABSENT else usd_nanos("max_spend_usd", body.max_spend_usd)
    if body.name is not msgspec.UNSET:
        _check_name("name", body.name)
    key, pool = await _key(request), services(request).pool
    if key.revoked:
        raise Conflict("This key is revoked; it cannot be changed.")
    limits = limits_from(body, services(request).catalog, key.limits)
    if key.is_master and limits.expires_at_ms is not None:
        raise Conflict("The master key does not expire.")
    if limits != key.limits:
        await lifecycle.set_limits(pool, key.id, limits)
    if body.max_spend_usd is not ABSENT:
        await lifecycle.set_limit(pool, key, limit)
    if body.cap_period is not msgspec.UNSET:
        await lifecycle.set_cap_period(pool, key, body.cap_period)
    if body.name is not msgspec.UNSET:
        await lifecycle.rename(pool, key, body.name)
    return json_response(key_object(await _key(request)))


@routes.post("/v1/keys/{key_id}/rotate")
@require_admin
async def rotate_key(request: web.Request) -> web.Response:
    """Another secret for the same key; the present one works until `previous_expires_at`."""
    body = await read_json(request, RotateBody, allow_empty=True)
    secret, ends_at_ms = await lifecycle.rotate(
        services(request).pool, await _key(request), body.grace_seconds
    )
    shown = key_object(await _key(request))
    return json_response({**shown, "secret": secret.reveal(), "previous_expires_at": ends_at_ms})


@routes.delete("/v1/keys/{key_id}")
@require_admin
async def revoke_key(request: web.Request) -> web.Response:
    """End a key, at once and for good."""
    me = caller(request)
    await lifecycle.revoke(services(request).pool, me.account_id, path_uuid(request, "key_id"), me)
    return json_response({"ok": True})


def key_object(key: ApiKey) -> dict[str, object]:
    """A key as the API shows it."""
    return {
        "id": str(key.id),
        "object": "key",
        "name": key.name,
        "prefix": key.prefix,
        "scope": key.scope,
        "max_spend_usd": None if key.limit_nanos is None else nanos_to_usd(key.limit_nanos),
        "cap_period": key.cap_period,
        "resets_at": key.resets_at_ms,
        "spent_micros": nanos_to_micros(key.spent_nanos),
        "held_micros": nanos_to_micros(key.held_nanos),
        "end_user_id": key.end_user_id,
        "thread_access": key.thread_access,
        **limits_object(key.limits),
        "created_at": key.created_at_ms,
        "last_used_at": key.last_used_at_ms,
        "revoked": key.revoked,
    }


async def _key(request: web.Request) -> ApiKey:
    account_id = caller(request).account_id
    return await lifecycle.get_key(services(request).pool, account_id, path_uuid(request, "key_id"))


def _check_name(name: str, value: str | None) -> None:
    if value is not None and _CONTROL.search(value):
        raise InvalidRequest(f"`{name}` must not contain control characters.")
