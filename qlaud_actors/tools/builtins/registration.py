"""A built-in registered as a tool: its configuration checked, its schema as the model will see it. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.connectors.model import Field
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.ids import new_tool_id
from qlaud_actors.settings import Secret
from qlaud_actors.tools.builtins import http_config
from qlaud_actors.tools.builtins.model import ConfigField, Offer
from qlaud_actors.tools.builtins.template import TemplateProblem
from qlaud_actors.tools.model import AuthMode, Effect, Tool
from qlaud_actors.tools.schema import check_definition, check_schema

MAX_VALUE = 4_000


@dataclass(frozen=True, slots=True, repr=False)
class Registration:
    """What is asked for; None stands for the built-in's own. It holds secrets, so it has no repr."""

    name: str
    description: str
    auth_mode: AuthMode
    config: Mapping[str, Any] | None
    input_schema: dict[str, Any] | None
    effect: Effect | None
    timeout_ms: int | None
    shared: bool


def registered(offer: Offer, asked: Registration, *, allow_private: bool) -> Tool:
    """The tool, its configuration ready to be sealed. Raises InvalidRequest."""
    if asked.input_schema is not None:
        check_schema(asked.input_schema)
    values = _checked(offer, asked.auth_mode, asked.config)
    if asked.effect not in (None, offer.effect) and offer.builtin.code != "http_call":
        raise InvalidRequest(f"`effect` of this built-in is {offer.effect} and cannot be changed.")
    schema, effect = _as_shown(offer, values, asked.input_schema, allow_private=allow_private)
    description = asked.description or offer.builtin.description
    check_definition(asked.name, description, schema)
    return Tool(
        id=new_tool_id(),
        name=asked.name,
        description=description,
        input_schema=schema,
        kind="builtin",
        effect=asked.effect or effect,
        timeout_ms=asked.timeout_ms or offer.builtin.timeout_ms,
        provider=offer.provider,
        auth_mode=asked.auth_mode,
        config=Secret(msgspec.json.encode(values).decode()) if values else None,
        shared=asked.shared,
    )


def decided(offer: Offer, values: Mapping[str, str]) -> frozenset[str]:
    """The inputs that the configuration decides."""
    return frozenset(field.sets for field in offer.builtin.config if field.sets and field.name in values)


def _as_shown(
    offer: Offer, values: Mapping[str, str], schema: dict[str, Any] | None, *, allow_private: bool
) -> tuple[dict[str, Any], Effect]:
    if offer.builtin.code == "http_call":
        try:
            call = http_config.read(values, allow_private=allow_private)
            shown = http_config.schema_for(call, schema)
            http_config.check_names(call, shown)
        except TemplateProblem as problem:
            raise InvalidRequest(f"{problem}.") from None
        return shown, call.effect
    own = offer.shown_schema(decided(offer, values))
    if schema is None:
        return own, offer.effect
    named = schema.get("properties")
    if not isinstance(named, dict) or (unknown := sorted(named.keys() - own["properties"].keys())):
        words = f" {unknown[0][:64]!r} is none of it." if isinstance(named, dict) else ""
        raise InvalidRequest(f"`input_schema` may narrow the built-in's own, not add to it.{words}")
    if missing := [name for name in own.get("required", ()) if name not in named]:
        raise InvalidRequest(f"`input_schema` lacks {missing[0]!r}, which the built-in needs.")
    return schema, offer.effect


def _checked(offer: Offer, mode: AuthMode, config: Mapping[str, Any] | None) -> dict[str, str]:
    """The values to be kept, defaults included."""
    if offer.builtin.auth_mode not in (mode, "either"):
        raise InvalidRequest(f"`auth_mode` of this built-in is {offer.builtin.auth_mode}.")
    fields = offer.builtin.config
    wanted: tuple[Field, ...] = fields if mode == "per_user" else (*offer.credential, *fields)
    if config is None and any(not field.optional and field.default is None for field in wanted):
        raise InvalidRequest("`config` is missing: `GET /v1/builtins` has its schema.")
    given = config or {}
    if mode == "per_user" and (named := [f.name for f in offer.credential if f.name in given]):
        words = "each end user gives it on the connect page"
        raise InvalidRequest(f"`config.{named[0]}` is not given with `auth_mode: per_user`: {words}.")
    if unknown := sorted(given.keys() - {field.name for field in wanted}):
        raise InvalidRequest(f"`config`: there is no field {unknown[0][:64]!r}.")
    values = {field.name: _value(field, given.get(field.name)) for field in wanted}
    return {name: value for name, value in values.items() if value is not None}


def _value(field: Field, value: Any) -> str | None:
    if value is None or value == "":
        if field.default is None and not field.optional:
            raise InvalidRequest(f"`config.{field.name}` is missing.")
        return field.default
    if not isinstance(value, str):
        raise InvalidRequest(f"`config.{field.name}` must be a text.")
    limit = field.max_length if isinstance(field, ConfigField) else MAX_VALUE
    if len(value) > limit:
        raise InvalidRequest(f"`config.{field.name}` must have at most {limit} characters.")
    if field.pattern and not re.fullmatch(field.pattern, value):
        example = f", like {field.example}" if field.example else ""
        raise InvalidRequest(f"`config.{field.name}` does not have the form that is asked for{example}.")
    if isinstance(field, ConfigField) and field.choices and value not in field.choices:
        raise InvalidRequest(f"`config.{field.name}` must be one of {', '.join(field.choices)}.")
    return value
