"""Bodies and parameters: what is let in, and how what is wrong is named."""

import time
import uuid
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from api import bodies
from qlaud_actors.errors import InvalidRequest, NotFound


class Inner(msgspec.Struct):
    """A nested object."""

    size: int


class Body(msgspec.Struct):
    """A body with a required field."""

    name: str
    inner: Inner | None = None


def request(raw: bytes = b"", query: str = "", match: dict[str, str] | None = None) -> web.Request:
    made = make_mocked_request("POST", f"/x?{query}", match_info=match or {})
    made._read_bytes = raw
    return made


async def test_a_body_is_read_into_its_type() -> None:
    """Unknown fields are ignored, as the vendors' servers do."""
    body = await bodies.read_json(request(b'{"name":"\xc3\xbc","inner":{"size":1},"new":[1]}'), Body)
    assert (body.name, body.inner and body.inner.size) == ("ü", 1)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"name":"x"} x', "not valid JSON"),
        (b'{"name":"\xff"}', "not valid JSON"),
        (b'{"name":"x","ignored":"\xff"}', "not valid JSON"),
        (b'{"name":"\\ud800"}', "not valid JSON"),
        (b'{"name":NaN}', "not valid JSON"),
        (b"[]", "object"),
        (b"{}", "`name`"),
        (b'{"name":5}', "`name`"),
        (b'{"name":"x","inner":{"size":"1"}}', "`inner.size`"),
        (b'{"name":"x","inner":' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper"),
        (b"[" * 200_000, "nested deeper"),
    ],
)
async def test_what_is_wrong_with_a_body_is_named(raw: bytes, words: str) -> None:
    """A sentence with the field, as a 400."""
    with pytest.raises(InvalidRequest) as caught:
        await bodies.read_json(request(raw), Body)
    assert words in caught.value.message


async def test_an_empty_body_may_stand_for_an_empty_object() -> None:
    """Where all fields are optional, nothing need be sent."""

    class Optional(msgspec.Struct):
        a: int = 1

    assert (await bodies.read_json(request(b" \n"), Optional, allow_empty=True)).a == 1


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":' * 63 + b"1" + b"}" * 63,
        b'{"a":"' + b"[" * 1000 + b'"}',
        b'{"a":"\\"' + b"{" * 1000 + b'"}',
        b'{"a":"\\\\","b":[' + b"1," * 1000 + b"1]}",
        b"[" + b"[]," * 1000 + b"[]]",
    ],
)
def test_brackets_in_strings_and_side_by_side_are_not_depth(raw: bytes) -> None:
    """Only nesting counts."""
    bodies.check_depth(raw)


@pytest.mark.parametrize("filler", [b'"' + b"A" * 16_000_000 + b'"', b'"' + b"\\n" * 8_000_000 + b'"'])
def test_a_large_string_is_checked_in_passing(filler: bytes) -> None:
    """An image of 16 MB must not stop the event loop for seconds."""
    start = time.perf_counter()
    bodies.check_depth(b'{"a":' + filler + b"}")
    assert time.perf_counter() - start < 1.5


@pytest.mark.parametrize("value", ["a\x00b", {"a": ["\x00"]}, {"\x00": 1}, ["x", {"y": "\x00"}]])
def test_nul_is_refused_wherever_it_hides(value: Any) -> None:
    """Postgres text cannot hold it."""
    with pytest.raises(InvalidRequest, match="`metadata`"):
        bodies.no_nul("metadata", value)


@pytest.mark.parametrize("value", [None, "", "\\u0000", {"a": "\\u0000"}, {"a": None}, [1, "\x01"]])
def test_what_only_looks_like_nul_passes(value: Any) -> None:
    """The six characters that spell it in JSON are plain text."""
    bodies.no_nul("metadata", value)


def test_a_path_without_a_uuid_names_nothing() -> None:
    """404, not 400: to the caller there is no such thing."""
    known = uuid.uuid4()
    assert bodies.path_uuid(request(match={"id": str(known)}), "id") == known
    for text in ("x", "", "1", str(known)[:-1], "{" + str(known) + "}", known.hex):
        with pytest.raises(NotFound):
            bodies.path_uuid(request(match={"id": text}), "id")


@pytest.mark.parametrize("text", ["x", "1.5", "-1", "0", "201", "1e2", "٣", "9" * 5000, "+5", " 5"])
def test_a_number_out_of_range_is_refused(text: str) -> None:
    """The sentence tells the range."""
    from urllib.parse import quote

    with pytest.raises(InvalidRequest, match="`limit` must be a whole number from 1 to 200"):
        bodies.query_int(request(query=f"limit={quote(text)}"), "limit", 20, 1, 200)


def test_a_number_of_the_query_has_a_default() -> None:
    """Absent is not zero."""
    assert bodies.query_int(request(), "limit", 20, 1, 200) == 20
    assert bodies.query_int(request(query="limit=200"), "limit", 20, 1, 200) == 200


def test_texts_and_choices_of_the_query() -> None:
    """Empty is absent; NUL and unknown words are refused."""
    assert bodies.query_text(request(query="q=a%20b"), "q") == "a b"
    assert bodies.query_text(request(query="q="), "q") is None
    with pytest.raises(InvalidRequest):
        bodies.query_text(request(query="q=%00"), "q")
    assert bodies.query_choice(request(), "order", "asc", ("asc", "desc")) == "asc"
    with pytest.raises(InvalidRequest, match="asc, desc"):
        bodies.query_choice(request(query="order=up"), "order", "asc", ("asc", "desc"))
