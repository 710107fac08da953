"""Providers, models and prices: one TOML file each in `catalog/`, checked as a whole at start-up.

Prices there are whole pico-USD per token: 1 USD per million tokens is 1_000_000. A bucket that
a row leaves out is billed like the next dearer one: cached input and five-minute cache writes
like fresh input, one-hour cache writes like five-minute ones.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from qlaud_actors.errors import UnknownModel
from qlaud_actors.providers.model import Model, Provider
from qlaud_actors.providers.wires import WIRES
from qlaud_actors.settings import Secret
from qlaud_actors.usage import Price, Rates, Tier

Picos: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""Pico-USD per token. More than 1,000 USD per million tokens is a slip of the unit, not a price."""

Count: TypeAlias = Annotated[int, Meta(ge=1, le=100_000_000)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=400)]
Slug: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$")]
EnvName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]*(_API_KEY|_BASE_URL)$")]
Capability: TypeAlias = Literal[
    "function-calling", "streaming", "reasoning", "vision", "audio-in", "audio-out", "reasoning_replay"
]
"""As `/v1/catalog` names them; `reasoning_replay` (the model wants its thoughts back) is for our wire."""


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
    max_output_tokens: Count
    capabilities: tuple[Capability, ...]
    price: RatesRow
    source: Text
    checked: dt.date
    tiers: tuple[TierRow, ...] = ()
    upstream: Text | None = None
    aliases: tuple[Slug, ...] = ()
    author: Text | None = None
    description: str = ""
    task: Literal["text-generation"] = "text-generation"
    image_tokens: Count | None = None


class ProviderFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: a provider and its models."""

    slug: Slug
    display_name: Text
    wire: str
    base_url: str
    auth_header: Literal["x-api-key", "authorization"]
    api_key_env: EnvName
    base_url_env: EnvName
    models: tuple[ModelRow, ...]
    requires_key: bool = True
    image_tokens: Count = 5_000
    on_request: bool = False

    def provider(self) -> Provider:
        """The provider that this file describes."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "models"}
        return Provider(**values)


@dataclass(frozen=True, slots=True)
class Catalog:
    """What this process offers. Built by `Catalog.load`."""

    _providers: tuple[Provider, ...]
    _models: tuple[Model, ...]
    _by_name: Mapping[str, Model]
    """Slugs and aliases in lower case; no two differ by case alone."""
    _keys: Mapping[str, Secret]
    _redirected: Collection[str]
    """Providers whose base URL was set by the environment."""

    @classmethod
    def load(cls, environ: Mapping[str, str], sources: Mapping[str, str] | None = None) -> "Catalog":
        """Read all files and apply what `environ` says of base URLs and keys.

        `sources` maps a file's name to its TOML text; the files of the package when left out.
        Raises CatalogError.
        """
        parsed = {name: parse(name, text) for name, text in (sources or packaged()).items()}
        _refuse_duplicates(parsed)
        providers, models, by_name = [], [], {}
        keys: dict[str, Secret] = {}
        redirected = set()
        for file in parsed.values():
            provider = file.provider()
            if base_url := _base_url(environ, provider.base_url_env):
                provider = replace(provider, base_url=base_url)
                redirected.add(provider.slug)
            elif provider.on_request:
                continue
            if key := _api_key(environ, provider.api_key_env):
                keys[provider.slug] = key
            providers.append(provider)
            for row in file.models:
                model = _model(row, provider)
                models.append(model)
                by_name.update({name.lower(): model for name in (row.slug, *row.aliases)})
        return cls(tuple(providers), tuple(models), by_name, keys, frozenset(redirected))

    def resolve(self, slug: str) -> Model:
        """The model of this slug or alias, in any case of letters. Raises UnknownModel."""
        model = self._by_name.get(slug.lower())
        if model is None:
            raise UnknownModel(f"There is no model {slug[:80]!r} in the catalogue.")
        return model

    def models(self) -> tuple[Model, ...]:
        """All models on offer, as the files order them."""
        return self._models

    def providers(self) -> tuple[Provider, ...]:
        """All providers on offer."""
        return self._providers

    def credentials(self, provider: Provider) -> Secret | None:
        """The provider's API key, if one is set."""
        return self._keys.get(provider.slug)

    def configured(self, provider: Provider) -> bool:
        """Whether a call can be tried: a key is set or not needed, or the address is the operator's own."""
        return not provider.requires_key or provider.slug in self._keys or provider.slug in self._redirected


def packaged() -> dict[str, str]:
    """The TOML texts that come with this package, by file name, in order of name."""
    directory = files("qlaud_actors.providers").joinpath("catalog")
    found = [entry for entry in directory.iterdir() if entry.name.endswith(".toml")]
    return {entry.name: entry.read_text("utf-8") for entry in sorted(found, key=lambda e: e.name)}


def parse(name: str, text: str) -> ProviderFile:
    """One file, checked by itself. Raises CatalogError that begins with its name."""
    try:
        file = msgspec.toml.decode(text, type=ProviderFile)
    except msgspec.DecodeError as error:
        raise CatalogError(f"{name}: {error}") from None
    problem = _problem(file)
    if problem:
        raise CatalogError(f"{name}: {problem}")
    return file


def _problem(file: ProviderFile) -> str | None:
    if file.wire not in WIRES:
        return f"unknown wire `{file.wire}`; known are {', '.join(sorted(WIRES))}"
    if not (_is_url(file.base_url, ("https",)) or (file.on_request and not file.base_url)):
        return "base_url must be an https URL (or empty for a provider on request)"
    if not file.models:
        return "a provider needs at least one model"
    return next(filter(None, map(_row_problem, file.models)), None)


def _row_problem(row: ModelRow) -> str | None:
    steps = [tier.above_input_tokens for tier in row.tiers]
    if steps != sorted(set(steps)):
        return f"{row.slug}: tiers must ascend by above_input_tokens"
    if row.max_output_tokens > row.context_window:
        return f"{row.slug}: max_output_tokens is larger than the context window"
    return None


def _refuse_duplicates(parsed: Mapping[str, ProviderFile]) -> None:
    owner: dict[str, str] = {}
    for name, file in parsed.items():
        models = [slug for row in file.models for slug in (row.slug, *row.aliases)]
        for key in (f"provider {file.slug}", *(f"model {slug}" for slug in models)):
            if key.lower() in owner:
                raise CatalogError(f"{name}: {key} is already in {owner[key.lower()]}")
            owner[key.lower()] = name


def _model(row: ModelRow, provider: Provider) -> Model:
    checked = row.checked.isoformat()
    tiers = tuple(Tier(tier.above_input_tokens, tier.rates()) for tier in row.tiers)
    return Model(
        slug=row.slug,
        upstream=row.upstream or row.slug,
        display_name=row.display_name,
        provider=provider,
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        capabilities=row.capabilities,
        price=Price(row.price.rates(), tiers, f"{provider.slug}/{row.slug}@{checked}"),
        source=row.source,
        checked=checked,
        author=row.author or provider.display_name,
        description=row.description,
        task=row.task,
        image_tokens=row.image_tokens,
    )


def _base_url(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name, "").strip().rstrip("/")
    if value and not _is_url(value, ("https", "http")):
        raise CatalogError(f"{name} must be an http or https URL without query")
    return value or None


def _api_key(environ: Mapping[str, str], name: str) -> Secret | None:
    value = environ.get(name, "").strip()
    if not (value.isascii() and value.isprintable()):  # it becomes a header
        raise CatalogError(f"{name} must be printable ASCII")
    return Secret(value) if value else None


def _is_url(value: str, schemes: Iterable[str]) -> bool:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname) and not parts.query and not parts.fragment
