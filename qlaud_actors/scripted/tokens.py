"""The tokenizer stand-in: four bytes of UTF-8 are one token, a last part counts whole."""

BYTES_PER_TOKEN = 4

IMAGE_TOKENS = 1_600
"""What one image is billed as: the vendors' figure for about a megapixel."""


def size(text: str) -> int:
    """Bytes of `text` in UTF-8 (a lone surrogate counts as one byte)."""
    return len(text.encode(errors="replace"))


def tokens(byte_count: int) -> int:
    """Tokens of that many bytes, rounded up."""
    return -(-byte_count // BYTES_PER_TOKEN)


def cut(text: str, byte_count: int) -> str:
    """The longest beginning of `text` of at most that many bytes, no character torn."""
    return text.encode(errors="replace")[: max(0, byte_count)].decode(errors="ignore")
