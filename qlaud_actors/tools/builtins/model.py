"""What a built-in's file declares, and its schemas.

A built-in is an action of a connector with a form of its own, or it names the code that runs it. The
classes are the file format; unknown fields are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from qlaud_actors.connectors.catalog_files import fields_of
from qlaud_actors.connectors.inputs import bounded, input_schema
from qlaud_actors.connectors.model import Action, Auth, Connector, Effect, Field, Line, Name, Part

PREFIX = "qlaud-builtin/"

Code: TypeAlias = Literal["http_call", "image", "artifacts", "calculator"]


class ConfigField(Field, frozen=True, kw_only=True):
    """A field of the registration."""

    choices: tuple[Line, ...] = ()
    max_length: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    sets: Name | None = None
    """The input that it decides, which the model is then not shown."""


class Builtin(Part, frozen=True, kw_only=True):
    """One file."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
    display_name: Line
    description: Annotated[str, Meta(min_length=20, max_length=1200)]
    brand: Line
    auth_mode: Literal["tenant", "per_user", "either"]
    action: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*/[a-z][a-z0-9_]*$")] | None = None
    auth: Annotated[int, Meta(ge=0, le=4)] = 0
    """Which of the connector's ways of signing in; an end user chooses one of their own."""
    shows: tuple[Name, ...] = ()
    """The action's inputs that the model may give; all when empty."""
    code: Code | None = None
    effect: Effect | None = None
    """Of code; an action has its own."""
    input: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - a struct copies its defaults
    required: tuple[str, ...] = ()
    config: tuple[ConfigField, ...] = ()
    timeout_ms: Annotated[int, Meta(ge=100, le=120_000)] = 30_000


@dataclass(frozen=True, slots=True)
class Offer:
    """A built-in together with the action that does its work, if one does."""

    builtin: Builtin
    connector: Connector | None = None
    action: Action | None = None

    @property
    def provider(self) -> str:
        """`qlaud-builtin/<name>`."""
        return PREFIX + self.builtin.name

    @property
    def auth(self) -> Auth | None:
        """How an account's own credential signs in."""
        return self.connector.auth[self.builtin.auth] if self.connector else None

    @property
    def credential(self) -> tuple[Field, ...]:
        """The fields that sign in; in the mode `per_user` each end user gives their own."""
        return fields_of(self.connector, self.auth) if self.connector and self.auth else ()

    @property
    def effect(self) -> Effect:
        """What a repetition may do, unless the configuration decides it (http-call)."""
        return self.action.effect if self.action else self.builtin.effect or "write"

    @property
    def decided(self) -> frozenset[str]:
        """The inputs that every configuration decides."""
        fields = self.builtin.config
        return frozenset(f.sets for f in fields if f.sets and (f.default is not None or not f.optional))

    @property
    def whole_schema(self) -> dict[str, Any]:
        """Of everything that may be given when it runs, by the model or by the configuration."""
        if self.connector and self.action:
            return input_schema(self.connector, self.action)
        properties = {name: bounded(definition) for name, definition in self.builtin.input.items()}
        open_ended = self.builtin.code == "http_call"
        schema = {"type": "object", "properties": properties, "additionalProperties": open_ended}
        return {**schema, "required": list(self.builtin.required)} if self.builtin.required else schema

    def shown_schema(self, decided: frozenset[str] = frozenset()) -> dict[str, Any]:
        """What a model is shown: without what the configuration decides."""
        whole = self.whole_schema
        shown = self.builtin.shows or tuple(whole["properties"])
        kept = {name: whole["properties"][name] for name in shown if name not in decided}
        schema = {**whole, "properties": kept}
        required = [name for name in whole.get("required", ()) if name in kept]
        return {**schema, "required": required} if required else _without(schema, "required")

    @property
    def config_schema(self) -> dict[str, Any]:
        """The JSON Schema of the configuration; secret fields have the format `password`."""
        return config_schema((*self.credential, *self.builtin.config))


def config_schema(fields: Sequence[Field]) -> dict[str, Any]:
    """The JSON Schema of what is given in these fields; secret ones have the format `password`."""
    schema: dict[str, Any] = {"type": "object", "properties": {f.name: _field_schema(f) for f in fields}}
    if required := [f.name for f in fields if not f.optional and f.default is None]:
        schema["required"] = required
    return {**schema, "additionalProperties": False}


def _field_schema(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "title": field.label, "description": field.help}
    if field.secret:
        schema["format"] = "password"
    if field.pattern:
        schema["pattern"] = f"^({field.pattern})$"
    if field.default is not None:
        schema["default"] = field.default
    if field.example:
        schema["examples"] = [field.example]
    if isinstance(field, ConfigField):
        schema["maxLength"] = field.max_length
        if field.choices:
            schema["enum"] = list(field.choices)
    return schema


def _without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}
