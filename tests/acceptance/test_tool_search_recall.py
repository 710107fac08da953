"""Tool search finds: held-out utterances against the whole catalogue and 580 tools of other systems."""

import sys
from collections import Counter

import pytest

from benchmarks.tool_search.quality import Subjects, Utterance, measure, table, utterances


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    return Subjects()


def test_the_utterances_are_of_the_catalogue_and_apart(subjects: Subjects) -> None:
    """300 held-out and 500 distractors at least; every acceptable tool exists; no utterance comes twice."""
    held_out, dev = utterances("held_out"), utterances("dev")
    assert len(held_out) >= 300
    assert len(subjects.registered.documents) >= 500
    names = {document.name for document in subjects.catalogue.documents}
    assert {name for one in (*held_out, *dev) for name in one.right} <= names
    twice = Counter(one.text.lower() for one in (*held_out, *dev))
    assert [text for text, count in twice.items() if count > 1] == []


def test_a_right_tool_is_among_the_first_five_for_95_of_100(
    subjects: Subjects, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recall@5 of the search on held-out utterances is at least 95 %, and better than each plain way."""
    asked: list[Utterance] = utterances("held_out")
    found = {name: measure(asked, search) for name, search in subjects.all().items()}
    with capsys.disabled():
        sys.stdout.write("\n" + table(found))
    assert found["search"].recall_5 >= 0.95
    assert found["search"].recall_5 > max(found[n].recall_5 for n in ("BM25", "embeddings", "regex"))
