"""Ranks tools for an intent: BM25 over names, descriptions and parameter names. Pure.

Names weigh more than prose. Words are cut to a rough stem, so that "tickets" finds "ticket", and a few
verbs stand for one another, because people say "make" where tools say "create".
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from qlaud_actors.tools.model import Tool

K1, B = 1.2, 0.75
NAME_WEIGHT, DESCRIPTION_WEIGHT, PARAMETER_WEIGHT = 3.0, 1.0, 0.5

_WORD = re.compile(r"[a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "i",
        "in",
        "is",
        "it",
        "me",
        "my",
        "of",
        "on",
        "or",
        "please",
        "that",
        "the",
        "this",
        "to",
        "we",
        "what",
        "with",
        "you",
    ]
)
_SYNONYMS = (
    "create make add new open file",
    "get find look lookup search fetch show read retrieve",
    "list all every",
    "send post write message notify",
    "update edit change modify set",
    "delete remove drop cancel",
    "ticket issue bug task",
    "mail email",
    "customer client user contact",
    "where status track",
)


def rank(intent: str, tools: Sequence[Tool], limit: int) -> list[tuple[Tool, float]]:
    """The tools that fit an intent, best first, with scores; those that share no word are left out."""
    documents = [_document(tool) for tool in tools]
    wanted = _expand(_stems(intent))
    if not documents or not wanted:
        return []
    average = sum(sum(document.values()) for document in documents) / len(documents)
    seen_in = Counter(term for document in documents for term in document)
    scored = [
        (
            tool,
            sum(
                weight * _bm25(document, term, seen_in, len(documents), average)
                for term, weight in wanted.items()
            ),
        )
        for tool, document in zip(tools, documents, strict=True)
    ]
    found = [(tool, score) for tool, score in scored if score > 0]
    return sorted(found, key=lambda pair: (-pair[1], pair[0].name))[:limit]


def _document(tool: Tool) -> dict[str, float]:
    """Weighted counts of a tool's stems."""
    counts: Counter[str] = Counter()
    parameters = " ".join(map(str, (tool.input_schema.get("properties") or {}).keys()))
    for text, weight in (
        (tool.name, NAME_WEIGHT),
        (tool.description, DESCRIPTION_WEIGHT),
        (parameters, PARAMETER_WEIGHT),
    ):
        for stem in _stems(text):
            counts[stem] += weight  # type: ignore[assignment]
    return dict(counts)


def _bm25(document: dict[str, float], term: str, seen_in: Counter[str], total: int, average: float) -> float:
    frequency = document.get(term, 0.0)
    if not frequency:
        return 0.0
    rarity = math.log(1 + (total - seen_in[term] + 0.5) / (seen_in[term] + 0.5))
    length = 1 - B + B * sum(document.values()) / average
    return rarity * frequency * (K1 + 1) / (frequency + K1 * length)


def _stems(text: str) -> list[str]:
    words = _WORD.findall(_CAMEL.sub(" ", text).lower())
    return [_stem(word) for word in words if word not in _STOP]


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "es", "ed", "s"):
        if len(word) - len(ending) >= 3 and word.endswith(ending):
            return word.removesuffix(ending) + ("y" if ending == "ies" else "")
    return word


def _expand(stems: list[str]) -> dict[str, float]:
    """The words of an intent, and for less those that may stand for them."""
    wanted = dict.fromkeys(stems, 1.0)
    for group in _SYNONYMS:
        members = [_stem(word) for word in group.split()]
        if any(member in stems for member in members):
            for member in members:
                wanted.setdefault(member, 0.4)
    return wanted
