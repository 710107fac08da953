"""Documents as an index: by words (BM25 over weighted fields) and by meaning (cosine of vectors). Pure.

A search goes over several indexes, of the catalogue and of an account's tools; how rare a word is follows
from all of them together.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from qlaud_actors.embeddings.embedder import Vectors
from qlaud_actors.tools.search_document import SearchDocument
from qlaud_actors.tools.search_words import Speller, alike

Scores: TypeAlias = NDArray[np.float64]

FIELDS = {"title": 3.0, "synonyms": 2.0, "description": 1.0, "about": 0.7, "parameters": 0.4}
"""How much a word weighs where it stands."""

LENGTH = {"title": 0.3, "synonyms": 0.5, "description": 0.5, "about": 0.0, "parameters": 0.3}
"""How much a long field dilutes its words: BM25's b, by field."""

SATURATION = 1.2
"""BM25's k1: more of a word helps ever less."""

ALIKE, MISTYPED = 0.45, 0.7
"""What a word that stands for another counts, and one that may have been meant."""

RARER = 1.3
"""How much rarer than a word of the intent one that stands for it may count."""

WHOLE, PHRASE = 0.4, 0.6
"""Shares of the vector of a whole document and of its nearest phrase."""


@dataclass(frozen=True, slots=True)
class Postings:
    """Which documents have a stem, and how much."""

    documents: NDArray[np.intp]
    weights: Scores


@dataclass(frozen=True, eq=False)
class Index:
    """Some documents. Equal only to itself."""

    documents: tuple[SearchDocument, ...]
    postings: Mapping[str, Postings]
    speller: Speller
    starts: NDArray[np.intp]
    """Where each document's phrases begin among all phrases."""

    @classmethod
    def of(cls, documents: Sequence[SearchDocument]) -> "Index":
        """Read the documents once."""
        postings = _postings(documents)
        counts = [len(document.phrases) for document in documents]
        starts = np.cumsum([0, *counts[:-1]]) if counts else np.zeros(0)
        return cls(tuple(documents), postings, Speller.of(postings), starts.astype(np.intp))

    def texts(self) -> list[str]:
        """What is to be turned into vectors: every document as a whole, then every phrase."""
        return [document.meaning for document in self.documents] + [
            phrase for document in self.documents for phrase in document.phrases
        ]

    def meaning(self, vectors: Vectors, intent: Vectors) -> Scores:
        """How near each document's meaning is; `vectors` are those of `texts`."""
        count = len(self.documents)
        if not count:
            return np.zeros(0)
        # Not `@`: that wakes the threads of BLAS, which on a busy machine wait for one another for longer.
        near = np.einsum("ij,j->i", vectors, intent)
        nearest = np.maximum.reduceat(near[count:], self.starts)
        return np.asarray(WHOLE * near[:count] + PHRASE * nearest, np.float64)


def by_words(stems: Sequence[str], indexes: Sequence[Index]) -> list[Scores]:
    """How well each document of each index fits the words; about 1 where all are in its name."""
    scores = [np.zeros(len(index.documents)) for index in indexes]
    possible = 0.0
    for stem in stems:
        terms = _terms(stem, indexes)
        if not terms:
            continue
        most = _rarity(stem, indexes) * RARER or math.inf
        weights = {term: weight * min(_rarity(term, indexes), most) for term, weight in terms.items()}
        possible += max(weights.values())
        for at, index in enumerate(indexes):
            scores[at] += _best(weights, index)
    return [score / (possible * (SATURATION + 1)) if possible else score for score in scores]


def _terms(stem: str, indexes: Sequence[Index]) -> dict[str, float]:
    """The stems that an intent's stem may be found by, and what each counts."""
    known = any(stem in index.postings for index in indexes)
    terms = (
        {stem: 1.0}
        if known
        else dict.fromkeys((meant for index in indexes for meant in index.speller.meant(stem)), MISTYPED)
    )
    for term in [*terms] or [stem]:
        for other in sorted(alike(term)):
            if any(other in index.postings for index in indexes):
                terms.setdefault(other, ALIKE)
    return terms


def _rarity(stem: str, indexes: Sequence[Index]) -> float:
    """BM25's idf over all indexes; 0 for what none has."""
    having = sum(len(index.postings[stem].documents) for index in indexes if stem in index.postings)
    total = sum(len(index.documents) for index in indexes)
    return math.log(1 + (total - having + 0.5) / (having + 0.5)) if having else 0.0


def _best(weights: Mapping[str, float], index: Index) -> Scores:
    """For each document the best of the terms: those that stand for one another count once."""
    best = np.zeros(len(index.documents))
    for term, weight in weights.items():
        if found := index.postings.get(term):
            frequency = found.weights
            score = weight * frequency * (SATURATION + 1) / (frequency + SATURATION)
            best[found.documents] = np.maximum(best[found.documents], score)
    return best


def _postings(documents: Sequence[SearchDocument]) -> dict[str, Postings]:
    average = {
        name: sum(len(document.stems[name]) for document in documents) / max(len(documents), 1) or 1.0
        for name in FIELDS
    }
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for at, document in enumerate(documents):
        for name, weight in FIELDS.items():
            stems = document.stems[name]
            diluted = 1 - LENGTH[name] + LENGTH[name] * len(stems) / average[name]
            for stem, count in Counter(stems).items():
                found[stem][at] = found[stem].get(at, 0.0) + weight * count / diluted
    return {
        stem: Postings(np.array([*where], np.intp), np.array([*where.values()]))
        for stem, where in found.items()
    }
