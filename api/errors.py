"""QlaudError → response: the only place that makes them, in the caller's dialect."""

import math
import re
from typing import Any

import msgspec
from aiohttp import web

from api.pages.page import message_page
from api.responses import json_response
from qlaud_actors.errors import ProviderError, QlaudError, RateLimited, error_type

RESPONSES_PATH = "/v1/responses"
CONNECT_PATH = "/connect/"
"""For people, who get a page."""

AGAIN = "If you still want to connect, ask for a new link where you got this one."

SEQUENCE_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,9})\b')
"""Within a JSON string the quotes would be escaped, so that no model can write one."""

OPENAI_PATHS = (
    "/v1/chat/completions",
    RESPONSES_PATH,
    "/v1/embeddings",
    "/v1/images",
    "/v1/audio",
    "/v1/models",
)


def error_response(error: QlaudError, path: str, request_id: str) -> web.Response:
    """The response that tells a caller of an error."""
    if path.startswith(CONNECT_PATH):
        return message_page(_heading(error), error.message, AGAIN, status=error.status)
    body = openai_body(error) if _is_openai(path) else anthropic_body(error, request_id)
    headers = dict(error.headers) if isinstance(error, RateLimited) else {}
    retry_after = error.retry_after if isinstance(error, ProviderError | RateLimited) else None
    if retry_after is not None:
        headers["retry-after"] = str(math.ceil(retry_after))
    return json_response(body, status=error.status, headers=headers)


def error_frame(error: QlaudError, path: str, request_id: str, told: bytes = b"") -> bytes:
    """The same as a frame of a stream whose 200 was sent already, and that ended so far in `told`."""
    if path.startswith(RESPONSES_PATH):
        return b"event: error\ndata: %s\n\n" % msgspec.json.encode(responses_event(error, told))
    if _is_openai(path):
        return b"data: %s\n\n" % msgspec.json.encode(openai_body(error))
    return b"event: error\ndata: %s\n\n" % msgspec.json.encode(anthropic_body(error, request_id))


def anthropic_body(error: QlaudError, request_id: str) -> dict[str, Any]:
    """Our own form, which is Anthropic's with a `code` and the figures of a refusal."""
    inner = {"type": error_type(error.status), "message": _message(error), "code": error.code}
    inner |= {name: value for name, value in error.details.items() if name not in inner}
    return {"type": "error", "error": inner, "request_id": request_id}


def openai_body(error: QlaudError) -> dict[str, Any]:
    """OpenAI's form."""
    kind = error_type(error.status)
    inner = {"message": _message(error), "type": kind, "param": None, "code": error.code}
    inner |= {name: value for name, value in error.details.items() if name not in inner}
    return {"error": inner}


def responses_event(error: QlaudError, told: bytes) -> dict[str, Any]:
    """The event of a Responses stream: its documented fields, and the object that clients look for.

    Its number follows the last one that was told.
    """
    body, numbers = openai_body(error), SEQUENCE_NUMBER.findall(told)
    return {
        "type": "error",
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        "code": error.code,
        "message": body["error"]["message"],
        "param": None,
        **body,
    }


def _heading(error: QlaudError) -> str:
    if error.status == 410:
        return "This link no longer works"
    return "That did not work" if error.status < 500 else "Something is wrong here"


def _is_openai(path: str) -> bool:
    return path.startswith(OPENAI_PATHS)


def _message(error: QlaudError) -> str:
    """The sentence; a refusal for money also names its reason there, where clients look for it (2.9)."""
    if error.status != 402 or error.code in error.message:
        return error.message
    return f"{error.code}: {error.message}"
