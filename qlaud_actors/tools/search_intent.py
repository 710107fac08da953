"""What an intent says: its words, the vendors that it names, whether it asks or orders. Pure."""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from qlaud_actors.connectors.model import Connector
from qlaud_actors.tools.search_words import Speller, stem, stems

_RAW = re.compile(r"[\w.]+")
_LETTERS = re.compile(r"[a-z']+")

_COURTESY = frozenset(
    re.findall(
        r"\w+",
        "please can could you i need to want would like hey we lets me just",
    )
)
_ASKS = frozenset(
    re.findall(
        r"\w+",
        "which what who whom whose when where why how is are am did do does has have any was were show list "
        "get find search look read check see fetch view display count locate browse catch know lookup "
        "latest recent all",
    )
)
_ORDERS = frozenset(
    re.findall(
        r"\w+",
        "create make add new open file raise register write draft log put attach insert send post message "
        "notify ping mail email tell text ring call dial update edit change modify set adjust correct "
        "replace rename fix bump raise lower delete remove drop erase trash cancel abort stop end close "
        "resolve finish complete mark archive hide assign reassign give hand comment reply answer respond "
        "react merge approve publish share let invite move copy duplicate upload save store book reserve "
        "schedule plan block postpone reschedule push refund charge bill pay subscribe unsubscribe sign "
        "pause mute silence restore resume run start trigger deploy redeploy promote roll rollback revert "
        "purge clear empty flush label tag star flag grant connect link remind record track submit propose "
        "squash take bring swap switch turn acknowledge ack escalate page build wipe",
    )
)


@dataclass(frozen=True, slots=True)
class Brands:
    """How intents name vendors: words and, for names of several, phrases; each with the slugs meant."""

    names: Mapping[str, frozenset[str]]
    speller: Speller

    @classmethod
    def of(cls, connectors: Iterable[Connector]) -> "Brands":
        """By a connector's name, slug and aliases."""
        names: dict[str, set[str]] = {}
        for connector in connectors:
            own = (connector.name, connector.slug.replace("-", " "), *connector.aliases)
            for name in own:
                names.setdefault(name.lower().removesuffix(".com"), set()).add(connector.slug)
        return cls({name: frozenset(slugs) for name, slugs in names.items()}, Speller.of(names))

    def named(self, text: str, known: Container[str]) -> frozenset[str]:
        """The slugs of the vendors in a text; a word whose stem is `known` is no mistyped name."""
        words = [word.strip(".").removesuffix(".com") for word in _RAW.findall(text.lower())]
        found: set[str] = set()
        for at, word in enumerate(words):
            for length in (1, 2, 3):
                found |= self.names.get(" ".join(words[at : at + length]), frozenset())
            if stem(word) not in known:
                found |= {slug for meant in self.speller.meant(word) for slug in self.names[meant]}
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Intent:
    """An intent, read once for all documents."""

    text: str
    stems: tuple[str, ...]
    asks: int
    """1: it wants to know something; -1: it wants something done; 0: neither is plain."""

    @classmethod
    def read(cls, text: str) -> "Intent":
        """Of the text as it came."""
        return cls(text, tuple(dict.fromkeys(stems(text))), _asks(text))


def _asks(text: str) -> int:
    words = [word for word in _LETTERS.findall(text.lower()) if word not in _COURTESY]
    for word in words[:2]:
        if word in _ASKS:
            return 1
        if word in _ORDERS:
            return -1
    return 0
