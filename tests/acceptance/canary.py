"""Looks for a credential in whatever a run left behind, in the spellings that text takes on its way."""

import base64
import io
import json
from collections.abc import Iterator
from urllib.parse import quote

from qlaud_actors.db.pool import Connection


def spellings(credential: str) -> Iterator[tuple[str, bytes]]:
    """Each spelling with its name; of base64 the part that does not depend on what stands beside it."""
    raw = credential.encode()
    yield "plain", raw
    yield "URL-encoded", quote(credential, safe="").encode()
    yield "JSON", json.dumps(credential)[1:-1].encode()
    yield "hex", raw.hex().encode()
    for start in range(3):
        encoded = base64.b64encode(raw[start : start + (len(raw) - start) // 3 * 3])
        yield "base64", encoded
        yield "base64url", encoded.translate(bytes.maketrans(b"+/", b"-_"))


def leaks(credential: str, places: dict[str, bytes]) -> list[str]:
    """Where a credential stands, and how it is spelled there."""
    wanted = list(spellings(credential))
    return [
        f"{place}: {name}" for place, content in places.items() for name, text in wanted if text in content
    ]


async def tables(connection: Connection) -> dict[str, bytes]:
    """Every table of a database as text, as a dump has it."""
    found = {}
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (name,) in rows:
        text = io.BytesIO()
        await connection.copy_from_table(name, output=text)
        found[f"table {name}"] = text.getvalue()
    return found
