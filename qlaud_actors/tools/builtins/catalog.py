"""All built-ins: the packaged files, each held against the connector that does its work."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

import msgspec

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.tools.builtins.model import PREFIX, Builtin, Offer


class BuiltinFileError(Exception):
    """A built-in's file is not usable; the message begins with its name."""


@dataclass(frozen=True, slots=True)
class Builtins:
    """Built-ins by provider, in the order of their names, and the connectors behind them."""

    offers: Mapping[str, Offer]
    connectors: ConnectorCatalog

    @classmethod
    def load(cls, connectors: ConnectorCatalog, sources: Mapping[str, str] | None = None) -> "Builtins":
        """Read all files. `sources` maps a file's name to its text; the package's when left out.

        Raises BuiltinFileError.
        """
        given = _packaged() if sources is None else sources
        offers = [_offer(name, text, connectors) for name, text in sorted(given.items())]
        return cls({offer.provider: offer for offer in offers}, connectors)

    def find(self, provider: str | None) -> Offer | None:
        """The built-in of this provider."""
        return self.offers.get(provider or "")

    @property
    def of_vendors(self) -> dict[str, str]:
        """Those that are an action of a connector, by provider: its slug."""
        return {name: offer.connector.slug for name, offer in self.offers.items() if offer.connector}


def _packaged() -> dict[str, str]:
    directory = files("qlaud_actors.tools.builtins").joinpath("catalog")
    found = [entry for entry in directory.iterdir() if entry.name.endswith(".toml")]
    return {entry.name: entry.read_text("utf-8") for entry in found}


def _offer(file: str, text: str, connectors: ConnectorCatalog) -> Offer:
    try:
        builtin = msgspec.convert(tomllib.loads(text), type=Builtin)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BuiltinFileError(f"{file}: {error}") from None
    slug, _, name = (builtin.action or "").partition("/")
    connector = connectors.find(slug)
    offer = Offer(builtin, connector, connector.action(name) if connector else None)
    if found := list(_problems(file, offer)):
        raise BuiltinFileError("\n".join(f"{file}: {problem}" for problem in found))
    return offer


def _problems(file: str, offer: Offer) -> Iterator[str]:
    builtin = offer.builtin
    if file != f"{builtin.name}.toml":
        yield f"its name is {builtin.name}, so it must be {builtin.name}.toml"
    if (builtin.action is None) == (builtin.code is None):
        yield "has either an `action` or `code`"
    elif builtin.action and offer.action is None:
        yield f"there is no action {builtin.action}"
    elif offer.connector and builtin.auth >= len(offer.connector.auth):
        yield f"{offer.connector.slug} has no way of signing in number {builtin.auth}"
    elif offer.auth and offer.auth.oauth2:
        yield "a credential of OAuth cannot be given as configuration"
    else:
        yield from _field_problems(offer)
    if builtin.code and builtin.effect is None:
        yield "code needs an `effect`"


def _field_problems(offer: Offer) -> Iterator[str]:
    known = offer.whole_schema["properties"].keys()
    names = [field.name for field in (*offer.credential, *offer.builtin.config)]
    if len(names) != len(set(names)):
        yield "two fields of the configuration have the same name"
    sets = [field.sets for field in offer.builtin.config if field.sets]
    for name in (*offer.builtin.shows, *offer.builtin.required, *sets):
        if name not in known:
            yield f"`{name}` is no input"
    hidden = known - set(offer.builtin.shows) if offer.builtin.shows else set()
    for name in hidden.intersection(offer.whole_schema.get("required", ())) - set(sets):
        yield f"`{name}` is required, but neither shown nor set"


__all__ = ["PREFIX", "BuiltinFileError", "Builtins"]
