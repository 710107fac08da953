"""How often a search finds: recall at 1, 5 and 10, and the mean reciprocal rank, over utterances."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.tool_search.distractors import DATA, distractors
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.embeddings.embedder import Embedder, Vectors
from qlaud_actors.tools.search import Nearness, rank
from qlaud_actors.tools.search_document import of_connector, of_tools
from qlaud_actors.tools.search_index import Index
from qlaud_actors.tools.search_intent import Brands, Intent
from qlaud_actors.tools.search_vectors import key_of, read_packaged

PAGE = 10


@dataclass(frozen=True, slots=True)
class Utterance:
    """What somebody says, and the tools that are right for it."""

    text: str
    right: frozenset[str]


@dataclass(frozen=True, slots=True)
class Quality:
    """Shares of the utterances with a right tool among the first, and the mean of 1/rank."""

    recall_1: float
    recall_5: float
    recall_10: float
    mrr: float


def utterances(name: str) -> list[Utterance]:
    """Those of a file, `dev` or `held_out`."""
    lines = (DATA / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    parts = (line.split("\t") for line in lines)
    return [Utterance(text, frozenset(right.split(","))) for text, right in parts]


def measure(asked: Sequence[Utterance], search: Callable[[str], Sequence[str]]) -> Quality:
    """The quality of a search, which gives names, best first."""
    ranks = [_rank(search(one.text)[:PAGE], one.right) for one in asked]
    recall = [sum(found <= most for found in ranks) / len(ranks) for most in (1, 5, PAGE)]
    return Quality(recall[0], recall[1], recall[2], sum(1 / found for found in ranks) / len(ranks))


def table(found: Mapping[str, Quality]) -> str:
    """A line for each search."""
    lines = [f"{'':12}{'recall@1':>10}{'recall@5':>10}{'recall@10':>11}{'MRR':>8}"]
    for name, quality in found.items():
        shares = f"{quality.recall_1:10.3f}{quality.recall_5:10.3f}{quality.recall_10:11.3f}"
        lines.append(f"{name:12}{shares}{quality.mrr:8.3f}")
    return "\n".join(lines) + "\n"


def _rank(names: Iterable[str], right: frozenset[str]) -> float:
    return next((at for at, name in enumerate(names, 1) if name in right), math.inf)


class Subjects:
    """The search and the plainer ones that it is held against, over the catalogue and the distractors."""

    def __init__(self) -> None:
        connectors = list(ConnectorCatalog.load({}).connectors.values())
        self.catalogue = Index.of([d for connector in connectors for d in of_connector(connector)])
        self.registered = Index.of(of_tools(distractors()))
        self.indexes = (self.catalogue, self.registered)
        self.documents = self.catalogue.documents + self.registered.documents
        self.brands = Brands.of(connectors)
        self.embedder = Embedder()
        self._intents: dict[str, Vectors] = {}
        self.vectors = [self._vectors(index) for index in self.indexes]
        self.plain = PlainBM25([document.meaning for document in self.documents])
        self.plain_vectors = np.concatenate(
            [
                vectors[: len(index.documents)]
                for index, vectors in zip(self.indexes, self.vectors, strict=True)
            ]
        )

    def _vectors(self, index: Index) -> Vectors:
        """Of the index's texts; those that are not packaged are computed."""
        known = dict(read_packaged())
        missing = [text for text in index.texts() if key_of(text) not in known]
        known |= zip(map(key_of, missing), self.embedder.embed(missing), strict=True)
        return np.array([known[key_of(text)] for text in index.texts()], np.float32)

    def all(self) -> dict[str, Callable[[str], list[str]]]:
        """By name: the product's search first."""
        return {
            "search": self.hybrid,
            "words only": self.words,
            "BM25": self.bm25,
            "embeddings": self.embeddings,
            "regex": self.regex,
        }

    def intent(self, text: str) -> Vectors:
        """The vector of an intent, remembered: several subjects ask for it."""
        if text not in self._intents:
            self._intents[text] = self.embedder.embed([text])[0]
        return self._intents[text]

    def hybrid(self, text: str) -> list[str]:
        """The search of the product."""
        nearness = Nearness(self.intent(text), self.vectors)
        found = rank(Intent.read(text), self.indexes, PAGE, self.brands, {}, nearness)
        return [match.document.name for match in found]

    def words(self, text: str) -> list[str]:
        """The search of the product while there are no vectors."""
        return [m.document.name for m in rank(Intent.read(text), self.indexes, PAGE, self.brands, {})]

    def bm25(self, text: str) -> list[str]:
        """Plain BM25 over the same text: vendor, title, synonyms and description."""
        return self._best(self.plain.scores(text))

    def embeddings(self, text: str) -> list[str]:
        """Cosine with the vector of that text."""
        return self._best(self.plain_vectors @ self.intent(text))

    def regex(self, text: str) -> list[str]:
        """How many of the words occur in that text, as a pattern of alternatives."""
        words = set(re.findall(r"\w{3,}", text.lower()))
        pattern = re.compile("|".join(map(re.escape, sorted(words))) or "$^", re.IGNORECASE)
        hits = [len({hit.lower() for hit in pattern.findall(doc)}) for doc in self.plain.texts]
        return self._best(np.array(hits, float))

    def _best(self, scores: "np.ndarray[tuple[int], np.dtype[np.floating]]") -> list[str]:
        order = sorted(range(len(scores)), key=lambda at: (-scores[at], self.documents[at].name))
        return [self.documents[at].name for at in order[:PAGE]]


class PlainBM25:
    """Okapi BM25 as the books have it: words as they are, k1 = 1.2, b = 0.75."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.counts = [Counter(re.findall(r"[a-z0-9]+", text.lower())) for text in texts]
        self.lengths = np.array([counts.total() for counts in self.counts])

    def scores(self, text: str) -> "np.ndarray[tuple[int], np.dtype[np.floating]]":
        """Of every text."""
        scores = np.zeros(len(self.counts))
        relative = self.lengths / self.lengths.mean()
        for term in dict.fromkeys(re.findall(r"[a-z0-9]+", text.lower())):
            counts = np.array([counts[term] for counts in self.counts], float)
            having = int((counts > 0).sum())
            idf = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
            scores += idf * counts * 2.2 / (counts + 1.2 * (0.25 + 0.75 * relative))
        return scores
