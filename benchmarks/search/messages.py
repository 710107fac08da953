"""A deterministic set of conversations with labelled queries: 2,000 messages or more, 210 queries.

Seventy situations written by hand (`tests/data/message_search.txt`), each with two messages that belong
together and three queries: by a word that stands in them, a paraphrase, and one without any word in common.
Around them lie fillers that others said.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[2] / "tests" / "data"
KINDS = ("words", "paraphrase", "no shared word")

NAMES = ("Noor", "Tomás", "Keiko", "Bram", "Sade", "Elif", "Marek", "Joy", "Ravi", "Greta", "Omar", "Lin")
CITIES = ("Ghent", "Osaka", "Turin", "Leeds", "Quito", "Tampere", "Cork", "Graz", "Nantes", "Izmir", "Malmö")
THINGS = (
    *("blue paint", "marzipan", "folding chairs", "green tea", "batteries", "old maps", "candles", "lemons"),
    *("the logo", "spare keys", "paper lanterns", "the budget", "concert tickets", "umbrellas", "gnomes"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for, and which situation it is about."""

    text: str
    kind: str
    situation: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message; of no situation (None) when it is a filler."""

    role: str
    text: str
    situation: int | None


def situations() -> list[list[str]]:
    """The five parts of each."""
    return [[part.strip() for part in line.split("|")] for line in _lines("message_search.txt")]


def queries() -> list[Query]:
    """All labelled queries."""
    return [
        Query(text, kind, number)
        for number, parts in enumerate(situations())
        for kind, text in zip(KINDS, parts[2:], strict=True)
    ]


def messages(count: int = 2_000, sentences: int = 1) -> list[Message]:
    """So many messages in a random order that is always the same; the situations are among them.

    Fillers have up to so many `sentences`. There are 27 to choose from: 100,000 messages of one each would be
    nearly all alike, as those of people are not.
    """
    rng = random.Random(20261124)
    pairs = [
        [Message("user", parts[0], number), Message("assistant", parts[1], number)]
        for number, parts in enumerate(situations())
    ]
    templates = _lines("message_search_fillers.txt")
    while 2 * len(pairs) < count:
        pairs.append(
            [Message(role, _filler(rng, templates, sentences), None) for role in ("user", "assistant")]
        )
    rng.shuffle(pairs)
    return [message for pair in pairs for message in pair]


def content_words(text: str) -> set[str]:
    """The words of a text that carry meaning, without their endings."""
    words = re.findall(r"[^\W\d_]{3,}", text.lower())
    return {re.sub(r"(ing|ed|es|s)$", "", word) for word in words} - STOP


def _filler(rng: random.Random, templates: list[str], sentences: int) -> str:
    number = rng.randint(1, sentences) if sentences > 1 else 1
    return " ".join(_filled(rng, templates) for _ in range(number))


def _filled(rng: random.Random, templates: list[str]) -> str:
    return rng.choice(templates).format(
        name=rng.choice(NAMES),
        city=rng.choice(CITIES),
        thing=rng.choice(THINGS),
        day=rng.choice(DAYS),
        number=rng.randrange(2, 5_000),
    )


def _lines(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


_STOP_WORDS = """
    the and for with from that this was has have not but are you your our their his her its any all who how
    what when which why can may will would should does did been being after before about into over too very
    than then there they them some somebody more most much many one two between while where out off
"""
STOP = frozenset(_STOP_WORDS.split())
