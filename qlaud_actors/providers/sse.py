"""Server-sent events, read incrementally (WHATWG HTML, section 9.2.6): bytes in, frames out."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from qlaud_actors.errors import ProviderUnavailable

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""No provider sends frames of this size; a larger one is a fault and must not fill the memory."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseFrame(NamedTuple):
    """One dispatched event; `event` is empty when the stream did not name it."""

    event: str
    data: str


class SseParser:
    """Splits a byte stream into frames. Bytes may be cut anywhere, also within a character or CRLF.

    A frame that the end of the stream leaves incomplete is never dispatched, as the standard says.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._tail: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._first_line = True
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[SseFrame]:
        """The frames that these bytes complete; read the iterator to its end.

        Raises ProviderUnavailable when one frame exceeds the limit.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return
        self._after_cr = data.endswith(b"\r")
        *lines, rest = _LINE_END.split(data)
        for line in lines:
            self._grow(len(line))
            whole = b"".join((*self._tail, line))
            self._tail.clear()
            if frame := self._line(whole):
                yield frame
        self._grow(len(rest))
        self._tail.append(rest)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._max_frame_bytes:
            raise ProviderUnavailable("The provider sent a stream frame that is too large.")

    def _line(self, line: bytes) -> SseFrame | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        return None

    def _dispatch(self) -> SseFrame | None:
        event, data = self._event, self._data
        self._event, self._data, self._size = "", [], 0
        return SseFrame(event, b"\n".join(data).decode(errors="replace")) if data else None
