"""Tool search finds: held-out utterances against the whole catalogue and 580 tools of other systems."""

from collections import Counter

import pytest

from benchmarks.tool_search.quality import Quality, Subjects, Utterance, measure, utterances

HEADER = f"{'':12}{'recall@1':>10}{'recall@5':>10}{'recall@10':>10}{'MRR':>10}"


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    return Subjects()


def row(name: str, quality: Quality) -> str:
    shares = (quality.recall_1, quality.recall_5, quality.recall_10, quality.mrr)
    return f"{name:12}" + "".join(f"{share:10.3f}" for share in shares)


def test_the_utterances_are_of_the_catalogue_and_apart(subjects: Subjects) -> None:
    """At least 300 held-out ones and 500 distractors; every acceptable tool exists; no utterance is in both files."""
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
    searches = {
        "search": subjects.hybrid,
        "words only": subjects.words,
        "BM25": subjects.bm25,
        "embeddings": subjects.embeddings,
        "regex": subjects.regex,
    }
    found = {name: measure(asked, search) for name, search in searches.items()}
    with capsys.disabled():
        print("\n" + "\n".join([HEADER, *(row(name, quality) for name, quality in found.items())]))
    assert found["search"].recall_5 >= 0.95
    assert found["search"].recall_5 > max(found[n].recall_5 for n in ("BM25", "embeddings", "regex"))
