"""Ours beside a provider's: by day and model, each figure that both have, with how far they are apart."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from qlaud_actors.providers.model import Model
from qlaud_actors.reconcile.exports import BUCKETS, COST, PICOS_PER_USD, Export, Line

FIGURES = (*BUCKETS, "requests", COST)
ALL_MODELS = "(all models)"

_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})\Z")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ: a share of the larger figure; for money also an amount, whichever is more."""

    percent: Decimal = Decimal(1)
    usd: Decimal = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one model and day, ours and theirs."""

    day: date
    model: str
    figure: str
    ours: int
    theirs: int

    @property
    def percent(self) -> Decimal:
        """How much more (or, below zero, less) we have than they, in percent of theirs."""
        if self.theirs == 0:
            return Decimal(0) if self.ours == 0 else Decimal(100)
        return Decimal(self.ours - self.theirs) * 100 / self.theirs

    def beyond(self, tolerance: Tolerance) -> bool:
        """Whether it is more than may be."""
        apart = abs(self.ours - self.theirs)
        if self.figure == COST and apart <= tolerance.usd * PICOS_PER_USD:
            return False
        return apart * 100 > tolerance.percent * max(self.ours, self.theirs)


class Names:
    """A provider's models by every name that it or we call them; each has one name here: the provider's."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._known: dict[str, str] = {}
        for model in models:
            for name in (model.upstream, model.slug, model.display_name):
                self._known.setdefault(name.lower(), model.upstream)

    def of(self, name: str) -> str:
        """What a model is called here; a dated snapshot is its model, an unknown one stays as it is."""
        lower = name.lower()
        plain = _SNAPSHOT.sub("", lower)
        return self._known.get(lower) or self._known.get(plain) or self._snapshot_of(plain) or plain

    def _snapshot_of(self, plain: str) -> str | None:
        """Our catalogue may name a snapshot where they name the model."""
        return next((kept for name, kept in self._known.items() if _SNAPSHOT.sub("", name) == plain), None)


def compare(ours: Iterable[Line], theirs: Export, names: Names) -> list[Difference]:
    """Every figure that they give, beside ours; also what only we have, of the figures that they give.

    A figure that they add up over all models of a day is compared so.
    """
    grouped = {"ours": _added_up(ours, names), "theirs": _added_up(theirs.lines, names)}
    given = {figure for figures in grouped["theirs"].values() for figure in figures}
    split = given - {
        figure for (_, model), found in grouped["theirs"].items() if model == ALL_MODELS for figure in found
    }
    left = _folded(grouped["ours"], given, split)
    right = _folded(grouped["theirs"], given, split)
    return [
        Difference(day, model, figure, left.get((day, model), {}).get(figure, 0), theirs_figure)
        for day, model in sorted({*left, *right})
        for figure in FIGURES
        if figure in given and (figure in split) == (model != ALL_MODELS)
        for theirs_figure in [right.get((day, model), {}).get(figure, 0)]
    ]


Sums = dict[tuple[date, str], dict[str, int]]


def _added_up(lines: Iterable[Line], names: Names) -> Sums:
    sums: Sums = defaultdict(lambda: defaultdict(int))
    for line in lines:
        model = ALL_MODELS if line.model is None else names.of(line.model)
        for figure, value in line.figures.items():
            sums[line.day, model][figure] += value
    return sums


def _folded(sums: Sums, given: set[str], split: set[str]) -> Sums:
    """Figures that they do not split by model, added up over all models."""
    folded: Sums = defaultdict(lambda: defaultdict(int))
    for (day, model), figures in sums.items():
        for figure in given & figures.keys():
            folded[day, model if figure in split else ALL_MODELS][figure] += figures[figure]
    return folded
