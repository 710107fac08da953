"""What the tests of the wires share: a model to ask, a request to make, and the recorded streams."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlaud_actors.providers.model import Message, Model, ModelRequest, Provider, ToolSpec
from qlaud_actors.usage import Price, Rates

RECORDED = Path(__file__).parents[2] / "wire"


@pytest.fixture
def recorded() -> Callable[[str], bytes]:
    """The bytes of a recorded answer by file name."""
    return lambda name: (RECORDED / name).read_bytes()


@pytest.fixture
def model() -> Callable[..., Model]:
    """Make a model of a provider with capabilities."""

    def make(provider: str = "openai", *capabilities: str, upstream: str = "upstream-1") -> Model:
        wire = "anthropic" if provider == "anthropic" else "openai"
        host = Provider(provider, provider, wire, "http://127.0.0.1", "authorization", "KEY", "URL")
        price = Price(Rates(1, 2, 1, 1, 1), (), "test@2026-11-24")
        return Model("slug", upstream, "Name", host, 100_000, 8_000, capabilities, price, "", "")

    return make


@pytest.fixture
def ask() -> Callable[..., ModelRequest]:
    """Make a request; a plain question unless told otherwise."""

    def make(*messages: Message, tools: tuple[str, ...] = (), **fields: Any) -> ModelRequest:
        specs = tuple(ToolSpec(name, f"Does {name}.", {"type": "object"}) for name in tools)
        asked = messages or (Message("user", "Hi"),)
        return ModelRequest("slug", asked, fields.pop("max_tokens", 1000), tools=specs, **fields)

    return make
