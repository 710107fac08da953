"""Our prices beside those of another table. Pure."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qlaud_actors.prices.genai import GenaiTable
from qlaud_actors.prices.model import shown
from qlaud_actors.prices.sanity import doubts
from qlaud_actors.prices.spelling import Theirs
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.pricing import Dated
from qlaud_actors.usage import Price

SOURCE = re.compile(r"genai-prices (\S+): ([^/]+)/([^,]+)(.*)")
"""How a row names where its price is from: `genai-prices <version>: <provider>/<id>[, words]`."""

COVERS = frozenset({"price", "tiers", "scheduled"})
"""What genai-prices knows of a price; a fee per call is ours."""

Reference = Mapping[tuple[str, str], Theirs]
"""By our provider and slug."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A model whose price differs."""

    model: Model
    theirs: Theirs
    ours_figures: dict[str, Any]
    their_figures: dict[str, Any]
    doubts: tuple[str, ...]

    def steps(self, begins_ms: int) -> list[tuple[int, dict[str, Any]]]:
        """What has to be set from which moment on, so that the model costs what it costs there."""
        ours, theirs = ({**figures} for figures in (self.ours_figures, self.their_figures))
        announced_here, announced = ours.pop("scheduled"), theirs.pop("scheduled")
        found = [(begins_ms, theirs)] if ours != theirs else []
        if not found and announced == announced_here:
            return []
        later = ((int(begins), figures) for begins, figures in announced.items() if int(begins) > begins_ms)
        for begins, figures in later:
            known = {name: figures[name] for name in figures if name in (self.theirs.covers or figures)}
            found.append((begins, {**theirs, **known}))
        return found


def from_genai(models: Iterable[Model], table: GenaiTable, day: dt.date) -> dict[tuple[str, str], Theirs]:
    """What genai-prices says of the models whose `source` names it."""
    found: dict[tuple[str, str], Theirs] = {}
    for model in models:
        named = SOURCE.fullmatch(model.source)
        listed = table.models.get((named[2], named[3])) if named else None
        if named and listed:
            source = f"genai-prices {table.version}: {named[2]}/{named[3]}{named[4]}"
            row, scheduled = listed.row(day), listed.scheduled(day, source)
            found[model.provider.slug, model.slug] = Theirs(row, source, day, scheduled, COVERS)
    return found


def differences(models: Iterable[Model], reference: Reference) -> list[Difference]:
    """The models that cost something else there, now or as announced. Those it does not know are left out."""
    found = []
    for model in models:
        theirs = reference.get((model.provider.slug, model.slug))
        if theirs is None:
            continue
        price = theirs.row.priced(model.provider.slug, model.slug, theirs.checked.isoformat())
        coming = [row.dated(model.provider.slug, model.slug) for row in theirs.scheduled]
        ours, other = _figures(model.price, model.scheduled), _figures(price, coming)
        if theirs.covers:  # of what it does not know, it says nothing
            other = {name: (other if name in theirs.covers else ours)[name] for name in ours}
        if ours != other:
            doubted = doubts(price, model.price if model.priced else None)
            found.append(Difference(model, theirs, ours, other, tuple(doubted)))
    return found


def table(found: Iterable[Difference]) -> str:
    """Differences for people: a line for each figure that differs, with doubts under them."""
    lines: list[str] = []
    for one in found:
        lines.append(f"{one.model.provider.slug}/{one.model.slug}  ({one.theirs.source})")
        ours, theirs = _flat(one.ours_figures), _flat(one.their_figures)
        lines += [
            f"    {name:<32} {_said(ours.get(name)):>16} → {_said(theirs.get(name)):>16}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]
        lines += [f"    doubtful: {words}" for words in one.doubts]
    return "\n".join(lines)


def difference_object(one: Difference) -> dict[str, Any]:
    """The same for programs."""
    return {
        "provider": one.model.provider.slug,
        "model": one.model.slug,
        "ours": one.ours_figures,
        "theirs": one.their_figures,
        "source": one.theirs.source,
        "doubts": list(one.doubts),
    }


def _figures(price: Price, coming: Iterable[Dated]) -> dict[str, Any]:
    scheduled = {str(dated.begins_ms): shown(dated.price) for dated in coming}
    return {**shown(price), "scheduled": scheduled}


def _flat(figures: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(figures, dict):
        pairs = [(f"{prefix}.{name}" if prefix else name, value) for name, value in figures.items()]
    elif isinstance(figures, list):
        pairs = [(f"{prefix}[{number}]", value) for number, value in enumerate(figures)]
    else:
        return {prefix: figures}
    return {name: leaf for path, value in pairs for name, leaf in _flat(value, path).items()}


def _said(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
