"""The price book: every model at every host with the price in force, by the moment of asking.

Everything is worked out when prices become known: a table of hosts for the present and one for each
change to come. Asking is two look-ups, and no process has to do anything at the moment of a change.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from qlaud_actors.providers.model import Model
from qlaud_actors.providers.pricing import Dated, Override, Timeline, in_force, overlaid

Hosts = tuple[Model, ...]
Clock = Callable[[], int]


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000_000


class PriceBook:
    """Models by slug with their prices over time; the only thing in a catalogue that changes."""

    def __init__(
        self,
        hosts: Mapping[str, Sequence[Model]],
        order: Callable[[Sequence[Model]], Hosts],
        clock: Clock = now_ms,
    ) -> None:
        self._files = hosts
        self._order = order
        self.clock = clock
        self.take(())

    def take(self, overrides: Sequence[Override]) -> None:
        """Work the tables out anew with these overrides, in the order they were made, over the files."""
        now = self.clock()
        changed: dict[tuple[str, str], list[Override]] = {}
        for override in overrides:
            changed.setdefault((override.provider, override.model), []).append(override)
        self._timelines = {
            (host.provider.slug, slug): overlaid(
                (Dated(0, host.price, host.source, host.checked), *host.scheduled),
                changed.get((host.provider.slug, slug), ()),
            )
            for slug, found in self._files.items()
            for host in found
        }
        moving = {slug for (_, slug), line in self._timelines.items() if len(line) > 1}
        still = {slug: self._order(found) for slug, found in self._files.items()}
        coming = {d.begins_ms for line in self._timelines.values() for d in line if d.begins_ms > now}
        starts = (now, *sorted(coming))
        # One assignment: who asks meanwhile gets the old tables or the new ones.
        self._plan = starts, tuple({**still, **self._changed(moving, start)} for start in starts)

    def table(self) -> Mapping[str, Hosts]:
        """Hosts by slug at this moment, the best choice first."""
        starts, tables = self._plan
        return tables[max(0, bisect_right(starts, self.clock()) - 1)]

    def timeline(self, provider: str, slug: str) -> Timeline | None:
        """All prices of a model at a provider, past ones too; None when it is not offered there."""
        return self._timelines.get((provider, slug))

    def _changed(self, slugs: Iterable[str], at_ms: int) -> Mapping[str, Hosts]:
        return {slug: self._order([self._priced(m, at_ms) for m in self._files[slug]]) for slug in slugs}

    def _priced(self, model: Model, at_ms: int) -> Model:
        dated = in_force(self._timelines[model.provider.slug, model.slug], at_ms)
        return replace(model, price=dated.price, source=dated.source, checked=dated.checked)
