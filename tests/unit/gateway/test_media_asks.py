"""What the media routes ask for: worst cases, refusals, and the bodies that leave."""

import base64
from email import message_from_bytes
from typing import Any

import msgspec
import pytest

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.ask_embeddings import EmbeddingsAsk
from qlaud_actors.gateway.ask_images import ImagesAsk
from qlaud_actors.gateway.ask_speech import SpeechAsk
from qlaud_actors.gateway.ask_transcription import TranscriptionAsk
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.form import Part, encode
from qlaud_actors.usage import Usage

CATALOG = Catalog.load({})
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
SMALL = "text-embedding-3-small"


def model(slug: str) -> Any:
    return CATALOG.resolve(slug)


def read_form(body: bytes, content_type: str) -> dict[str, tuple[str | None, bytes]]:
    """A form as Python's own library reads it: name → file name and bytes."""
    parsed = message_from_bytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
    return {
        str(part.get_param("name", header="content-disposition")): (
            part.get_filename(),
            part.get_payload(decode=True),  # type: ignore[dict-item]
        )
        for part in parsed.get_payload()  # type: ignore[union-attr]
    }


@pytest.mark.parametrize(
    ("given", "bound", "likely"),
    [
        ("Hi", 2 + 16, 1),
        ("ü", 2 + 16, 1),
        (["Hi", "there"], 2 + 5 + 32, 3),
        ([1, 2, 3], 3 + 16, 3),
        ([[1, 2], [3]], 3 + 32, 3),
        ("x" * 100_000, 8_192, 25_001),
    ],
)
def test_texts_are_bounded_by_their_bytes_and_tokens_by_their_number(
    given: Any, bound: int, likely: int
) -> None:
    """Texts, lists of them, tokens, lists of those; no text counts more than the model reads."""
    ask = EmbeddingsAsk.of({"model": SMALL, "input": given})
    worst = ask.worst_case(model(SMALL), 0)
    assert (worst.input_bound, worst.max_tokens, worst.units) == (bound, 0, {})
    reading = ask.raw(model(SMALL), 0).reading
    assert reading
    assert reading.sent == Usage(input=likely, estimated=True)


@pytest.mark.parametrize(
    "body",
    [
        {"input": ""},
        {"input": []},
        {"input": ["a", ""]},
        {"input": ["a", 1]},
        {"input": [1, "a"]},
        {"input": [[]]},
        {"input": [-1]},
        {"input": [True]},
        {"input": [2**24]},
        {"input": [1.5]},
        {"input": {"a": 1}},
        {"input": None},
        {"input": ["a"] * 2_049},
        {"input": [[1] * 150_001] * 2},
        {"input": "a", "dimensions": 0},
        {"input": "a", "encoding_format": "int8"},
        {"input": "a", "model": ""},
        {"input": "a", "service_tier": "priority"},
        {"input": "a", "provider": {"order": ["x"]}},
    ],
)
def test_what_cannot_be_embedded_is_refused(body: dict[str, Any]) -> None:
    """Empty, mixed or too many texts, and fields that change the price."""
    with pytest.raises(InvalidRequest):
        EmbeddingsAsk.of({"model": SMALL, **body})


def test_pictures_are_held_as_the_dearest_that_they_can_be() -> None:
    """Each of `n` is billed on its own, with its prompt, what it shows half-done, and what it is made of."""
    plain = ImagesAsk.generation({"model": "gpt-image-1.5", "prompt": "cat"})
    worst = plain.worst_case(model("gpt-image-1.5"), 0)
    assert (worst.input_bound, worst.max_tokens, worst.units) == (3 + 256, 1_024, {"image_output": 6_240})
    body = {"model": "gpt-image-1.5", "prompt": "cat", "n": 3, "quality": "low", "size": "1024x1024"}
    worst = ImagesAsk.generation(body).worst_case(model("gpt-image-1.5"), 0)
    assert (worst.input_bound, worst.units) == (3 * 259, {"image_output": 3 * 272})
    stream = ImagesAsk.generation({**body, "n": 1, "stream": True, "partial_images": 3})
    assert stream.worst_case(model("gpt-image-1.5"), 0).units == {"image_output": 272 + 300}
    picture = base64.b64encode(PNG).decode()
    edit = ImagesAsk.json_edit({**body, "n": 2, "image": [picture, picture], "mask": picture})
    assert edit.worst_case(model("gpt-image-1.5"), 0).units == {
        "image_output": 2 * 272,
        "image_input": 2 * 3 * 7_400,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 0},
        {"n": 11},
        {"prompt": ""},
        {"prompt": "x" * 32_001},
        {"output_format": "gif"},
        {"output_format": "svg"},
        {"svg": {"model": "x"}},
        {"frame_count": 16},
        {"complexity": "high"},
        {"images": [{"image_url": "https://x"}]},
        {"stream": True, "n": 2},
        {"partial_images": 4},
        {"model": 5},
        {"models": "x"},
    ],
)
def test_pictures_that_no_hold_covers_are_refused(fields: dict[str, Any]) -> None:
    """Numbers out of range, and whatever is billed beside pictures."""
    with pytest.raises(InvalidRequest):
        ImagesAsk.generation({"model": "gpt-image-2", "prompt": "cat", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image": "!"},
        {"image": 5},
        {"image": base64.b64encode(b"text").decode()},
        {"image": [base64.b64encode(PNG).decode()] * 17},
        {"mask": base64.b64encode(PNG).decode()},
    ],
)
def test_edits_need_pictures(fields: dict[str, Any]) -> None:
    """In base64, with the signature of a format, and not too many."""
    with pytest.raises(InvalidRequest):
        ImagesAsk.json_edit({"model": "gpt-image-2", "prompt": "cat", **fields})


def test_edits_leave_as_a_form() -> None:
    """JSON and forms become the same: fields as texts, pictures with the type that their bytes show."""
    encoded = "data:image/png;base64," + base64.b64encode(PNG).decode()
    body = {"model": "gpt-image-2", "prompt": "cät", "n": 2, "image": encoded, "user": None}
    ask = ImagesAsk.json_edit(body)
    raw = ask.raw(model("gpt-image-2"), 0)
    assert raw.path == "/images/edits"
    assert read_form(raw.body, raw.headers["content-type"]) == {
        "prompt": (None, "cät".encode()),
        "n": (None, b"2"),
        "model": (None, b"gpt-image-2"),
        "image": ("picture.png", PNG),
    }
    fields = (Part("model", b"gpt-image-2"), Part("prompt", b"cat"), Part("n", b"2"))
    ask = ImagesAsk.form_edit((*fields, Part("image", PNG, "c.jpg")))
    assert ask.read.n == 2
    assert ask.pictures == (Part("image", PNG, "c.jpg", "image/png"),)


def test_a_form_cannot_be_broken_out_of() -> None:
    """Quotes and line ends in names are escaped, so that no caller writes a part of ours."""
    body, kind = encode([Part('a"\r\nx: y', b"1", 'f"\r\n', "t/x\r\nevil: 1"), Part("b", b"2")])
    assert b"\r\nx: y" not in body
    assert b"\r\nevil" not in body
    assert set(read_form(body, kind)) == {"a%22%0D%0Ax: y", "b"}


def test_speech_is_held_by_its_characters_or_by_the_most_sound() -> None:
    """Characters are exact before anything is sent; tokens of sound are bounded by the model alone."""
    ask = SpeechAsk.of({"model": "tts-1", "voice": "alloy", "input": "Grüße"})
    assert ask.worst_case(model("tts-1"), 0).units == {"characters": 5}
    raw = ask.raw(model("tts-1"), 0)
    assert raw.reading
    assert (raw.reading.form, raw.reading.sent) == ("bytes", Usage(units={"characters": 5}))
    worst = ask.worst_case(model("gpt-4o-mini-tts"), 0)
    assert (worst.input_bound, worst.units) == (7 + 64, {"audio_output": 16_384})
    raw = ask.raw(model("gpt-4o-mini-tts"), 0)
    assert msgspec.json.decode(raw.body)["stream_format"] == "sse"
    assert raw.reading
    assert raw.reading.form == "sound_of_events"


@pytest.mark.parametrize(
    "fields",
    [
        {"input": ""},
        {"input": "x" * 32_001},
        {"voice": None},
        {"response_format": "midi"},
        {"speed": 5},
        {"stream_format": "ws"},
        {"instructions": 1},
    ],
)
def test_what_cannot_be_spoken_is_refused(fields: dict[str, Any]) -> None:
    """Missing, too long, or no format that there is."""
    with pytest.raises(InvalidRequest):
        SpeechAsk.of({"model": "tts-1", "voice": "alloy", "input": "Hi", **fields})


def heard(slug: str, data: bytes = b"ID3" + bytes(59_997), **fields: str) -> TranscriptionAsk:
    """A minute of MP3 at its lowest rate."""
    parts = [Part(name, value.encode()) for name, value in {"model": slug, **fields}.items()]
    return TranscriptionAsk.of((*parts, Part("file", data, "a.mp3", "audio/mpeg")))


def test_recordings_are_held_by_their_longest() -> None:
    """By time where time is billed; by tokens where these are, at most what a call may have."""
    assert heard("whisper-1").worst_case(model("whisper-1"), 0).units == {"audio_ms": 60_000}
    ask = heard("gpt-4o-transcribe", prompt="Ada")
    worst = ask.worst_case(model("gpt-4o-transcribe"), 0)
    assert (worst.input_bound, worst.max_tokens, worst.units) == (3 + 64, 2_000, {"audio_input": 1_200})
    long = heard("gpt-4o-transcribe", b"ID3" + bytes(10**7))
    assert long.worst_case(model("gpt-4o-transcribe"), 0).units == {"audio_input": 16_000}
    quote = ask.quote(model("gpt-4o-transcribe"), 0)
    assert quote.floor_tokens == quote.worst.max_tokens  # whole or not at all


def test_only_models_that_stream_are_asked_to() -> None:
    """Whisper would answer in one body, which no reader of events expects."""
    with pytest.raises(InvalidRequest, match="does not stream"):
        heard("whisper-1", stream="true").worst_case(model("whisper-1"), 0)
    assert heard("gpt-4o-transcribe", stream="true").worst_case(model("gpt-4o-transcribe"), 0)


def test_a_bare_text_is_asked_for_as_json() -> None:
    """The provider tells the usage in JSON only; all other fields and the file leave as they came."""
    raw = heard("whisper-1", response_format="text", language="de").raw(model("whisper-1"), 0)
    sent = read_form(raw.body, raw.headers["content-type"])
    assert set(sent) == {"model", "language", "file"}
    assert sent["file"][0] == "a.mp3"
    srt = heard("whisper-1", response_format="srt").raw(model("whisper-1"), 0)
    assert read_form(srt.body, srt.headers["content-type"])["response_format"] == (None, b"srt")
    assert srt.reading
    ends = b"1\n00:00:00,000 --> 00:01:02,500\nHi\n"
    assert srt.reading.read_text(ends) == Usage(units={"audio_ms": 63_000}, estimated=True)
    assert srt.reading.read_text(b"WEBVTT\n\n00:00.000 --> 00:09.100\nHi\n") == Usage(
        units={"audio_ms": 10_000}, estimated=True
    )


@pytest.mark.parametrize(
    "parts",
    [
        (Part("model", b"whisper-1"),),
        (Part("model", b"whisper-1"), Part("file", b"")),
        (Part("model", b"whisper-1"), Part("file", b"x"), Part("file", b"y")),
        (Part("file", b"x"),),
        (Part("model", b"whisper-1"), Part("model", b"tts-1"), Part("file", b"x")),
        (Part("model", b"whisper-1"), Part("response_format", b"docx"), Part("file", b"x")),
        (Part("model", b"whisper-1"), Part("stream", b"perhaps"), Part("file", b"x")),
        (Part("model", b"whisper-1"), Part("url", b"https://a.test/long.mp3"), Part("file", b"x")),
        (Part("model", b"whisper-1"), Part("known_speaker_references[]", b"data:"), Part("file", b"x")),
    ],
)
def test_what_cannot_be_heard_is_refused(parts: tuple[Part, ...]) -> None:
    """No recording, two of them, more of them elsewhere, a field twice, a format that there is not."""
    with pytest.raises(InvalidRequest):
        TranscriptionAsk.of(parts)
