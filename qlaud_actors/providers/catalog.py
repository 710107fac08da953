"""Providers, models and prices: one TOML file each in `catalog/`, checked as a whole at start-up.

A model that several files name has several hosts; an operator's own files (`QLAUD_CATALOG_DIR`) are laid
over the packaged ones.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qlaud_actors.errors import ProviderNotConfigured, UnknownModel
from qlaud_actors.providers.book import Clock, PriceBook, now_ms
from qlaud_actors.providers.catalog_files import CatalogError, ProviderFile, is_url, packaged, parse, read
from qlaud_actors.providers.model import Model, Provider
from qlaud_actors.settings import Secret
from qlaud_actors.usage import Usage

__all__ = ["Catalog", "CatalogError", "packaged", "parse"]

TYPICAL = Usage(input=3_000, output=1_000)
"""By what prices are compared: a question with some history and its answer."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What this process offers. Built by `Catalog.load`; only its prices change, in their book."""

    _providers: tuple[Provider, ...]
    prices: PriceBook
    """Models by slug as the files spell it, with the price in force."""
    _slugs: Mapping[str, str]
    """Slugs and aliases in lower case; no two differ by case alone."""
    _keys: Mapping[str, Secret]
    _redirected: Collection[str]
    """Providers whose base URL was set by the environment."""

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str],
        sources: Mapping[str, str] | None = None,
        directory: Path | None = None,
        clock: Clock = now_ms,
    ) -> "Catalog":
        """Read all files and apply what `environ` says of base URLs and keys.

        `sources` maps a file's name to its TOML text; the files of the package when left out. The files
        of `directory` are laid over them. Raises CatalogError.
        """
        parsed = read(packaged() if sources is None else sources, directory)
        slugs = _slugs(parsed)
        providers: list[Provider] = []
        hosts: dict[str, list[Model]] = {}
        keys: dict[str, Secret] = {}
        redirected = set()
        for file in parsed.values():
            provider = file.provider()
            if base_url := _base_url(environ, provider.base_url_env):
                provider = replace(provider, base_url=base_url)
                redirected.add(provider.slug)
            elif provider.on_request and not provider.base_url:
                continue
            if key := _api_key(environ, provider.api_key_env):
                keys[provider.slug] = key
            providers.append(provider)
            for row in file.models:
                hosts.setdefault(row.slug, []).append(row.model(provider))
        empty = PriceBook({}, tuple)
        catalog = cls(tuple(providers), empty, slugs, keys, frozenset(redirected))
        return replace(catalog, prices=PriceBook(hosts, catalog._ordered, clock))

    def resolve(self, slug: str) -> Model:
        """The model of this slug or alias at its best host, in any case of letters. Raises UnknownModel."""
        return self.hosts(slug)[0]

    def hosts(self, slug: str) -> tuple[Model, ...]:
        """The model at every host that offers it: configured ones first, then the cheapest.

        Raises UnknownModel.
        """
        found = self.prices.table().get(self._slugs.get(slug.lower(), ""))
        if found is None:
            raise UnknownModel(f"There is no model {slug[:80]!r} in the catalogue.")
        return found

    def models(self) -> tuple[Model, ...]:
        """All models on offer, each at its best host, as the files order them."""
        return tuple(found[0] for found in self.prices.table().values())

    def providers(self) -> tuple[Provider, ...]:
        """All providers on offer."""
        return self._providers

    def credentials(self, provider: Provider) -> Secret | None:
        """The provider's API key, if one is set."""
        return self._keys.get(provider.slug)

    def require_configured(self, model: Model) -> None:
        """Raises ProviderNotConfigured when there is no key for the model's provider."""
        provider = model.provider
        if not self.configured(provider):
            raise ProviderNotConfigured(
                f"No API key is set for {provider.display_name}: set {provider.api_key_env}."
            )

    def configured(self, provider: Provider) -> bool:
        """Whether a call can be tried: a key is set or not needed, or the address is the operator's own."""
        return not provider.requires_key or provider.slug in self._keys or provider.slug in self._redirected

    def _ordered(self, hosts: Sequence[Model]) -> tuple[Model, ...]:
        return tuple(sorted(hosts, key=lambda host: (not self.configured(host.provider), _preference(host))))


def _preference(model: Model) -> tuple[bool, int, bool]:
    """The smaller, the sooner asked: the cheaper host (an unpriced one last); of equals, the author's own."""
    return not model.priced, model.price.cost_picos(TYPICAL), model.author != model.provider.display_name


def _slugs(parsed: Mapping[str, ProviderFile]) -> dict[str, str]:
    """Every name of a model in lower case with the slug that it stands for; a name stands for one."""
    providers: dict[str, str] = {}
    slugs: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name, file in parsed.items():
        if file.slug.lower() in providers:
            raise CatalogError(f"{name}: provider {file.slug} is already in {providers[file.slug.lower()]}")
        providers[file.slug.lower()] = name
        seen = set()
        for row in file.models:
            for spelled in (row.slug, *row.aliases):
                known = slugs.setdefault(spelled.lower(), row.slug)
                first = owner.setdefault(spelled.lower(), name)
                if known != row.slug or spelled.lower() in seen:
                    raise CatalogError(f"{name}: model {spelled} is already in {first}")
                seen.add(spelled.lower())
    for name, file in parsed.items():
        for row in file.models:
            if unknown := [slug for slug in row.fallbacks if slug.lower() not in slugs]:
                raise CatalogError(f"{name}: {row.slug}: there is no model {unknown[0]} to fall back to")
    return slugs


def _base_url(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name, "").strip().rstrip("/")
    if value and not is_url(value, ("https", "http")):
        raise CatalogError(f"{name} must be an http or https URL without query")
    return value or None


def _api_key(environ: Mapping[str, str], name: str) -> Secret | None:
    value = environ.get(name, "").strip()
    if not (value.isascii() and value.isprintable()):  # it becomes a header
        raise CatalogError(f"{name} must be printable ASCII")
    return Secret(value) if value else None
