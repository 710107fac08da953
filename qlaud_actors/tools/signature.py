"""Signs webhook calls, in two ways at once; a receiver checks whichever it knows.

- qlaud's own: `X-Qlaud-Signature` is the lower-case hex HMAC-SHA256 of `<timestamp>.<body>`, keyed with
  the secret as it is spelled, `wsk_` or `whsec_` included. `X-Qlaud-Timestamp` is that timestamp, in
  unix seconds.
- Standard Webhooks (standardwebhooks.com): `webhook-signature` is `v1,` and the base64 HMAC-SHA256 of
  `<webhook-id>.<webhook-timestamp>.<body>`. The key of a `whsec_…` is the base64 behind it, so that
  libraries take it as it is. Of a tool's `wsk_…` it is the UTF-8 bytes of all of it; a library is given
  `whsec_` and the base64 of those.

The id is the same on every attempt of a call, timestamp and signatures are fresh. A receiver compares
in constant time, refuses timestamps older than five minutes, and treats the id as idempotency key.
"""

import base64
import hashlib
import hmac

from qlaud_actors.settings import Secret

STANDARD = "whsec_"


def signed_headers(secret: Secret, call_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove one attempt of a call. `timestamp` in unix seconds."""
    spelled, message_id = secret.reveal(), webhook_id(call_id)
    key = spelled.encode()
    standard = base64.b64decode(spelled.removeprefix(STANDARD)) if spelled.startswith(STANDARD) else key
    return {
        "x-qlaud-timestamp": str(timestamp),
        "x-qlaud-signature": _digest(key, b"%d.%b" % (timestamp, body)).hex(),
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + _base64(_digest(standard, f"{message_id}.{timestamp}.".encode() + body)),
    }


def webhook_id(call_id: str) -> str:
    """A call's id as receivers see it. Standard Webhooks forbids the dot that inner calls have."""
    return call_id.replace(".", "_")


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
