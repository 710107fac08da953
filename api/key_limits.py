"""The limits of a key as the API spells them."""

import time
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from qlaud_actors.errors import InvalidRequest, UnknownModel
from qlaud_actors.keys.model import KeyLimits
from qlaud_actors.providers.catalog import Catalog

Pace = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Models = Annotated[list[str], msgspec.Meta(min_length=1, max_length=500)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_000)]
"""Milliseconds since the epoch, to the end of the year 9999."""


class LimitBody(msgspec.Struct):
    """Fields of `POST` and `PATCH /v1/keys`; `null` lifts a limit, an absent one stays as it is."""

    rpm: Pace | msgspec.UnsetType | None = msgspec.UNSET
    tpm: Pace | msgspec.UnsetType | None = msgspec.UNSET
    max_concurrent: Pace | msgspec.UnsetType | None = msgspec.UNSET
    allowed_models: Models | msgspec.UnsetType | None = msgspec.UNSET
    expires_at: Millis | msgspec.UnsetType | None = msgspec.UNSET


def limits_from(body: LimitBody, catalog: Catalog, before: KeyLimits) -> KeyLimits:
    """The limits after this request. Raises InvalidRequest."""
    changes: dict[str, Any] = {
        name: value
        for name in ("rpm", "tpm", "max_concurrent")
        if (value := getattr(body, name)) is not msgspec.UNSET
    }
    if body.allowed_models is not msgspec.UNSET:
        changes["allowed_models"] = _slugs(body.allowed_models, catalog)
    if body.expires_at is not msgspec.UNSET:
        changes["expires_at_ms"] = _in_future(body.expires_at)
    return replace(before, **changes)


def limits_object(limits: KeyLimits) -> dict[str, object]:
    """The limits as the API shows them."""
    models = limits.allowed_models
    return {
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "max_concurrent": limits.max_concurrent,
        "allowed_models": None if models is None else list(models),
        "expires_at": limits.expires_at_ms,
    }


def _slugs(names: list[str] | None, catalog: Catalog) -> tuple[str, ...] | None:
    """Aliases become slugs, so that a model is allowed under all of its names or under none."""
    try:
        return None if names is None else tuple(dict.fromkeys(catalog.resolve(n).slug for n in names))
    except UnknownModel as error:
        raise InvalidRequest(f"`allowed_models`: {error.message}") from None


def _in_future(expires_at: int | None) -> int | None:
    if expires_at is not None and expires_at <= time.time() * 1000:
        raise InvalidRequest("`expires_at` is in the past (it is milliseconds since the epoch).")
    return expires_at
