"""Golden prices of pictures, sound and vectors: published examples, through the packaged catalogue."""

from fractions import Fraction

import pytest

from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.image_bound import grid_tokens, image_tokens, image_unit
from qlaud_actors.providers.media_usage import read_usage
from qlaud_actors.providers.model import MediaLimits, Model
from qlaud_actors.usage import Price, Usage, WorstCase

CATALOG = Catalog.load({"XAI_API_KEY": "x"})
PICOS = 10**12


def usd(slug: str, usage: Usage) -> Fraction:
    """Dollars of a usage at the packaged price."""
    return Fraction(CATALOG.resolve(slug).price.cost_picos(usage), PICOS)


@pytest.mark.parametrize(
    ("slug", "quality", "size", "dollars"),
    [
        # developers.openai.com/api/docs/guides/image-generation, "Calculating costs", read 2026-11-24.
        ("gpt-image-2", "low", "1024x1024", "0.006"),
        ("gpt-image-2", "low", "1024x1536", "0.005"),
        ("gpt-image-2", "medium", "1024x1024", "0.053"),
        ("gpt-image-2", "medium", "1536x1024", "0.041"),
        ("gpt-image-2", "high", "1024x1024", "0.211"),
        ("gpt-image-2", "high", "1024x1536", "0.165"),
        ("gpt-image-1.5", "low", "1024x1024", "0.009"),
        ("gpt-image-1.5", "medium", "1024x1024", "0.034"),
        ("gpt-image-1.5", "high", "1024x1024", "0.133"),
        ("gpt-image-1.5", "high", "1024x1536", "0.200"),
        ("gpt-image-1", "low", "1024x1024", "0.011"),
        ("gpt-image-1", "medium", "1024x1536", "0.063"),
        ("gpt-image-1", "high", "1024x1024", "0.167"),
        ("gpt-image-1", "high", "1536x1024", "0.250"),
    ],
)
def test_a_picture_costs_what_its_maker_publishes(slug: str, quality: str, size: str, dollars: str) -> None:
    """The tokens of each quality and size come to the published price, within its rounding."""
    tokens = image_tokens(CATALOG.resolve(slug), quality, size)
    cost = usd(slug, Usage(units={"image_output": tokens}))
    assert abs(cost - Fraction(dollars)) <= Fraction("0.002")


@pytest.mark.parametrize(
    ("quality", "size", "dollars"),
    [("low", "1024x1024", "0.005"), ("medium", "1024x1536", "0.015"), ("high", "1536x1024", "0.052")],
)
def test_the_bound_of_gpt_image_1_mini_covers_its_published_prices(
    quality: str, size: str, dollars: str
) -> None:
    """Its prices per picture are above its table of tokens: the bound is never below them, nor far above."""
    tokens = image_tokens(CATALOG.resolve("gpt-image-1-mini"), quality, size)
    cost = usd("gpt-image-1-mini", Usage(units={"image_output": tokens}))
    assert Fraction(dollars) <= cost <= Fraction(dollars) + Fraction("0.0006")


@pytest.mark.parametrize(
    ("edge", "width", "height", "tokens"),
    [
        # Bills of gpt-image-2 and 2.5 for a square; OpenAI's calculator for the rest.
        (16, 1_024, 1_024, 196),
        (48, 1_024, 1_024, 1_756),
        (96, 1_024, 1_024, 7_024),
        (96, 1_536, 1_024, 5_488),
        (96, 1_792, 1_024, 5_063),
        (96, 3_584, 2_048, 12_329),
    ],
)
def test_the_grid_is_the_calculators(edge: int, width: int, height: int, tokens: int) -> None:
    """Six known sizes, and each lying on its side."""
    assert grid_tokens(edge, width, height) == tokens
    assert grid_tokens(edge, height, width) == tokens


@pytest.mark.parametrize(
    ("slug", "units", "dollars"),
    [
        ("whisper-1", {"audio_ms": 60_000}, "0.006"),  # $0.006 a minute (OpenAI, pricing)
        ("gpt-transcribe", {"audio_ms": 60_000}, "0.0045"),  # $0.0045 a minute
        ("tts-1", {"characters": 1_000_000}, "15"),  # $15 for a million characters
        ("tts-1-hd", {"characters": 1_000_000}, "30"),
        ("gpt-4o-mini-tts", {"audio_output": 20 * 60}, "0.0144"),  # about $0.015 a minute
        ("gpt-4o-transcribe", {"audio_input": 1_000_000}, "6"),
        ("gpt-4o-mini-transcribe", {"audio_input": 1_000_000}, "3"),
        ("grok-imagine-image", {"images": 1}, "0.02"),
    ],
)
def test_units_cost_what_is_published(slug: str, units: dict[str, int], dollars: str) -> None:
    """A minute, a million characters, a picture: exact, no part of a pico-dollar is lost."""
    assert usd(slug, Usage(units=units)) == Fraction(dollars)


def test_text_beside_pictures_is_priced_apart() -> None:
    """A prompt, a picture to edit and a new one, each at its own rate: $5, $10 and $40 for a million."""
    told = {
        "input_tokens": 150,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 100},
        "output_tokens": 272,
        "total_tokens": 422,
    }
    usage = read_usage({"usage": told}, CATALOG.resolve("gpt-image-1").price)
    assert usage == Usage(input=50, units={"image_input": 100, "image_output": 272})
    assert usd("gpt-image-1", usage) == Fraction(50 * 5 + 100 * 10 + 272 * 40, 10**6)


@pytest.mark.parametrize(
    ("slug", "answer", "usage"),
    [
        ("whisper-1", {"usage": {"type": "duration", "seconds": 9}}, Usage(units={"audio_ms": 9_000})),
        ("whisper-1", {"duration": 8.4700002}, Usage(units={"audio_ms": 8_471})),
        ("whisper-1", {"text": "Hi"}, None),
        ("whisper-1", {"usage": {"type": "tokens", "input_tokens": 5, "output_tokens": 5}}, None),
        ("whisper-1", {"usage": {"prompt_audio_seconds": 4}}, Usage(units={"audio_ms": 4_000})),
        ("gpt-4o-transcribe", {"usage": {"type": "duration", "seconds": 9}}, None),
        (
            "gpt-4o-transcribe",
            {
                "usage": {
                    "type": "tokens",
                    "input_tokens": 114,
                    "input_token_details": {"text_tokens": 14, "audio_tokens": 100},
                    "output_tokens": 45,
                }
            },
            Usage(input=14, output=45, units={"audio_input": 100}),
        ),
        (
            "gpt-4o-transcribe",
            {"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45}},
            Usage(output=45, units={"audio_input": 14}),
        ),
        (
            "gpt-4o-mini-tts",
            {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101}},
            Usage(input=14, units={"audio_output": 101}),
        ),
        ("text-embedding-3-small", {"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(input=8)),
        ("text-embedding-3-small", {"usage": {"prompt_tokens": 0, "total_tokens": 0}}, None),
        (
            "gpt-image-1.5",
            {
                "usage": {
                    "input_tokens": 10,
                    "output_tokens": 300,
                    "output_tokens_details": {"image_tokens": 272, "text_tokens": 28},
                }
            },
            Usage(input=10, output=28, units={"image_output": 272}),
        ),
    ],
)
def test_usage_is_read_into_disjoint_buckets(slug: str, answer: dict, usage: Usage | None) -> None:
    """Every shape in which these routes tell their usage; a total never counts what has its own bucket."""
    assert read_usage(answer, CATALOG.resolve(slug).price) == usage


@pytest.mark.parametrize(
    "figures",
    [{"input_tokens": -1, "output_tokens": 1}, {"output_tokens": 1}, {"input_tokens": "9"}, "x", [1]],
)
def test_figures_that_make_no_sense_are_refused(figures: object) -> None:
    """They raise what the call turns into an unreadable answer."""
    with pytest.raises((ValueError, TypeError, AttributeError)):
        read_usage({"usage": figures}, CATALOG.resolve("gpt-image-2").price)


def test_units_add_up() -> None:
    """Sums of usages keep every unit."""
    first, second = Usage(units={"audio_ms": 1, "characters": 2}), Usage(units={"audio_ms": 4})
    assert (first + second).units == {"audio_ms": 5, "characters": 2}
    assert (first + Usage()).units == first.units


def test_a_unit_without_a_price_is_never_free() -> None:
    """Neither holding nor charging it is possible; models with such units are not offered."""
    price = CATALOG.resolve("whisper-1").price
    with pytest.raises(KeyError):
        price.cost_picos(Usage(units={"characters": 1}))
    with pytest.raises(KeyError):
        WorstCase(price, 0, 0, 700, {"images": 1}).nanos()


def test_units_stand_beside_the_text_in_a_worst_case() -> None:
    """They are held whole, and what is left of the money still buys text."""
    price = CATALOG.resolve("gpt-4o-transcribe").price
    worst = WorstCase(price, 100, 2_000, 0, {"audio_input": 10})
    picos = 100 * 2_500_000 + 2_000 * 10_000_000 + 10 * 6_000_000
    assert worst.nanos() == picos // 1_000
    assert worst.affordable_tokens(worst.with_max_tokens(7).nanos()) == 7
    assert worst.affordable_tokens(worst.with_max_tokens(0).nanos() - 1) == 0


def flat(**units: int) -> Model:
    """A model that is billed by the picture."""
    model = CATALOG.resolve("grok-imagine-image")
    renamed = {name.replace("_", "/"): rate for name, rate in units.items()}
    price = Price(model.price.rates, (), "t", 0, renamed)
    values = {name: getattr(model, name) for name in Model.__slots__}
    return Model(**{**values, "price": price, "media": MediaLimits()})


def test_a_whole_picture_is_billed_as_the_dearest_that_it_can_be() -> None:
    """Quality and size choose the unit; what is left to the model counts as the dearest."""
    model = flat(images_low_512x512=1, images_high_512x512=3, images_high_1024x1024=4)
    assert image_unit(model, "low", "512x512") == "images/low/512x512"
    assert image_unit(model, "high", None) == "images/high/1024x1024"
    assert image_unit(model, None, "512x512") == "images/high/512x512"
    assert image_unit(model, "auto", "auto") == "images/high/1024x1024"
    assert image_unit(flat(images=5), "high", "1x1") == "images"
