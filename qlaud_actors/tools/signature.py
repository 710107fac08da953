"""Signs webhook calls, in two ways at once; a receiver checks whichever it knows.

- `X-Qlaud-Signature`: hex HMAC-SHA256 of `<timestamp>.<body>`, keyed with the tool's secret as it is
  spelled, `wsk_` included; `X-Qlaud-Timestamp` is the same timestamp, in unix seconds.
- Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature` = `v1,<base64>` over
  `<id>.<timestamp>.<body>`, keyed with the same bytes.
"""

import base64
import hashlib
import hmac

from qlaud_actors.settings import Secret


def signed_headers(secret: Secret, call_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove a call: fresh for every attempt, with the same id."""
    key = secret.reveal().encode()
    stamp = str(timestamp)
    ours = _digest(key, f"{stamp}.".encode() + body)
    standard = _digest(key, f"{call_id}.{stamp}.".encode() + body)
    return {
        "x-qlaud-timestamp": stamp,
        "x-qlaud-signature": ours.hex(),
        "webhook-id": call_id,
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(standard).decode(),
    }


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
