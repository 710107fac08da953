"""Large answers as files: streamed, and compressed for those who take that."""

from collections.abc import AsyncIterator

from aiohttp import hdrs, web
from aiohttp.web import ContentCoding


async def download(
    request: web.Request, name: str, content_type: str, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send a file as it is made. One that breaks off ends the connection, so that it is noticed."""
    response = web.StreamResponse(headers={"cache-control": "no-store"})
    response.content_type, response.charset = content_type, "utf-8"
    response.headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{name}"'
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        response.enable_compression(ContentCoding.gzip)
    await response.prepare(request)
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip (RFC 9110, 12.5.3)."""
    weights = {}
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        weights[coding.strip().lower()] = weight.replace(" ", "").lower()
    weight = weights.get("gzip", weights.get("*", "q=0"))
    return weight.removeprefix("q=").strip("0.") != "" or not weight
