"""Identifiers: time-sortable UUIDs for rows, prefixed random hex for tools, calls and secrets."""

import base64
import os
import secrets
import time
import uuid


def new_uuid() -> uuid.UUID:
    """A version 7 UUID (RFC 9562): sorts by creation time, so indexes stay dense."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


def parse_uuid(text: str) -> uuid.UUID | None:
    """The UUID that `text` spells in its canonical form, else None."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None


def new_tool_id() -> str:
    """`tool_` + 32 hex characters."""
    return f"tool_{secrets.token_hex(16)}"


def new_call_id() -> str:
    """`call_` + 32 hex: the journal's name of one tool call, and its idempotency key outside."""
    return f"call_{secrets.token_hex(16)}"


def new_message_id() -> str:
    """`msg_` + 24 hex, for replies whose provider gave no id."""
    return f"msg_{secrets.token_hex(12)}"


def new_webhook_secret() -> str:
    """`wsk_` + 48 hex: the HMAC key of one webhook tool, used as it is spelled."""
    return f"wsk_{secrets.token_hex(24)}"


def new_endpoint_secret() -> str:
    """`whsec_` + the base64 of 24 random bytes, as Standard Webhooks spells the key of a webhook."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"


def new_key_secret() -> str:
    """`qlk_live_` + 64 hex: an API key."""
    return f"qlk_live_{secrets.token_hex(32)}"
