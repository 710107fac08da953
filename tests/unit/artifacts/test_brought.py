"""What may come in as an artifact: no more than a tool could have kept."""

import pytest

from qlaud_actors.artifacts.model import MAX_PICTURE_BYTES, MAX_TEXT_BYTES, Brought

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("mime", "content", "words"),
    [
        ("text/plain", b"", None),
        ("text/plain", b"x" * MAX_TEXT_BYTES, None),
        ("text/plain", b"x" * (MAX_TEXT_BYTES + 1), "at most"),
        ("application/json", b"\xff", "UTF-8"),
        ("image/png", PNG, None),
        ("image/webp", b"RIFF....WEBP", None),
        ("image/jpeg", b"\xff\xd8\xff", None),
        ("image/jpeg", PNG, "picture it is"),
        ("image/svg+xml", b"<svg/>", "picture it is"),
        ("image/png", PNG + b"x" * MAX_PICTURE_BYTES, "at most"),
    ],
)
def test_only_what_a_tool_could_have_kept_is_taken(mime: str, content: bytes, words: str | None) -> None:
    """Texts in UTF-8, pictures that are what they say, neither too large."""
    wrong = Brought("a", mime, content).wrong
    assert wrong is None if words is None else words in (wrong or "")
