"""JSON answers."""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Compact UTF-8 JSON."""
    return web.Response(
        body=msgspec.json.encode(data), status=status, headers=headers, content_type="application/json"
    )
