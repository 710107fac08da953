"""The catalogue's TOML files: how they are spelled, checked, and laid over one another.

Prices are whole pico-USD per token: 1 USD per million tokens is 1_000_000. A bucket that a row leaves
out is billed like the next dearer one: cached input and five-minute cache writes like fresh input,
one-hour cache writes like five-minute ones.
"""

import datetime as dt
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from qlaud_actors.log import get_logger
from qlaud_actors.providers.media_rows import MediaRow, Task, UnitName, UnitPicos, task_problem
from qlaud_actors.providers.model import Model, Provider
from qlaud_actors.providers.wires import WIRES
from qlaud_actors.usage import Price, Rates, Tier

Picos: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""Pico-USD per token. More than 1,000 USD per million tokens is a slip of the unit, not a price."""

CallPicos: TypeAlias = Annotated[int, Meta(ge=0, le=10**12)]
"""Pico-USD per call, at most one dollar."""

Count: TypeAlias = Annotated[int, Meta(ge=1, le=100_000_000)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=400)]
Slug: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$")]
EnvName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]*(_API_KEY|_BASE_URL)$")]
Capability: TypeAlias = Literal[
    "function-calling", "streaming", "reasoning", "vision", "audio-in", "audio-out", "reasoning_replay"
]
"""As `/v1/catalog` names them; `reasoning_replay` (the model wants its thoughts back) is for our wire."""

logger = get_logger(__name__)


class CatalogError(Exception):
    """The catalogue, or a variable that it names, is not usable; the message says where and why."""


class RatesRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price as a file spells it."""

    input: Picos
    output: Picos
    cache_read: Picos | None = None
    cache_write_5m: Picos | None = None
    cache_write_1h: Picos | None = None

    def rates(self) -> Rates:
        """The same with every bucket filled."""
        cache_read = self.input if self.cache_read is None else self.cache_read
        write_5m = self.input if self.cache_write_5m is None else self.cache_write_5m
        write_1h = write_5m if self.cache_write_1h is None else self.cache_write_1h
        return Rates(self.input, self.output, cache_read, write_5m, write_1h)


class TierRow(RatesRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rates for the whole of a call whose input is longer than this."""

    above_input_tokens: Count


class ModelRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[models]]` entry. `source` and `checked` say where and when its price was read."""

    slug: Slug
    display_name: Text
    context_window: Count
    max_output_tokens: Annotated[int, Meta(ge=0, le=100_000_000)]
    """Of text; none where a model puts out something else."""
    capabilities: tuple[Capability, ...]
    price: RatesRow
    source: Text
    checked: dt.date
    tiers: tuple[TierRow, ...] = ()
    per_call: CallPicos = 0
    upstream: Text | None = None
    aliases: tuple[Slug, ...] = ()
    fallbacks: tuple[Slug, ...] = ()
    """Models to ask when no host of this one answers, in this order."""
    author: Text | None = None
    description: str = ""
    task: Task = "text-generation"
    image_tokens: Count | None = None
    units: dict[UnitName, UnitPicos] = {}
    """Pico-USD for each unit that is billed beside text tokens."""
    media: MediaRow = MediaRow()

    def model(self, provider: Provider) -> Model:
        """The model that this row describes."""
        checked = self.checked.isoformat()
        tiers = tuple(Tier(tier.above_input_tokens, tier.rates()) for tier in self.tiers)
        version = f"{provider.slug}/{self.slug}@{checked}"
        return Model(
            slug=self.slug,
            upstream=self.upstream or self.slug,
            display_name=self.display_name,
            provider=provider,
            context_window=self.context_window,
            max_output_tokens=self.max_output_tokens,
            capabilities=self.capabilities,
            price=Price(self.price.rates(), tiers, version, self.per_call, self.units),
            source=self.source,
            checked=checked,
            author=self.author or provider.display_name,
            description=self.description,
            task=self.task,
            image_tokens=self.image_tokens,
            fallbacks=self.fallbacks,
            media=self.media.limits(),
        )


class ProviderFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: a provider and its models."""

    slug: Slug
    display_name: Text
    wire: str
    base_url: str
    auth_header: Literal["x-api-key", "authorization"]
    api_key_env: EnvName
    base_url_env: EnvName
    models: tuple[ModelRow, ...] = ()
    requires_key: bool = True
    image_tokens: Count = 5_000
    on_request: bool = False

    def provider(self) -> Provider:
        """The provider that this file describes."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "models"}
        return Provider(**values)


def packaged() -> dict[str, str]:
    """The TOML texts that come with this package, by file name, in order of name."""
    directory = files("qlaud_actors.providers").joinpath("catalog")
    found = [entry for entry in directory.iterdir() if entry.name.endswith(".toml")]
    return {entry.name: entry.read_text("utf-8") for entry in sorted(found, key=lambda e: e.name)}


def parse(name: str, text: str) -> ProviderFile:
    """One packaged file, checked by itself. Raises CatalogError that begins with its name."""
    return _checked(name, _decoded(name, text), schemes=("https",))


def read(sources: Mapping[str, str], directory: Path | None) -> dict[str, ProviderFile]:
    """All files by the name of their last writer: the given ones, and the operator's own over them.

    A file of the operator's names a provider by its slug and says what differs: fields, models, or
    fields of models. Raises CatalogError.
    """
    owners = {name: _decoded(name, text) for name, text in sources.items()}
    parsed = {name: _checked(name, data, ("https",)) for name, data in owners.items()}
    for path in sorted(directory.glob("*.toml")) if directory else ():
        own = _decoded(str(path), _text(path))
        under = next((name for name, data in owners.items() if data.get("slug") == own.get("slug")), None)
        merged = _overlay(str(path), owners.pop(under) if under else {}, own)
        if under:
            del parsed[under]
        owners[str(path)] = merged
        parsed[str(path)] = _checked(str(path), merged, ("https", "http"))
        models = [row.get("slug") for row in own.get("models", ())]
        logger.info("catalog_override", file=str(path), provider=own.get("slug"), over=under, models=models)
    return parsed


def is_url(value: str, schemes: Iterable[str]) -> bool:
    """Whether this can be a base URL."""
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname) and not parts.query and not parts.fragment


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: {type(error).__name__}") from None


def _decoded(name: str, text: str) -> dict[str, Any]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{name}: {error}") from None
    rows = data.get("models", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CatalogError(f"{name}: models must be tables that begin with [[models]]")
    return data


def _overlay(name: str, under: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    rows = {str(row.get("slug")): row for row in under.get("models", ())}
    for row in own.get("models", ()):
        slug = str(row.get("slug"))
        if {"price", "tiers", "per_call", "units"} & row.keys() and not {"source", "checked"} <= row.keys():
            # Both name the price on every usage row: without them two prices would share a name.
            raise CatalogError(f"{name}: {slug}: a price needs its `source` and the day it was `checked`")
        rows[slug] = {**rows.get(slug, {}), **row}
    return {**under, **own, "models": list(rows.values())}


def _checked(name: str, data: dict[str, Any], schemes: tuple[str, ...]) -> ProviderFile:
    try:
        file = msgspec.convert(data, type=ProviderFile, builtin_types=(dt.date, dt.datetime, dt.time))
    except msgspec.ValidationError as error:
        raise CatalogError(f"{name}: {error}") from None
    problem = _problem(file, schemes)
    if problem:
        raise CatalogError(f"{name}: {problem}")
    return file


def _problem(file: ProviderFile, schemes: tuple[str, ...]) -> str | None:
    if file.wire not in WIRES:
        return f"unknown wire `{file.wire}`; known are {', '.join(sorted(WIRES))}"
    if not (is_url(file.base_url, schemes) or (file.on_request and not file.base_url)):
        return f"base_url must be an {schemes[0]} URL (or empty for a provider on request)"
    if not file.models and not file.on_request:
        return "a provider needs at least one model"
    return next(filter(None, (_row_problem(row, file.wire) for row in file.models)), None)


def _row_problem(row: ModelRow, wire: str) -> str | None:
    steps = [tier.above_input_tokens for tier in row.tiers]
    if steps != sorted(set(steps)):
        return f"{row.slug}: tiers must ascend by above_input_tokens"
    if row.max_output_tokens > row.context_window:
        return f"{row.slug}: max_output_tokens is larger than the context window"
    if row.task == "text-generation" and not row.max_output_tokens:
        return f"{row.slug}: max_output_tokens is missing"
    if problem := task_problem(row.task, wire, row.units, row.media):
        return f"{row.slug}: {problem}"
    return None
