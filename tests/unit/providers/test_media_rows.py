"""Rows of models that are billed in units: what is offered, and what is refused at start."""

import re
from pathlib import Path

import pytest

from qlaud_actors.providers.catalog import Catalog, CatalogError

HEAD = """
slug = "own"
display_name = "Own"
wire = "{wire}"
base_url = "https://own.example/v1"
auth_header = "authorization"
api_key_env = "OWN_API_KEY"
base_url_env = "OWN_BASE_URL"
"""
ROW = """
[[models]]
slug = "m"
display_name = "M"
task = "{task}"
context_window = 4_096
max_output_tokens = 0
capabilities = []
price = {{ input = 0, output = 0 }}
source = "a test"
checked = 2026-11-24
{rest}
"""
HOWTO = Path(__file__).parents[3] / "docs/howto/unit-prices.md"


def load(task: str, rest: str = "", wire: str = "openai") -> Catalog:
    """A catalogue of one such model."""
    return Catalog.load({}, {"own.toml": HEAD.format(wire=wire) + ROW.format(task=task, rest=rest)})


@pytest.mark.parametrize(
    ("task", "rest", "words"),
    [
        ("text-generation", "", "max_output_tokens is missing"),
        ("embeddings", "units = { characters = 1 }", "text tokens alone"),
        ("tts", "", "needs a price for audio_output or characters"),
        ("tts", "units = { audio_ms = 1 }", "needs a price for audio_output or characters"),
        ("tts", "units = { audio_output = 1 }", "media.audio_tokens"),
        ("stt", "units = { audio_input = 1 }", "media.audio_tokens"),
        ("stt", "units = { characters = 1 }", "needs a price for audio_input or audio_ms"),
        ("image-generation", "units = { image_output = 1 }", "image_input and image_output"),
        ("image-generation", "units = { image_input = 1, image_output = 1 }", "media.image_tokens"),
        ("image-generation", "units = { pictures = 1 }", "units"),
        ("image-generation", "units = { images = 2_000_000_000_000 }", "units"),
        ("image-generation", 'units = { "images/high" = 1 }', "units"),
        ("stt", "units = { audio_ms = 1 }\nmedia = { audio_minutes = 1 }", "audio_minutes"),
        ("video-generation", "", "task"),
    ],
)
def test_a_row_without_price_or_bound_is_refused(task: str, rest: str, words: str) -> None:
    """The catalogue does not load, and says what is missing: no such model is ever free or unheld."""
    with pytest.raises(CatalogError, match=re.escape(words)):
        load(task, rest)


def test_only_one_wire_carries_them() -> None:
    """Requests pass through in OpenAI's dialect, so their provider has to speak it."""
    with pytest.raises(CatalogError, match="wire"):
        load("tts", "units = { characters = 1 }", wire="anthropic")
    with pytest.raises(CatalogError, match="wire"):
        load("embeddings", wire="anthropic")


def test_rows_that_suffice_are_offered() -> None:
    """Each kind of price, and what bounds it."""
    assert load("embeddings").resolve("m").task == "embeddings"
    assert load("tts", "units = { characters = 5 }").resolve("m").price.units == {"characters": 5}
    both = "units = { images = 5, 'images/high/1x1' = 6 }"
    assert load("image-generation", both).resolve("m").price.units["images/high/1x1"] == 6
    heard = "units = { audio_input = 5 }\nmedia = { audio_tokens = 10, audio_tokens_per_second = 2 }"
    assert load("stt", heard).resolve("m").media.audio_tokens_per_second == 2


def test_an_operators_unit_price_names_its_source(tmp_path: Path) -> None:
    """A price that is laid over another needs the day on which it was read, as all prices do."""
    (tmp_path / "openai.toml").write_text(
        'slug = "openai"\n[[models]]\nslug = "tts-1"\nunits = { characters = 1 }\n'
    )
    with pytest.raises(CatalogError, match="needs its `source`"):
        Catalog.load({}, directory=tmp_path)


def test_the_file_of_the_howto_works(tmp_path: Path) -> None:
    """What the documentation shows is a file that loads."""
    [text] = re.findall(r"```toml\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "own.toml").write_text(text)
    catalog = Catalog.load({}, directory=tmp_path)
    assert catalog.resolve("kokoro").price.units == {"characters": 100_000}
    assert catalog.configured(catalog.resolve("whisper-large-v3").provider)
