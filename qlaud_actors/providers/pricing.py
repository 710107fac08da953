"""Prices over time: which one is in force at a moment, and what it is called. Pure.

A call costs what was in force when its hold was placed: the hold and the settlement read the same
`Model`, which was looked up once. So the hold is a bound even when the price changes in mid-call.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import msgspec

from qlaud_actors.usage import Price, Rates

HASH_DIGITS = 8

UNPRICED = Price(Rates(0, 0, 0, 0, 0), (), "unpriced")
"""The price of a model that nobody has priced: costs nothing, and is refused where money is limited."""


@dataclass(frozen=True, slots=True)
class Dated:
    """A price and the moment from which it counts (ms since the epoch; 0: since ever)."""

    begins_ms: int
    price: Price
    source: str
    """Where the price was read."""
    checked: str
    """When, ISO date."""
    overridden: bool = False
    """It was set through the API, not by a file."""


Timeline: TypeAlias = tuple[Dated, ...]
"""Prices of one model at one provider by their beginning; the first one counts since ever."""


@dataclass(frozen=True, slots=True)
class Override:
    """A price that the operator set through the API, or (None) the end of such prices."""

    provider: str
    model: str
    begins_ms: int
    price: Price | None
    source: str
    checked: str


def named(price: Price, provider: str, model: str, date: str) -> Price:
    """The price under the name that usage rows carry: whose it is, its date, and a hash of its figures."""
    return replace(price, version=f"{provider}/{model}@{date}#{content_hash(price)}")


def content_hash(price: Price) -> str:
    """A short hash of the figures: two prices that differ in one of them never share it.

    What is zero or empty does not count, so that a field added later changes no older name.
    """
    figures = {
        field.name: value
        for field in fields(price)
        if field.name != "version" and (value := _figures(price, field.name))
    }
    return hashlib.sha256(msgspec.json.encode(figures, order="sorted")).hexdigest()[:HASH_DIGITS]


def in_force(timeline: Timeline, at_ms: int) -> Dated:
    """The price that counts at a moment."""
    return [timeline[0], *(dated for dated in timeline[1:] if dated.begins_ms <= at_ms)][-1]


def overlaid(timeline: Timeline, overrides: Iterable[Override]) -> Timeline:
    """The timeline of the files with the operator's overrides, in the order they were made, over it.

    An override counts from its beginning until that of another one. An end takes back also those that
    would begin later, and gives the word back to the files.
    """
    over = _standing(overrides)
    if not over:
        return timeline
    merged = [dated for dated in timeline if dated.begins_ms < over[0].begins_ms]
    for override, following in zip(over, [*over[1:], None], strict=True):
        ends_ms = following.begins_ms if following else None
        if override.price is not None:
            merged.append(
                Dated(override.begins_ms, override.price, override.source, override.checked, overridden=True)
            )
            continue
        merged.append(replace(in_force(timeline, override.begins_ms), begins_ms=override.begins_ms))
        merged += [
            dated
            for dated in timeline[1:]
            if dated.begins_ms > override.begins_ms and (ends_ms is None or dated.begins_ms < ends_ms)
        ]
    return tuple(merged)


def _standing(overrides: Iterable[Override]) -> Sequence[Override]:
    """Those that later ones have not taken back, by their beginning."""
    standing: dict[int, Override] = {}
    for override in overrides:
        if override.price is None:
            standing = {begins: other for begins, other in standing.items() if begins < override.begins_ms}
        standing[override.begins_ms] = override
    return [standing[begins] for begins in sorted(standing)]


def _figures(price: Price, name: str) -> object:
    return msgspec.to_builtins(getattr(price, name))
