"""An artifact, and whose it is. Pure."""

import uuid
from dataclasses import dataclass

MAX_TEXT_BYTES = 256 * 1024
MAX_PICTURE_BYTES = 6 * 1024 * 1024
MAX_ARTIFACTS = 500
MAX_OWNER_BYTES = 256 * 1024 * 1024
"""Of all artifacts of an owner."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something kept under a name; the content only where it was asked for."""

    id: uuid.UUID
    name: str
    mime: str
    size: int
    updated_at_ms: int
    content: bytes | None = None


def owner_of(end_user_id: str | None, thread_id: uuid.UUID | None, key_id: uuid.UUID | None) -> str:
    """Whose an artifact is: an end user's, else a thread's, else a standard key's, else the account's."""
    if end_user_id is not None:
        return f"user:{end_user_id}"
    if thread_id is not None:
        return f"thread:{thread_id}"
    return f"key:{key_id}" if key_id else "account"
