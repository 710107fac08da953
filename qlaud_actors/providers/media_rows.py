"""What the catalogue's files say of models that embed, draw, speak or listen, and whether it suffices.

A model is offered only when each unit that its calls can be billed in has a price, and when something
bounds what they can use: otherwise no hold would cover them.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from qlaud_actors.providers.model import MediaLimits

Task: TypeAlias = Literal["text-generation", "embeddings", "image-generation", "tts", "stt"]

UnitPicos: TypeAlias = Annotated[int, Meta(ge=0, le=10**12)]
"""Pico-USD for one unit, at most one dollar (a whole picture)."""

UnitName: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(image_(in|out)put|audio_(in|out)put|characters|audio_ms|images(/[a-z]+/[0-9]+x[0-9]+)?)$"
    ),
]
Tokens: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
Looks: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z]+/[0-9]+x[0-9]+$")]
Quality: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z]+$")]


class MediaRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`media` of a `[[models]]` entry; see `model.MediaLimits`."""

    image_tokens: dict[Looks, Tokens] = {}
    image_grid: dict[Quality, Annotated[int, Meta(ge=1, le=256)]] = {}
    audio_tokens_per_second: Annotated[int, Meta(ge=0, le=1_000)] = 0
    audio_tokens: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    audio_seconds: Annotated[int, Meta(ge=0, le=1_000_000)] = 0

    def limits(self) -> MediaLimits:
        """The same for the rest of the program."""
        return MediaLimits(
            self.image_tokens,
            self.image_grid,
            self.audio_tokens_per_second,
            self.audio_tokens,
            self.audio_seconds,
        )


def task_problem(task: Task, wire: str, units: dict[str, int], media: MediaRow) -> str | None:
    """What keeps a model of this task from being offered; None when nothing does."""
    if task != "text-generation" and wire != "openai":
        return f"{task} needs the wire openai"
    if task in ("text-generation", "embeddings"):
        return None if not units else f"{task} is billed in text tokens alone"
    if task == "image-generation":
        return _image_problem(units, media)
    token_unit, plain_unit = ("audio_output", "characters") if task == "tts" else ("audio_input", "audio_ms")
    if token_unit in units and not media.audio_tokens:
        return f"{token_unit} needs media.audio_tokens, the most of one call"
    if not {token_unit, plain_unit} & units.keys():
        return f"{task} needs a price for {token_unit} or {plain_unit}"
    return None


def _image_problem(units: dict[str, int], media: MediaRow) -> str | None:
    if any(name.startswith("images") for name in units):
        return None
    if not {"image_input", "image_output"} <= units.keys():
        return "image-generation needs prices for image_input and image_output, or for images"
    if not (media.image_tokens or media.image_grid):
        return "image_output needs media.image_tokens or media.image_grid"
    return None
