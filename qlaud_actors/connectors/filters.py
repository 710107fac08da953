"""The short list of what data alone cannot say: how a value is spelled for one vendor or another."""

import base64
import uuid
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

import msgspec


def _csv(value: Any) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _spaced(value: Any) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _base64(value: Any) -> str:
    return base64.b64encode(str(value).encode()).decode()


def _host(value: Any) -> str:
    """The host of a URL, or the value when it is a host already."""
    return urlsplit(str(value)).netloc if "://" in str(value) else str(value)


def _uuid(value: Any) -> str:
    """The same UUID for the same text, for vendors that take an id from the caller."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"qlaud:{value}"))


def _adf(value: Any) -> dict[str, Any]:
    """Plain text as an Atlassian document: a paragraph per line."""
    lines = [line for line in str(value).split("\n") if line.strip()]
    paragraphs = [{"type": "paragraph", "content": [{"type": "text", "text": line}]} for line in lines]
    return {"type": "doc", "version": 1, "content": paragraphs}


def _notion_text(value: Any) -> list[dict[str, Any]]:
    """Plain text as Notion's rich text, which takes 2000 characters a piece."""
    whole = str(value)
    pieces = [whole[at : at + 2000] for at in range(0, len(whole), 2000)] or [""]
    return [{"text": {"content": piece}} for piece in pieces]


def _notion_blocks(value: Any) -> list[dict[str, Any]]:
    """Plain text as Notion's blocks: a paragraph per line, 100 at most (its own limit)."""
    lines = [line for line in str(value).split("\n") if line.strip()][:100]
    return [{"type": "paragraph", "paragraph": {"rich_text": _notion_text(line)}} for line in lines]


def _rfc822(value: Any) -> str:
    """An e-mail of `to`, `cc`, `bcc`, `subject`, `text` and `html` in base64url, as Gmail takes it."""
    given: Mapping[str, Any] = value
    message = EmailMessage()
    for header in ("to", "cc", "bcc", "subject"):
        if given.get(header):
            # EmailMessage refuses line breaks in headers; here they are folded away.
            message[header.title()] = " ".join(_csv(given[header]).split())
    message.set_content(str(given.get("text") or ""))
    if given.get("html"):
        message.add_alternative(str(given["html"]), subtype="html")
    return base64.urlsafe_b64encode(message.as_bytes()).decode()


FILTERS: dict[str, Callable[[Any], Any]] = {
    "csv": _csv,
    "spaced": _spaced,
    "json": _json,
    "segments": str,  # paths only: slashes stay, each step is escaped by itself (`request.py`)
    "base64": _base64,
    "host": _host,
    "uuid": _uuid,
    "adf": _adf,
    "notion_text": _notion_text,
    "notion_blocks": _notion_blocks,
    "rfc822": _rfc822,
}
