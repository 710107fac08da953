"""What of a conversation is searched, in which pieces, and how findings are shown and put together. Pure."""

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Mode: TypeAlias = Literal["semantic", "text", "hybrid"]
Role: TypeAlias = Literal["user", "assistant"]

MAX_CHARS = 100_000
"""Of a message that are searched; what is behind is not."""

CHUNK_CHARS = 900
"""Of one vector: about what the offline model reads (256 tokens)."""

QUESTION_CHARS = 200
"""Of a question that are read with its answer: "Yes, within 14 days" means nothing alone."""

OVERLAP_CHARS = 150
"""What a chunk repeats of the one before, so that no sentence is cut out of both."""

SNIPPET_CHARS = 240

FUSION_CONSTANT = 10
"""Of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009): how little the first places stand out."""

SOME_WORDS_WEIGHT = 0.7
"""What a place among texts counts that has only some of the words: less than one with all, or by meaning."""

ALL_WORDS = 0.5
"""The least rank of a text that has all words of a query."""

_WORD = re.compile(r"\w+")
_SPACES = re.compile(r"\s+")
_FOREIGN_MARKS = re.compile(r"[^\x00-\x7f\w]")


class Place(NamedTuple):
    """Where a message is."""

    thread_id: uuid.UUID
    seq: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a message, and where it begins in it."""

    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Scored:
    """A message that was found; of several chunks the best."""

    place: Place
    score: float
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A message as the API shows it. Time in ms since the epoch."""

    thread_id: uuid.UUID
    seq: int
    role: Role
    score: float
    snippet: str
    created_at_ms: int
    end_user_id: str | None


def searched_text(role: str, content: Any, *, last: bool) -> str:
    """The text of a message that is indexed; empty when none is.

    A user's turn and the last answer to it are; a message that calls tools is not, unless the turn ended with
    it (`last`), nor are results of tools, pictures and files.
    """
    if isinstance(content, str):
        text = content
    else:
        if role == "assistant" and not last and any(block.get("type") == "tool_use" for block in content):
            return ""
        texts = (block.get("text") for block in content if block.get("type") == "text")
        text = "\n".join(one for one in texts if isinstance(one, str))
    return text.replace("\x00", " ").strip()[:MAX_CHARS]


def chunks(text: str) -> list[Chunk]:
    """A text in pieces that overlap, cut between words where there are any."""
    found, start = [], 0
    while True:
        end = start + CHUNK_CHARS
        if end >= len(text):
            found.append(Chunk(start, text[start:]))
            return found
        end = _gap_before(text, end, start + CHUNK_CHARS // 2)
        found.append(Chunk(start, text[start:end]))
        start = _gap_before(text, end - OVERLAP_CHARS, start + 1)


def in_context(chunk: Chunk, question: str) -> str:
    """What a vector is made of: a chunk, behind the beginning of what it answers."""
    return f"{question[:QUESTION_CHARS]}\n{chunk.text}" if question else chunk.text


def _gap_before(text: str, at: int, least: int) -> int:
    """Behind the last white space before `at`, or `at` itself when there is none behind `least`."""
    for place in range(at, least, -1):
        if text[place - 1].isspace():
            return place
    return at


def snippet(text: str, query: str, start: int = 0) -> str:
    """About 240 characters around the first word of the query that is in the text; short texts are whole.

    Without such a word, what stands at `start`.
    """
    if len(text) <= SNIPPET_CHARS:
        return _SPACES.sub(" ", text).strip()
    middle = _first_match(text, query)
    begin = start if middle is None else middle - SNIPPET_CHARS // 2
    begin = max(0, min(begin, len(text) - SNIPPET_CHARS))
    end = begin + SNIPPET_CHARS
    cut = _SPACES.sub(" ", text[begin:end]).strip()
    return f"{'…' if begin else ''}{cut}{'…' if end < len(text) else ''}"


def _first_match(text: str, query: str) -> int | None:
    """The middle of the first match; words of one or two letters count only when no longer one matches."""
    words = list(dict.fromkeys(_WORD.findall(query.lower())))
    for word in sorted(words, key=lambda word: len(word) < 3):
        if match := re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE):
            return (match.start() + match.end()) // 2
    return None


def spelled(text: str) -> str:
    """A text as its words are indexed and looked for: a database without a locale takes other marks than
    ASCII's for letters, and does not know capitals such as É.
    """
    return _FOREIGN_MARKS.sub(" ", text.lower())


def best_of(found: Iterable[tuple[Place, int, float]]) -> list[Scored]:
    """Chunks as messages, each with its best chunk, best first."""
    best: dict[Place, Scored] = {}
    for place, chunk, score in found:
        if place not in best or score > best[place].score:
            best[place] = Scored(place, score, chunk)
    return sorted(best.values(), key=lambda scored: (-scored.score, scored.place))


def fuse(semantic: Sequence[Scored], text: Sequence[Scored]) -> list[Scored]:
    """Two rankings as one, best first, by reciprocal rank fusion; a score of 1 is first in both."""
    scores: dict[Place, float] = {}
    chunk_of = {scored.place: scored.chunk for scored in semantic}
    for ranking, by_words in ((semantic, False), (text, True)):
        for rank, scored in enumerate(ranking, 1):
            gain = (FUSION_CONSTANT + 1) / (FUSION_CONSTANT + rank) / 2
            if by_words and scored.score < ALL_WORDS:
                gain *= SOME_WORDS_WEIGHT
            scores[scored.place] = scores.get(scored.place, 0.0) + gain
    ordered = sorted(scores, key=lambda place: (-scores[place], place))
    return [Scored(place, scores[place], chunk_of.get(place)) for place in ordered]


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Items in pieces of at most so many."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
