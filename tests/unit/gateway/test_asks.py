"""What a caller's own body says to hosts that differ."""

import msgspec
import pytest

from qlaud_actors.gateway.asks import OpenAIAsk
from qlaud_actors.providers.catalog import Catalog


@pytest.mark.parametrize(("slug", "sent"), [("gpt-5.4-mini", False), ("deepseek-chat", True)])
def test_a_host_whose_own_limit_is_unknown_is_told_one(slug: str, sent: bool) -> None:
    """What is held for is the catalogue's longest answer: who may write a longer one is told so."""
    model = Catalog.load({}).resolve(slug)
    ask = OpenAIAsk.of({"model": slug, "messages": [{"role": "user", "content": "Hi"}]})
    quote = ask.quote(model, 700)
    assert quote.worst.max_tokens == model.max_output_tokens
    body = msgspec.json.decode(ask.raw(model, model.max_output_tokens).body)
    limits = {name: value for name, value in body.items() if name in ("max_tokens", "max_completion_tokens")}
    assert limits == ({"max_tokens": model.max_output_tokens} if sent else {})
