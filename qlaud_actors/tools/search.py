"""Ranks tools for an intent: by words and by meaning, with a prior for what is connected. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from qlaud_actors.embeddings.embedder import Vectors
from qlaud_actors.tools.search_document import SearchDocument
from qlaud_actors.tools.search_index import Index, Scores, by_words
from qlaud_actors.tools.search_intent import Brands, Intent

WORDS, MEANING = 0.5, 0.5
"""Shares of the two in the score, both of which are about 1 for a perfect match."""

NAMED = 0.2
"""More for the tools of a vendor that the intent names."""

MOOD = 0.03
"""More for what reads where the intent asks, for what changes where it orders; less the other way about."""

READY = 0.08
"""More for what can be called at once, a connected vendor's or the account's own: it decides between equals,
and yields to a better match."""

UNLIKE = 0.3
"""What shares no word with the intent must be as near as this in meaning."""

PER_FAMILY = 3
"""The most tools of one vendor on the first page, unless the intent names it."""

Status: TypeAlias = Literal["connected", "not_connected", "expired"]


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """How things stand with a vendor, for whom the search is made."""

    status: Status
    connected_as: str | None = None
    whose: Literal["end_user", "account"] | None = None


NOT_CONNECTED = ConnectionState("not_connected")


@dataclass(frozen=True, slots=True)
class Match:
    """What was found; `state` is None for what needs no connection."""

    document: SearchDocument
    score: float
    state: ConnectionState | None


def told(match: Match) -> dict[str, Any]:
    """A match as results say it."""
    state = match.state
    return {
        "name": match.document.name,
        "kind": match.document.kind,
        "description": match.document.description,
        "score": round(match.score, 3),
        "connector": match.document.connector,
        "status": state.status if state else None,
        "connected_as": (state.connected_as or None) if state else None,
        "whose": state.whose if state else None,
    }


@dataclass(frozen=True, slots=True)
class Nearness:
    """The intent's vector, and those of every index's texts, in the order of the indexes."""

    intent: Vectors
    texts: Sequence[Vectors]


def rank(
    intent: Intent,
    indexes: Sequence[Index],
    limit: int,
    brands: Brands,
    states: Mapping[str, ConnectionState],
    nearness: Nearness | None = None,
) -> list[Match]:
    """What fits an intent, best first; equal ones by name. Without vectors it goes by words alone.

    A name that two indexes have is the later one's. What fits neither by words nor by meaning is left out,
    unless that leaves nothing and all fits into `limit`: few tools are better judged by the reader.
    """
    words = np.concatenate([np.zeros(0), *by_words(intent.stems, indexes)])
    meaning = None
    if nearness is not None:
        parts = [i.meaning(v, nearness.intent) for i, v in zip(indexes, nearness.texts, strict=True)]
        meaning = np.concatenate([np.zeros(0), *parts])
    documents = [document for index in indexes for document in index.documents]
    named = brands.named(intent.text, _Known(indexes))
    scores = words if meaning is None else WORDS * words + MEANING * meaning
    fits = (words > 0) if meaning is None else (words > 0) | (meaning >= UNLIKE)
    fits |= np.array([document.connector in named for document in documents], bool)
    if not fits.any() and len(documents) <= limit:
        fits[:] = True
    scores = scores + np.array([_prior(d, intent, named, states) for d in documents])
    ordered = _ordered(documents, scores, fits)
    return [
        Match(documents[at], float(scores[at]), _state(documents[at], states))
        for at in _mixed(ordered, documents, named, limit)
    ]


@dataclass(frozen=True, slots=True)
class _Known:
    """The stems of all indexes."""

    indexes: Sequence[Index]

    def __contains__(self, stem: object) -> bool:
        return any(stem in index.postings for index in self.indexes)


def _state(document: SearchDocument, states: Mapping[str, ConnectionState]) -> ConnectionState | None:
    return states.get(document.connector, NOT_CONNECTED) if document.connector else None


def _prior(
    document: SearchDocument, intent: Intent, named: frozenset[str], states: Mapping[str, ConnectionState]
) -> float:
    state = _state(document, states)
    prior = MOOD * intent.asks * (1 if document.effect == "read" else -1)
    if document.connector in named:
        prior += NAMED
    if state is None or state.status == "connected":
        prior += READY
    return prior


def _ordered(documents: Sequence[SearchDocument], scores: Scores, fits: np.ndarray) -> list[int]:
    """Positions of what fits, best first; of one name only the last."""
    last = {document.name: at for at, document in enumerate(documents)}
    kept = [at for at in last.values() if fits[at]]
    return sorted(kept, key=lambda at: (-round(float(scores[at]), 6), documents[at].name))


def _mixed(
    ordered: Sequence[int], documents: Sequence[SearchDocument], named: frozenset[str], limit: int
) -> list[int]:
    """The first page: what is too much of one family comes behind, and only where there is room."""
    page: list[int] = []
    behind: list[int] = []
    count: Counter[str] = Counter()
    for at in ordered:
        if len(page) == limit:
            break
        family = documents[at].family
        count[family] += 1
        much = count[family] > PER_FAMILY and family not in named
        (behind if much else page).append(at)
    return (page + behind)[:limit]
