"""How many tokens, or which price, the pictures of a request can be billed at. Pure.

Fixed sizes: OpenAI's table of output tokens by quality and size (image generation guide, "Cost and
latency"). Any size: the tokens are a grid whose long edge depends on the quality, scaled with the area
(OpenAI's calculator for gpt-image-2; its published prices for 1024x1024, 1024x1536 and 1536x1024 come
out of it to the cent). A quality or a size that is left to the model, or that is none which it has (then
the provider refuses it), counts as the dearest.
"""

import re
from collections.abc import Mapping

from qlaud_actors.providers.model import Model

PARTIAL_TOKENS = 100
"""Each picture that is shown half-done costs these on top (image generation guide, "Streaming")."""

MAX_EDGE = 3_840
MAX_PIXELS = 8_294_400
GRID_OFFSET = 2_000_000
GRID_SCALE = 4_000_000
_SIZE = re.compile(r"([0-9]{1,4})x([0-9]{1,4})")


def image_tokens(model: Model, quality: str | None, size: str | None) -> int:
    """The most output tokens of one picture."""
    grid = model.media.image_grid
    if not grid:
        return max(_fitting(model.media.image_tokens, quality, size).values())
    edges = [edge for name, edge in grid.items() if name == quality] or list(grid.values())
    found = _SIZE.fullmatch(size or "")
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_EDGE:
        return max(_dearest_grid(edge) for edge in edges)
    return max(grid_tokens(edge, width, height) for edge in edges)


def grid_tokens(long_edge: int, width: int, height: int) -> int:
    """Output tokens of a picture whose grid has this long edge; the short one is rounded, halves up."""
    longer, shorter = max(width, height), min(width, height)
    short_edge = (2 * long_edge * shorter + longer) // (2 * longer)
    return -(-long_edge * short_edge * (GRID_OFFSET + width * height) // GRID_SCALE)


def image_unit(model: Model, quality: str | None, size: str | None) -> str:
    """The unit that a whole picture is billed in: the dearest that fits."""
    by_looks = {
        name.removeprefix("images/"): rate
        for name, rate in model.price.units.items()
        if name.startswith("images/")
    }
    if not by_looks:
        return "images"
    fitting = _fitting(by_looks, quality, size)
    return f"images/{max(fitting, key=lambda looks: fitting[looks])}"


def _fitting(by_looks: Mapping[str, int], quality: str | None, size: str | None) -> Mapping[str, int]:
    """What has this quality and this size, as far as there is any that has."""
    for place, wanted in enumerate((quality, size)):
        by_looks = {
            looks: value for looks, value in by_looks.items() if looks.split("/")[place] == wanted
        } or by_looks
    return by_looks


def _dearest_grid(long_edge: int) -> int:
    """No grid is more than a square, and none is scaled with more than the largest area."""
    return -(-long_edge * long_edge * (GRID_OFFSET + MAX_PIXELS) // GRID_SCALE)
