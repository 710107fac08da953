"""`python -m benchmarks.tool_search [held_out|dev]`: what the search finds, and how fast, beside plain ways.

Latency is that of `ToolFinder.find` on the event loop: the intent's vector, words, rank; each intent is new.
The account has all 580 distractors registered; their vectors are there (warm). CPU is that of the process.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import cast

from benchmarks.tool_search.distractors import distractors
from benchmarks.tool_search.quality import Subjects, Utterance, measure, table, utterances
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.db.pool import Rows
from qlaud_actors.embeddings.embedder import Embedder
from qlaud_actors.tools.finder import ToolFinder
from qlaud_actors.tools.model import Toolset
from qlaud_actors.tools.search_vectors import SearchVectors


async def product(asked: Sequence[Utterance]) -> list[float]:
    """Milliseconds of each search."""
    vectors = SearchVectors(Embedder())
    finder = ToolFinder(cast("Rows", None), ConnectorCatalog.load({}), vectors)
    toolset = Toolset((), tuple(distractors()))
    started = time.perf_counter()
    await finder.find("warm", toolset, 8, {})
    print(f"first search, by words: {(time.perf_counter() - started) * 1000:.0f} ms")
    await vectors.settled()
    print(f"vectors of 580 new tools: {time.perf_counter() - started:.1f} s, in the background")
    await finder.find("warm", toolset, 8, {})
    took, cpu = [], time.process_time()
    for one in asked:
        started = time.perf_counter()
        await finder.find(one.text, toolset, 8, {})
        took.append((time.perf_counter() - started) * 1000)
    print(f"CPU of one search: {(time.process_time() - cpu) * 1000 / len(asked):.1f} ms")
    await vectors.close()
    return took


def plain(search: Callable[[str], list[str]], asked: Sequence[Utterance]) -> list[float]:
    """The same of a plain search; its vector of an intent is remembered already."""
    took = []
    for one in asked:
        started = time.perf_counter()
        search(one.text)
        took.append((time.perf_counter() - started) * 1000)
    return took


def main() -> None:
    """Print both tables."""
    asked = utterances(sys.argv[1] if len(sys.argv) > 1 else "held_out")
    subjects = Subjects()
    print(f"{len(asked)} utterances, {len(subjects.documents)} tools\n")
    print(table({name: measure(asked, search) for name, search in subjects.all().items()}))
    took = {"search": asyncio.run(product(asked))}
    took |= {name: plain(search, asked) for name, search in subjects.all().items() if name != "search"}
    middle = statistics.median(took["search"])
    print(f"\n{'':12}{'p50 ms':>10}{'p99 ms':>10}{'of search':>11}")
    for name, times in took.items():
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"{name:12}{p50:10.2f}{p99:10.2f}{p50 / middle:11.2f}")


if __name__ == "__main__":
    main()
