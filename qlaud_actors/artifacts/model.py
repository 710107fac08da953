"""An artifact, and whose it is. Pure."""

import uuid
from dataclasses import dataclass

MAX_TEXT_BYTES = 256 * 1024
MAX_PICTURE_BYTES = 6 * 1024 * 1024
MAX_ARTIFACTS = 500
MAX_OWNER_BYTES = 256 * 1024 * 1024
"""Of all artifacts of an owner."""

MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something kept under a name; the content only where it was asked for."""

    id: uuid.UUID
    name: str
    mime: str
    size: int
    updated_at_ms: int
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The thread in which a call stores, and the key that it is made with."""

    thread_id: uuid.UUID | None = None
    key_id: uuid.UUID | None = None


def owner_of(end_user_id: str | None, thread_id: uuid.UUID | None, key_id: uuid.UUID | None) -> str:
    """Whose an artifact is: an end user's, else a thread's, else a standard key's, else the account's."""
    if end_user_id is not None:
        return f"user:{end_user_id}"
    if thread_id is not None:
        return f"thread:{thread_id}"
    return f"key:{key_id}" if key_id else "account"


def picture_kind(content: bytes) -> str | None:
    """By its first bytes: what is served later must be what it says. None for what is no known picture."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png"
    return "image/jpeg" if content[:3] == b"\xff\xd8\xff" else None


@dataclass(frozen=True, slots=True)
class Brought:
    """An artifact that was kept elsewhere. Times in ms since the epoch; None: now."""

    name: str
    mime: str
    content: bytes
    created_at_ms: int | None = None
    updated_at_ms: int | None = None

    @property
    def wrong(self) -> str | None:
        """Why no tool could have kept it; None when one could. That JSON is JSON is not looked at."""
        if self.mime not in ("text/plain", "application/json"):
            if len(self.content) > MAX_PICTURE_BYTES:
                return f"a picture must have at most {MAX_PICTURE_BYTES:,} bytes"
            same = picture_kind(self.content) == self.mime
            return None if same else "`mime` must be that of a text, of JSON, or of the picture it is"
        if len(self.content) > MAX_TEXT_BYTES:
            return f"a text must have at most {MAX_TEXT_BYTES:,} bytes"
        try:
            self.content.decode()
        except UnicodeDecodeError:
            return "a text must be UTF-8"
        return None
