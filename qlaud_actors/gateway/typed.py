"""Bodies as typed structures, with errors in words that name the field."""

from typing import Any, TypeVar

import msgspec

from qlaud_actors.errors import InvalidRequest

T = TypeVar("T")


def typed(body: dict[str, Any], kind: type[T], *, strict: bool = True) -> T:
    """The fields of `kind`; others are ignored. Not strict: numbers may be texts, as forms have them.

    Raises InvalidRequest.
    """
    try:
        return msgspec.convert(body, kind, strict=strict)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        raise InvalidRequest(f"`{where[:-1]}`: {problem}." if where else f"{problem}.") from None
