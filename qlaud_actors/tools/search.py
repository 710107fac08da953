"""Ranks tools for an intent: BM25 over names, descriptions and parameter names. Pure.

Names weigh more than prose. Words are cut to a rough stem, so that "tickets" finds "ticket", and some
stand for one another, because people say "make" where tools say "create".
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from qlaud_actors.tools.model import Tool

K1, B = 1.2, 0.75
NAME_WEIGHT, DESCRIPTION_WEIGHT, PARAMETER_WEIGHT = 3.0, 1.0, 0.5
SYNONYM_WEIGHT = 0.4

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can could do for from have i in is it me my of on or please should that "
        "the this to want we what which will with would you your",
    )
)
_SYNONYMS = (
    "create make add new",
    "get find look lookup search fetch show read retrieve query check",
    "list all every",
    "send post write message notify tell",
    "update edit change modify set rename",
    "delete remove drop cancel",
    "ticket issue bug task",
    "mail email gmail inbox",
    "customer client user contact person",
    "where status track delivery",
    "calendar event meeting appointment schedule",
    "document doc page note file",
    "pay payment charge invoice refund",
    "image picture photo",
    "weather forecast temperature",
)


def rank(intent: str, tools: Sequence[Tool], limit: int) -> list[tuple[Tool, float]]:
    """The tools that fit an intent, best first, with scores; equal ones by name.

    Those that share no word with it are left out, unless that leaves none and all of them fit into
    `limit`: few tools are better judged by the reader.
    """
    documents = [_document(tool) for tool in tools]
    wanted = _expand(_stems(intent))
    lengths = [sum(document.values()) for document in documents]
    average = sum(lengths) / max(len(lengths), 1) or 1.0
    seen_in = Counter(term for document in documents for term in document)
    rarity = {
        term: weight * math.log(1 + (len(tools) - seen_in[term] + 0.5) / (seen_in[term] + 0.5))
        for term, weight in wanted.items()
        if term in seen_in
    }
    scored = [
        (
            tool,
            sum(
                rare * _saturated(document.get(term, 0.0), length / average) for term, rare in rarity.items()
            ),
        )
        for tool, document, length in zip(tools, documents, lengths, strict=True)
    ]
    found = [pair for pair in scored if pair[1] > 0]
    if not found and len(tools) <= limit:
        found = scored
    return sorted(found, key=lambda pair: (-pair[1], pair[0].name))[:limit]


def _document(tool: Tool) -> dict[str, float]:
    """Weighted counts of a tool's stems."""
    properties = tool.input_schema.get("properties")
    parameters = " ".join(properties) if isinstance(properties, dict) else ""
    counts: dict[str, float] = {}
    for text, weight in (
        (tool.name, NAME_WEIGHT),
        (tool.description, DESCRIPTION_WEIGHT),
        (parameters, PARAMETER_WEIGHT),
    ):
        for stem in _stems(text):
            counts[stem] = counts.get(stem, 0.0) + weight
    return counts


def _saturated(frequency: float, length: float) -> float:
    """BM25's share of one term: more of it helps ever less, and less so in long texts."""
    return frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length))


def _stems(text: str) -> list[str]:
    words = _WORD.findall(_CAMEL.sub(" ", text).lower())
    return [_stem(word) for word in words if word not in _STOP]


def _stem(word: str) -> str:
    """Without the ending of a plural or a verb: issues, issue → issu; sending → send; queries → query."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("s", "ing", "ed"):
        if len(word) - len(ending) >= 3 and word.endswith(ending) and not word.endswith("ss"):
            word = word.removesuffix(ending)
    return word.removesuffix("e") if len(word) > 3 else word


_GROUPS = tuple(frozenset(_stem(word) for word in group.split()) for group in _SYNONYMS)


def _expand(stems: list[str]) -> dict[str, float]:
    """The words of an intent, and for less those that may stand for them."""
    wanted = dict.fromkeys(stems, 1.0)
    for group in _GROUPS:
        if group.intersection(stems):
            for member in sorted(group):
                wanted.setdefault(member, SYNONYM_WEIGHT)
    return wanted
