"""`multipart/form-data` bodies: read part by part, within limits."""

from collections.abc import Collection

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from api.context import services
from qlaud_actors.errors import InvalidRequest, PayloadTooLarge
from qlaud_actors.providers.form import Part

MAX_PARTS = 64
MAX_NAME = 200
MAX_TEXT_BYTES = 256 * 1024

_BROKEN = (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError, ConnectionResetError)
_PLAIN = (None, "binary", "8bit", "7bit")


async def read_form(
    request: web.Request, files: Collection[str], max_file_bytes: int | None = None
) -> tuple[Part, ...]:
    """The parts in their order; those that `files` names may be large, all others are texts.

    Raises InvalidRequest, PayloadTooLarge.
    """
    if request.content_type != "multipart/form-data":
        raise InvalidRequest("The body must be a form: multipart/form-data.")
    left = services(request).settings.max_body_bytes
    parts: list[Part] = []
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name or len(part.name) > MAX_NAME:
                raise InvalidRequest("Each part of the form needs a name, and must not be a form itself.")
            if len(parts) == MAX_PARTS:
                raise InvalidRequest(f"The form must have at most {MAX_PARTS} parts.")
            is_file = part.name in files
            limit = min(left, max_file_bytes or left) if is_file else min(left, MAX_TEXT_BYTES)
            parts.append(await _part(part, limit, is_file=is_file))
            left -= len(parts[-1].data)
    except _BROKEN:
        raise InvalidRequest("The form broke off, or is not encoded as its headers say.") from None
    return tuple(parts)


async def _part(part: BodyPartReader, limit: int, *, is_file: bool) -> Part:
    name = part.name or ""
    if part.headers.get("content-encoding") or part.headers.get("content-transfer-encoding") not in _PLAIN:
        raise InvalidRequest(f"`{name}` must not be encoded.")
    data = bytearray()
    while chunk := await part.read_chunk(64 * 1024):
        data += chunk
        if len(data) > limit:
            raise PayloadTooLarge(f"`{name}` is larger than allowed.")
    if not is_file:
        try:
            data.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"`{name}` must be text in UTF-8.") from None
        return Part(name, bytes(data))
    kind = part.headers.get("content-type", "application/octet-stream")
    return Part(name, bytes(data), (part.filename or "file")[:MAX_NAME], kind[:MAX_NAME])
