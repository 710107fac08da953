"""`multipart/form-data` bodies (RFC 7578), as they are sent to providers. Pure."""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

_UNSAFE = re.compile(r'[\r\n"\x00]')


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form; a file has a name of its own and a type."""

    name: str
    data: bytes = field(repr=False)
    filename: str | None = None
    content_type: str | None = None

    @property
    def text(self) -> str:
        """The value of a field that is no file. Raises UnicodeDecodeError."""
        return self.data.decode()


def encode(parts: Iterable[Part]) -> tuple[bytes, str]:
    """The body and its content type."""
    boundary = f"qlaud-{secrets.token_hex(16)}"
    pieces: list[bytes] = []
    for part in parts:
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{_quoted(part.name)}"'
        if part.filename is not None:
            head += f'; filename="{_quoted(part.filename)}"'
        if part.content_type is not None:
            head += f"\r\ncontent-type: {_UNSAFE.sub('', part.content_type)}"
        pieces += [head.encode("utf-8", "replace"), b"\r\n\r\n", part.data, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def _quoted(name: str) -> str:
    """As the HTML standard escapes names in a form."""
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name)
