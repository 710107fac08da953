"""The upper bound of a request's input tokens."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaud_actors.providers.bound import input_bound, input_estimate
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Message, ModelRequest, ToolSpec

CATALOG = Catalog.load({})
MODEL = CATALOG.resolve("claude-haiku-4-5")
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0"}}

texts = st.text(max_size=200)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
blocks: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, texts),
    st.builds(lambda value: {"type": "tool_use", "id": "t", "name": "n", "input": value}, values),
    st.builds(lambda text: {"type": "tool_result", "tool_use_id": "t", "content": text}, texts),
    st.builds(lambda value: {"type": "news", "value": value}, values),
    st.just({"type": "image", "source": {"type": "url", "url": "https://a.test/a.png"}}),
    st.just(PDF),
)
contents: st.SearchStrategy[Any] = st.one_of(texts, st.lists(blocks, max_size=3))
messages = st.builds(Message, st.sampled_from(["user", "assistant"]), contents)
tools = st.builds(ToolSpec, texts, texts, st.dictionaries(texts, values, max_size=3))


def ask(*messages: Message, **rest: Any) -> ModelRequest:
    """A request with these messages."""
    return ModelRequest("m", messages, 100, **rest)


def user(*blocks: dict[str, Any]) -> ModelRequest:
    """A request with one message of these blocks."""
    return ask(Message("user", list(blocks)))


@given(texts, texts, texts)
def test_no_text_has_more_bytes_than_its_bound(system: str, said: str, result: str) -> None:
    """A token stands for at least one byte, so the bytes of all text are a bound and counted in full."""
    content: list[dict[str, Any]] = [
        {"type": "text", "text": said},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": result}]},
    ]
    request = ask(Message("user", content), system=system)
    assert input_bound(request, MODEL) >= sum(len(part.encode()) for part in (system, said, result))


@given(st.lists(messages, max_size=3), messages, st.lists(tools, max_size=2), tools)
def test_more_is_never_bounded_by_less(
    history: list[Message], added: Message, specs: list[ToolSpec], tool: ToolSpec
) -> None:
    """A further message or tool never lowers the bound, and nothing raises it above the window."""
    small = input_bound(ask(*history, tools=tuple(specs)), MODEL)
    longer = input_bound(ask(*history, added, tools=tuple(specs)), MODEL)
    larger = input_bound(ask(*history, tools=(*specs, tool)), MODEL)
    assert 0 < small <= min(longer, larger)
    assert max(longer, larger) <= MODEL.context_window


@given(messages)
def test_an_estimate_lies_below_its_bound(message: Message) -> None:
    """What is billed when a provider told no figures never exceeds what was held."""
    assert 0 < input_estimate(ask(message), MODEL) <= input_bound(ask(message), MODEL)


def test_json_counts_as_the_longest_spelling() -> None:
    """Tool arguments count with escapes and spaces, as a provider may show them to its model."""
    block = {"type": "tool_use", "id": "t", "name": "n", "input": {"q": "日本語"}}
    assert input_bound(user(block), MODEL) > len('{"q": "\\u65e5\\u672c\\u8a9e"}')


def test_a_picture_counts_the_providers_largest_whatever_its_size() -> None:
    """Megabytes of base64 are not text: an image costs what its provider bills for the largest one."""
    picture = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "A" * 5_000_000},
    }
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [picture]}
    plain = input_bound(ask(Message("user", [])), MODEL)
    for block in (picture, nested):
        extra = input_bound(user(block), MODEL) - plain
        assert MODEL.provider.image_tokens <= extra < MODEL.provider.image_tokens + 200


def test_a_model_may_have_dearer_pictures_than_its_provider() -> None:
    """gpt-4o-mini counts one picture as up to 48,169 tokens, four times what its siblings do."""
    picture = {"type": "image", "source": {"type": "url", "url": "https://a.test/a.png"}}
    assert input_bound(user(picture), CATALOG.resolve("gpt-4o-mini")) > 48_169
    assert input_bound(user(picture), CATALOG.resolve("gpt-4o")) < 20_000


@pytest.mark.parametrize(
    "block",
    [
        PDF,
        {"type": "document", "source": {"type": "url", "url": "https://a.test/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "a. b. c."},
            "citations": {"enabled": True},
        },
        {"type": "news", "value": "x" * 1_000_000},
        {"type": "image", "source": PDF["source"]},
        {"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": PDF}},
    ],
)
def test_what_cannot_be_seen_may_fill_the_window(block: dict[str, Any]) -> None:
    """Compressed, remote or split documents have no smaller bound than what the model can take."""
    assert input_bound(user(block), MODEL) == MODEL.context_window
    assert input_bound(user({"type": "tool_result", "tool_use_id": "t", "content": [block]}), MODEL) == (
        MODEL.context_window
    )


def test_a_plain_text_document_counts_its_bytes() -> None:
    """A document whose text is in the request is bounded like any text."""
    source = {"type": "text", "media_type": "text/plain", "data": "é" * 1_000}
    assert 2_000 < input_bound(user({"type": "document", "source": source}), MODEL) < 2_500


def test_an_unseen_file_is_estimated_by_its_size() -> None:
    """The bound of a small PDF is the window; its estimate stays small."""
    assert input_estimate(user(PDF), MODEL) < 200
