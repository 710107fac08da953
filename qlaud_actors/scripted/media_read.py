"""Bodies of the vendor's media routes, JSON or forms, checked as the vendor does."""

import io
import wave
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from qlaud_actors.scripted.completion import body_of
from qlaud_actors.scripted.refusal import Refusal

VOICES = frozenset(
    {"alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse"}
)
MAX_RECORDING = 25 * 1024 * 1024
COMPRESSED_BYTES_PER_SECOND = 2_000


@dataclass(slots=True)
class Sent:
    """What was sent: fields, and files as `(name, filename, content type, bytes)`."""

    fields: dict[str, Any]
    files: list[tuple[str, str, str, bytes]] = field(default_factory=list)

    def text(self, name: str, longest: int) -> str:
        """A field that has to be there. Raises Refusal (400)."""
        value = self.fields.get(name)
        if not isinstance(value, str) or not value:
            raise Refusal(400, f"Missing required parameter: '{name}'.", param=name)
        if len(value) > longest:
            raise Refusal(400, f"String too long for '{name}': at most {longest}.", param=name)
        return value

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number, which a form spells. Raises Refusal (400)."""
        value = self.fields.get(name)
        try:
            number = default if value is None else int(value)
        except (TypeError, ValueError):
            raise Refusal(400, f"Invalid type for '{name}'.", param=name) from None
        if not low <= number <= high:
            raise Refusal(400, f"Invalid value for '{name}'.", param=name)
        return number

    def shown(self) -> dict[str, Any]:
        """For the record of requests: files without their bytes."""
        files = [[name, file, kind, len(data)] for name, file, kind, data in self.files]
        return {**self.fields, "_files": files}


async def sent(request: web.Request) -> Sent:
    """The body. Raises Refusal (400, 413)."""
    if request.content_type != "multipart/form-data":
        _, body = await body_of(request)
        if not isinstance(body, dict):
            raise Refusal(400, "The request body is not an object.")
        return Sent(body)
    found = Sent({})
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or not part.name:
            raise Refusal(400, "The form cannot be read.")
        data = await part.read()
        if part.filename is None:
            found.fields[part.name] = data.decode()
        else:
            kind = part.headers.get("content-type", "")
            found.files.append((part.name, part.filename, kind, data))
    return found


def seconds_of(recording: bytes) -> float:
    """How long a recording is: as its header says, or as long as its bytes last."""
    if not recording or len(recording) > MAX_RECORDING:
        raise Refusal(400 if not recording else 413, "Invalid file.", param="file")
    if recording[:4] != b"RIFF":
        return len(recording) / COMPRESSED_BYTES_PER_SECOND
    try:
        with wave.open(io.BytesIO(recording)) as opened:
            return float(opened.getnframes() / opened.getframerate())
    except (wave.Error, EOFError):
        raise Refusal(400, "Audio file might be corrupted or unsupported", param="file") from None
