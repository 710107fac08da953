"""What the answers of the embedding, image and audio routes say of their usage. Pure.

Buckets stay disjoint: tokens of pictures and sound are taken out of the totals that hold them. A kind of
token that has no price of its own is counted as text, which has one.
"""

import math
from collections.abc import Mapping
from typing import Any

from qlaud_actors.usage import Price, Usage


def read_usage(answer: Mapping[str, Any], price: Price) -> Usage | None:
    """The usage in an answer, or in an event of a streamed one; None when it tells none.

    Raises ValueError, TypeError, AttributeError, OverflowError for figures that make no sense.
    """
    told = answer.get("usage") or {}
    if "audio_ms" in price.units:
        return _listened(told.get("seconds", told.get("prompt_audio_seconds", answer.get("duration"))))
    if not told or told.get("type") == "duration":
        return None
    if "prompt_tokens" in told:
        counted = _count(told, "prompt_tokens")
        return Usage(input=counted) if counted else None  # some hosts count nothing
    entered = _kinds(told.get("input_tokens_details") or told.get("input_token_details"), "input", price)
    left = _kinds(told.get("output_tokens_details") or told.get("output_token_details"), "output", price)
    total_in, total_out = _count(told, "input_tokens"), _count(told, "output_tokens")
    entered = entered or _unsplit(total_in, ("audio_input",), price)
    left = left or _unsplit(total_out, ("image_output", "audio_output"), price)
    return Usage(
        input=max(0, total_in - sum(entered.values())),
        output=max(0, total_out - sum(left.values())),
        units={**entered, **left},
    )


def _kinds(details: Any, direction: str, price: Price) -> dict[str, int]:
    """Tokens of pictures and sound that are billed apart."""
    counted = {
        f"{kind}_{direction}": _count(details or {}, f"{kind}_tokens", 0) for kind in ("image", "audio")
    }
    return {name: count for name, count in counted.items() if count and name in price.units}


def _unsplit(total: int, kinds: tuple[str, ...], price: Price) -> dict[str, int]:
    """Without details, all that a model of sound hears, or one of pictures or sound makes, is of its kind."""
    name = next((name for name in kinds if name in price.units), None)
    return {name: total} if name and total else {}


def _listened(seconds: Any) -> Usage | None:
    """Where time is billed, time is what counts, whatever else is told."""
    if seconds is None:
        return None
    return Usage(units={"audio_ms": math.ceil(max(0.0, float(seconds)) * 1_000)})


def _count(figures: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = figures.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is not a count")
    return value
