"""The SSE parser reads what the standard allows, in any pieces, and no frame without end."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.providers.sse import SseFrame, SseParser

STREAM = (
    "\ufeffevent: first\r\ndata: grüße 🏔️\r\n\r\n"
    ": a comment\n\n"
    "data: one\ndata:two\ndata\nid: 7\nretry: 10\n\n"
    "event: no-data\n\n"
    "data:  kept space\r\rdata: [DONE]\n\n"
    "data: never ended\n"
).encode()

FRAMES = [
    SseFrame("first", "grüße 🏔️"),
    SseFrame("", "one\ntwo\n"),
    SseFrame("", " kept space"),
    SseFrame("", "[DONE]"),
]


def parse(parser: SseParser, pieces: list[bytes]) -> list[SseFrame]:
    """All frames that the pieces give."""
    return [frame for piece in pieces for frame in parser.feed(piece)]


def test_whole_stream() -> None:
    """Comments, multi-line data, all line ends, a byte order mark and an unfinished frame are understood."""
    assert parse(SseParser(), [STREAM]) == FRAMES


def test_byte_by_byte() -> None:
    """Single bytes give the same frames, although they cut characters and CRLF apart."""
    assert parse(SseParser(), [STREAM[i : i + 1] for i in range(len(STREAM))]) == FRAMES


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
@settings(deadline=None)
def test_any_chunking(cuts: list[int]) -> None:
    """Wherever the network cuts, the frames are the same; empty pieces change nothing."""
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(edges)]
    assert parse(SseParser(), pieces) == FRAMES


@pytest.mark.parametrize(
    "pieces",
    [[b"data: " + b"x" * 100], [b"data: xxxx\n"] * 20, [b"x"] * 101, [b"data: " + b"x" * 100 + b"\n\n"]],
    ids=["one line", "many lines", "many pieces", "complete"],
)
def test_frame_too_large(pieces: list[bytes]) -> None:
    """A frame above the limit is refused however it is spread."""
    with pytest.raises(ProviderUnavailable, match="too large"):
        parse(SseParser(max_frame_bytes=100), pieces)


def test_limit_is_per_frame() -> None:
    """A long stream of small frames never meets the limit."""
    assert len(parse(SseParser(max_frame_bytes=20), [b"data: xxxx\n\n"] * 50)) == 50
