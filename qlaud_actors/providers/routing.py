"""In which order hosts and models are asked. Pure."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from qlaud_actors.errors import InvalidRequest, PriceUnknown, ScopeMissing, UnknownModel
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Model

Hosts = tuple[Model, ...]

TEXT = "text-generation"


def candidates(
    catalog: Catalog,
    slug: str,
    healthy: Callable[[Model], bool],
    fallbacks: Sequence[str] | None = None,
    allowed: Callable[[str], bool] | None = None,
    *,
    limited: bool = False,
    task: str = TEXT,
) -> Hosts:
    """Whom to ask for a model, in order: its healthy hosts, cheapest first; then those of its fallbacks,
    model by model; and whoever is not healthy at the very end.

    `fallbacks` are the caller's own (`models` in a request) and replace the catalogue's. `allowed` tells
    by slug what the caller's key may use, `task` what the models have to do. Only configured hosts are
    named; when there is none, the best one is, so that the caller hears what is missing. A host without a
    price is named where no other host has that model, and never to a key whose money is `limited`.
    Raises UnknownModel, ScopeMissing, PriceUnknown, InvalidRequest.
    """
    first = catalog.hosts(slug)
    if allowed and not allowed(first[0].slug):
        raise ScopeMissing(f"This key may not use the model {first[0].slug!r}.")
    if fallbacks is None:
        others = list(_on_offer(catalog, (other for host in first for other in host.fallbacks)))
    else:
        others = [catalog.hosts(other) for other in fallbacks]
    asked = [first, *(hosts for hosts in others if not allowed or allowed(hosts[0].slug))]
    for model in (hosts[0] for hosts in asked):
        if model.task != task:
            raise InvalidRequest(f"{model.slug} is a model for {model.task}: this asks for {task}.")
    groups = [_usable(catalog, hosts) for hosts in asked]
    if limited:
        _require_price(groups[0])
        groups = [hosts for hosts in groups if not hosts or hosts[0].priced]
    found = [host for hosts in groups for host in hosts]
    if len(found) == 1:
        return tuple(found)
    unique = tuple(dict.fromkeys(found)) or first[:1]
    return tuple(sorted(unique, key=lambda host: not healthy(host)))


def _usable(catalog: Catalog, hosts: Hosts) -> Hosts:
    """Configured hosts of a model; without a price only when none of them has one."""
    configured = tuple(host for host in hosts if catalog.configured(host.provider))
    return tuple(host for host in configured if host.priced) or configured


def _require_price(hosts: Hosts) -> None:
    if hosts and not hosts[0].priced:
        raise PriceUnknown(
            f"Nobody has said what the model {hosts[0].slug!r} costs: it may be used only with a key without "
            "a cap, of an account that pays afterwards."
        )


def _on_offer(catalog: Catalog, slugs: Iterable[str]) -> Iterator[Hosts]:
    """A model of the catalogue may be offered only on request, and nobody has asked."""
    for slug in slugs:
        with contextlib.suppress(UnknownModel):
            yield catalog.hosts(slug)
