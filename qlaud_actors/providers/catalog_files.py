"""The catalogue's TOML files: how they are spelled, checked, and laid over one another."""

import datetime as dt
import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from qlaud_actors.log import get_logger
from qlaud_actors.providers.media_rows import MediaRow, Task, task_problem
from qlaud_actors.providers.model import Model, Provider
from qlaud_actors.providers.price_rows import Count, PriceRow, ScheduledRow, Text
from qlaud_actors.providers.wires import WIRES

Slug: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$")]
EnvName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]*(_API_KEY|_BASE_URL)$")]
Capability: TypeAlias = Literal[
    "function-calling", "streaming", "reasoning", "vision", "audio-in", "audio-out", "reasoning_replay"
]
"""As `/v1/catalog` names them; `reasoning_replay` (the model wants its thoughts back) is for our wire."""

Surface: TypeAlias = Literal["responses"]
"""Dialects that a host may offer beside its wire (`wires.SURFACES`)."""

logger = get_logger(__name__)


class CatalogError(Exception):
    """The catalogue, or a variable that it names, is not usable; the message says where and why."""


class ModelRow(PriceRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[models]]` entry. `source` and `checked` say where and when its price was read."""

    slug: Slug
    display_name: Text
    context_window: Count
    max_output_tokens: Annotated[int, Meta(ge=0, le=100_000_000)]
    """Of text; none where a model puts out something else."""
    capabilities: tuple[Capability, ...]
    source: Text
    checked: dt.date
    scheduled: Annotated[tuple[ScheduledRow, ...], Meta(max_length=50)] = ()
    upstream: Text | None = None
    aliases: tuple[Slug, ...] = ()
    fallbacks: tuple[Slug, ...] = ()
    """Models to ask when no host of this one answers, in this order."""
    author: Text | None = None
    description: str = ""
    task: Task = "text-generation"
    image_tokens: Count | None = None
    media: MediaRow = MediaRow()
    surfaces: tuple[Surface, ...] | None = None

    def model(self, provider: Provider) -> Model:
        """The model that this row describes."""
        checked = self.checked.isoformat()
        return Model(
            slug=self.slug,
            upstream=self.upstream or self.slug,
            display_name=self.display_name,
            provider=provider,
            context_window=self.context_window,
            max_output_tokens=self.max_output_tokens,
            capabilities=self.capabilities,
            price=self.priced(provider.slug, self.slug, checked),
            source=self.source,
            checked=checked,
            author=self.author or provider.display_name,
            description=self.description,
            task=self.task,
            image_tokens=self.image_tokens,
            fallbacks=self.fallbacks,
            media=self.media.limits(),
            scheduled=tuple(row.dated(provider.slug, self.slug) for row in self.scheduled),
            surfaces=provider.surfaces if self.surfaces is None else self.surfaces,
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
    surfaces: tuple[Surface, ...] = ()
    """Dialects beside the wire that its hosts speak, too."""

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


@lru_cache(256)
def _decoded(name: str, text: str) -> dict[str, Any]:
    """The tables of one file, for reading only: they are shared. Raises CatalogError."""
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
        below = dict(rows.get(slug, {}))
        if set(PriceRow.__struct_fields__) & row.keys():
            if not {"source", "checked"} <= row.keys():
                # Both are shown beside the price, and its name on every usage row has the day.
                raise CatalogError(f"{name}: {slug}: a price needs its `source` and the day it was `checked`")
            below.pop("scheduled", None)  # it belongs to the price that is replaced, as `batch` does
            below.pop("batch", None)
        rows[slug] = {**below, **row}
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
    for priced in (row, *row.scheduled):
        problem = priced.price_problem() or task_problem(row.task, wire, priced.units, row.media)
        if problem:
            return f"{row.slug}: {problem}"
    if any(priced.price is None for priced in row.scheduled):
        return f"{row.slug}: a scheduled entry needs a price"
    days = [priced.begins for priced in row.scheduled]
    if days != sorted(set(days)):
        return f"{row.slug}: scheduled prices must ascend by `from`"
    if row.max_output_tokens > row.context_window:
        return f"{row.slug}: max_output_tokens is larger than the context window"
    if row.task == "text-generation" and not row.max_output_tokens:
        return f"{row.slug}: max_output_tokens is missing"
    return None
