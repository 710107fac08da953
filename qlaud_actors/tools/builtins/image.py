"""The built-in image-generation: a picture from OpenAI on the account's own key, kept as an artifact.

OpenAI bills the owner of the key, so nothing is held or charged here. Models get an address instead of
megabytes of base64.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from qlaud_actors.artifacts.model import MAX_PICTURE_BYTES, picture_kind
from qlaud_actors.connectors.answer import Received
from qlaud_actors.connectors.request import Request
from qlaud_actors.tools.builtins.http_call import blotted

OPENAI = "https://api.openai.com/v1"
FORMAT = "webp"
"""A quarter of the size of a PNG, and browsers know it."""

MAX_WORDS = 600


class NoPicture(Exception):
    """The answer has no picture; the message says why, for a model."""


class _Datum(msgspec.Struct):
    b64_json: str


class _Pictures(msgspec.Struct):
    data: list[_Datum]
    usage: dict[str, Any] | None = None


class _Error(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


def request(config: Mapping[str, str], arguments: Mapping[str, Any], base_url: str | None) -> Request:
    """The request of one picture; `base_url` is another address for OpenAI's API."""
    body = {
        "model": config["model"],
        "prompt": arguments["prompt"],
        "size": arguments.get("size") or "auto",
        "quality": config["quality"],
        "output_format": FORMAT,
        "n": 1,
    }
    headers = {"Authorization": f"Bearer {config['openai_api_key']}", "Content-Type": "application/json"}
    url = f"{(base_url or OPENAI).rstrip('/')}/images/generations"
    return Request("POST", url, headers, msgspec.json.encode(body))


def picture(config: Mapping[str, str], received: Received) -> tuple[bytes, str]:
    """The picture and its media type. Raises NoPicture."""
    if received.status != 200:
        raise NoPicture(_refusal(received, config["openai_api_key"]))
    try:
        first = msgspec.json.decode(received.body, type=_Pictures).data[0]
        content = base64.b64decode(first.b64_json, validate=True)
    except (msgspec.MsgspecError, IndexError, binascii.Error):
        raise NoPicture("OpenAI's answer holds no picture that can be read.") from None
    mime = picture_kind(content)
    if mime is None or len(content) > MAX_PICTURE_BYTES:
        raise NoPicture("OpenAI's answer is no picture of a known kind, or too large to be kept.")
    return content, mime


def _refusal(received: Received, key: str) -> str:
    try:
        words = msgspec.json.decode(received.body, type=_Refusal).error.message
    except msgspec.MsgspecError:
        words = ""
    told = blotted(words, (key,))[:MAX_WORDS]
    match received.status:
        case 401 | 403:
            return f"OpenAI refused the key ({received.status}): the developer has to check it."
        case 429:
            return f"OpenAI was asked too much, or the key's budget is spent (429): {told} Try again later."
        case status:
            return f"OpenAI made no picture ({status}): {told}"
