"""Just enough HTTP/1.1 to send and answer a fixed request fast: raw protocols, no library in between.

The generator and the upstream share one core; every microsecond they use is one that they cannot
offer to what is measured.
"""

from dataclasses import dataclass

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Inbox:
    """Bytes of a connection, cut into messages."""

    data: bytes = b""
    _body_at: int = -1
    _length: int = -1
    """Of the body; -1 is chunked."""

    def feed(self, data: bytes) -> bytes | None:
        """The head of a message once it is complete, body included (which stays in `body`)."""
        self.data = self.data + data if self.data else data
        return self._complete()

    def _complete(self) -> bytes | None:
        if self._body_at < 0:
            end = self.data.find(HEAD_END)
            if end < 0:
                return None
            self._body_at = end + len(HEAD_END)
            self._length = _length(self.data[:end].lower())
        if self._length < 0:
            ended = self.data.endswith(LAST_CHUNK, self._body_at)  # a header may end in 0 as well
            return self.data[: self._body_at] if ended else None
        if len(self.data) < self._body_at + self._length:
            return None
        return self.data[: self._body_at]

    def take(self) -> bytes:
        """The body of the complete message; the next one begins."""
        end = len(self.data) if self._length < 0 else self._body_at + self._length
        body = self.data[self._body_at : end]
        self.data = self.data[end:]
        self._body_at = -1
        return body


def request(path: str, headers: dict[str, str], body: bytes) -> bytes:
    """The bytes of a POST."""
    sent = {
        "host": "127.0.0.1",
        "content-type": "application/json",
        **headers,
        "content-length": str(len(body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def _length(head: bytes) -> int:
    if b"transfer-encoding: chunked" in head:
        return -1
    _, found, rest = head.partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0
