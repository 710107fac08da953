"""A reseller is told what a call may cost."""

from collections.abc import Callable

from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.providers.openai import OpenAIWire


def test_openrouter_is_kept_to_the_price_of_the_catalogue(
    ask: Callable[..., ModelRequest], model: Callable[..., Model]
) -> None:
    """In dollars per million tokens, at the dearest tier that a call can reach; others hear nothing."""
    catalog = Catalog.load({"OPENROUTER_API_KEY": "k"})
    body = OpenAIWire().encode(ask(), catalog.resolve("gpt-oss-120b")).body
    assert body["provider"] == {"max_price": {"prompt": 0.1, "completion": 0.5}}
    tiered = OpenAIWire().encode(ask(), catalog.resolve("gpt-5.4")).body
    assert tiered["provider"] == {"max_price": {"prompt": 5.0, "completion": 22.5}}
    assert "provider" not in OpenAIWire().encode(ask(), model("openai")).body
