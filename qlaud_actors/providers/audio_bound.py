"""How long a recording can be at most, found without decoding it. Pure.

* WAV with plain samples says it by itself: the bytes that are there, divided by the bytes of a second.
* An MP3 frame holds at least 8 kbit/s, the lowest rate of the format.
* All other formats count as 4 kbit/s, below what any of their codecs uses for speech (Opus: 6, AMR: 4.75);
  FLAC, which packs silence to nearly nothing, as what its header says if that is longer.

The last is a bound for recordings, not for files that were made to break it: what a provider bills beyond
is overrun, which no key and no wallet is charged. Providers bill whole seconds, so lengths are rounded up.
"""

import struct

MP3_BYTES_PER_SECOND = 1_000
LOWEST_BYTES_PER_SECOND = 500
TYPICAL_BYTES_PER_SECOND = 16_000
"""128 kbit/s, for estimates only."""

_PLAIN = (1, 3)
"""Whole numbers, floats."""

_EXTENSIBLE = 0xFFFE
"""Then the kind stands further down."""


def longest_seconds(data: bytes) -> int:
    """A bound on the seconds of this recording, at least 1."""
    exact = wav_seconds(data)
    if exact is not None:
        return exact
    if _is_mp3(data):
        return _whole(len(data), MP3_BYTES_PER_SECOND)
    return max(_flac_seconds(data), _whole(len(data), LOWEST_BYTES_PER_SECOND))


def likely_ms(data: bytes) -> int:
    """Milliseconds of a recording whose provider told nothing."""
    exact = wav_seconds(data)
    return 1_000 * (_whole(len(data), TYPICAL_BYTES_PER_SECOND) if exact is None else exact)


def wav_seconds(data: bytes) -> int | None:
    """Seconds of a WAV file with plain samples, rounded up; None for everything else.

    The format has to come first and once, and counts for all bytes of the file, so that no arrangement of
    chunks makes it longer than this.
    """
    if data[:4] != b"RIFF" or data[8:16] != b"WAVEfmt " or len(data) < 44 or data.count(b"fmt ") > 1:
        return None
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", data, 20)
    if kind == _EXTENSIBLE:
        (kind,) = struct.unpack_from("<H", data.ljust(46, b"\0"), 44)
    if kind not in _PLAIN or bits % 8 or bits == 0 or block != channels * bits // 8 or rate * block == 0:
        return None
    return _whole(len(data), rate * block)


def _is_mp3(data: bytes) -> bool:
    """An ID3 tag, or a frame of layer III whose rate is in its header."""
    if data[:3] == b"ID3":
        return True
    return len(data) > 3 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2 and data[2] >> 4 not in (0, 15)


def _flac_seconds(data: bytes) -> int:
    if data[:4] != b"fLaC" or len(data) < 26:
        return 0
    packed = int.from_bytes(data[18:26], "big")
    rate, samples = packed >> 44, packed & (2**36 - 1)
    return _whole(samples, rate) if rate else 0


def _whole(count: int, per_second: int) -> int:
    return max(1, -(-count // per_second))
