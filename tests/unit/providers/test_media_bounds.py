"""Bounds of pictures and recordings: never below what can be billed, whatever was sent."""

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.providers.audio_bound import likely_ms, longest_seconds, wav_seconds
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.image_bound import MAX_EDGE, MAX_PIXELS, image_tokens

CATALOG = Catalog.load({})
GRID = CATALOG.resolve("gpt-image-2.5-sunburst")
TABLE = CATALOG.resolve("gpt-image-1.5")

sixteens = st.integers(1, MAX_EDGE // 16).map(lambda n: n * 16)


@given(sixteens, sixteens, st.sampled_from([*GRID.media.image_grid, "auto"]))
def test_a_size_that_is_left_to_the_model_is_the_dearest(width: int, height: int, quality: str) -> None:
    """No size that a model draws costs more than no size at all, and no quality more than auto."""
    if width * height <= MAX_PIXELS:
        sized = image_tokens(GRID, quality, f"{width}x{height}")
        assert sized <= image_tokens(GRID, quality, None)
        assert sized <= image_tokens(GRID, "auto", f"{width}x{height}")


@pytest.mark.parametrize("size", ["4096x4096", "0x0", "9999x9999", "1024", "axb", "-1x5", "٣x٣", "3840x3840"])
def test_a_size_that_nobody_draws_counts_as_the_dearest(size: str) -> None:
    """The provider refuses it; should it not, the most is held."""
    assert image_tokens(GRID, "low", size) == image_tokens(GRID, "low", "auto")
    assert image_tokens(TABLE, "high", size) == 6_240


def test_a_table_gives_what_it_says() -> None:
    """Each combination its own, the dearest for what is open."""
    assert image_tokens(TABLE, "low", "1024x1024") == 272
    assert image_tokens(TABLE, None, "1024x1024") == 4_160
    assert image_tokens(TABLE, "low", None) == 408
    assert image_tokens(TABLE, "unheard-of", "auto") == 6_240


def wav(frames: int, rate: int, channels: int = 1, width: int = 2) -> bytes:
    """Silence."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(frames * channels * width))
    return target.getvalue()


@given(st.integers(0, 5_000), st.integers(1, 48_000), st.integers(1, 2), st.integers(1, 4))
def test_a_wav_file_is_as_long_as_its_bytes(frames: int, rate: int, channels: int, width: int) -> None:
    """Never shorter than what a decoder finds, and longer by its header and a rounded second at most."""
    data = wav(frames, rate, channels, width)
    bound = longest_seconds(data)
    assert bound >= frames / rate
    assert bound <= frames / rate + 44 / (rate * channels * width) + 1


@given(st.binary(max_size=200))
def test_any_bytes_have_a_length(data: bytes) -> None:
    """Nothing that is sent breaks the bound, and nothing is free."""
    assert longest_seconds(data) >= 1
    assert longest_seconds(b"RIFF" + data) >= 1
    assert longest_seconds(b"RIFF\0\0\0\0WAVEfmt " + data) >= 1
    assert longest_seconds(b"fLaC" + data) >= 1
    assert likely_ms(data) >= 1_000


def test_headers_that_lie_do_not_make_a_recording_shorter() -> None:
    """A rate of bytes that is not that of the samples, a compressed kind, a second format: by size, then."""
    honest = wav(80_000, 8_000)
    assert wav_seconds(honest) == 11
    assert wav_seconds(honest[:28] + struct.pack("<I", 2**31) + honest[32:]) == 11
    assert wav_seconds(honest[:20] + struct.pack("<H", 0x31) + honest[22:]) is None  # GSM
    extensible = honest[:20] + struct.pack("<H", 0xFFFE) + honest[22:44]
    assert wav_seconds(extensible + b"\x31\0" + honest[46:]) is None
    assert wav_seconds(honest[:24] + bytes(4) + honest[28:]) is None
    assert wav_seconds(honest[:34] + struct.pack("<H", 4) + honest[36:]) is None
    assert wav_seconds(honest + b"fmt " + bytes(40)) is None
    assert longest_seconds(honest + b"fmt " + bytes(40)) == -(-len(honest + b"fmt " + bytes(40)) // 500)


def test_compressed_recordings_are_bounded_by_their_bytes() -> None:
    """MP3 at its lowest rate, others below what codecs use, FLAC at least as long as it says."""
    assert longest_seconds(b"ID3" + bytes(9_997)) == 10
    assert longest_seconds(b"\xff\xfb\x90\x00" + bytes(9_996)) == 10
    assert longest_seconds(b"\xff\xfb\x00\x00" + bytes(9_996)) == 20  # the free format has no lowest rate
    assert longest_seconds(b"OggS" + bytes(9_996)) == 20
    packed = (8_000 << 44 | 8_000 * 3_600).to_bytes(8, "big")
    assert longest_seconds(b"fLaC" + bytes(14) + packed + bytes(100)) == 3_600
