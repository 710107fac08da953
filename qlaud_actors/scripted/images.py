"""Which pictures the vendors take, and what they say to the others."""

import base64
import binascii
import re
from typing import Any

MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

_DATA_URL = re.compile(r"data:(image/[a-z]+);base64,", re.ASCII)


def anthropic_complaint(source: Any) -> str | None:
    """What Anthropic says of an image's `source`; the beginning is its path below the block."""
    if not isinstance(source, dict) or source.get("type") not in ("base64", "url", "file"):
        return "source: Input tag should be one of: 'base64', 'url', 'file'"
    if source["type"] == "url" and not str(source.get("url")).startswith("https://"):
        return "source.url: Only HTTPS URLs are supported."
    if source["type"] != "base64":
        return None
    if source.get("media_type") not in MEDIA_TYPES:
        allowed = ", ".join(f"'{kind}'" for kind in MEDIA_TYPES)
        return f"source.base64.media_type: Input should be {allowed}"
    if not _is_base64(source.get("data")):
        return "source.base64.data: Input should be a valid base64 string"
    return None


def openai_complaint(url: Any) -> str | None:
    """What OpenAI says of an image's URL."""
    if not isinstance(url, str):
        return "Invalid type for 'image_url.url': expected a string."
    if url.startswith(("https://", "http://")):
        return None
    found = _DATA_URL.match(url)
    if found is None or found.group(1) not in MEDIA_TYPES or not _is_base64(url[found.end() :]):
        return "You uploaded an unsupported image. Please make sure your image is valid."
    return None


def _is_base64(data: Any) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True))
    except (TypeError, ValueError, binascii.Error):
        return False
