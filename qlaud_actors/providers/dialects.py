"""Where servers of the OpenAI family differ in what they accept. One line for each that needs it."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from qlaud_actors.providers.model import Model
from qlaud_actors.providers.names import legal

_ALPHANUMERIC = re.compile(r"[a-zA-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one server wants otherwise than most."""

    limit_field: str = "max_tokens"
    takes_stream_options: bool = True
    """Else it reports usage unasked and refuses to be asked."""
    own_limit: bool = False
    """Without a limit it stops at the catalogue's `max_output_tokens` by itself; others are told."""
    fixed_sampling: bool = False
    """Its reasoning models refuse any temperature and top_p but their default."""
    resells: bool = False
    """It picks a host of its own for each call and must be told how much one may cost."""
    call_id_length: int | None = None
    """The exact length of a tool call's id, letters and digits only; else at most 40 of any."""

    def call_id(self, tool_use_id: str) -> str:
        """The id itself where the server accepts it, else one that depends on it alone."""
        length = self.call_id_length
        if length is None:
            return tool_use_id if len(tool_use_id) <= MAX_CALL_ID else legal(tool_use_id, MAX_CALL_ID)
        if len(tool_use_id) == length and _ALPHANUMERIC.fullmatch(tool_use_id):
            return tool_use_id
        return hashlib.sha256(tool_use_id.encode()).hexdigest()[:length]


PICOS_PER_USD = 1_000_000
"""Pico-USD per token that are one dollar per million tokens."""

MAX_CALL_ID = 40
"""OpenAI's limit; ids of other vendors can be longer."""

USUAL = Dialect()
_OPENAI = Dialect(limit_field="max_completion_tokens", own_limit=True, fixed_sampling=True)
_DIALECTS = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    # openrouter.ai/docs, "Provider Routing": `provider.max_price`, in dollars per million tokens.
    "openrouter": Dialect(resells=True),
    # 422 `extra_forbidden` for stream_options, 400 for other ids: avante.nvim 2347, opencode 1680.
    "mistral": Dialect(takes_stream_options=False, call_id_length=9),
}


def price_limit(model: Model) -> dict[str, Any]:
    """The fields that keep a reseller from hosts dearer than the catalogue says; none for others."""
    if not dialect_of(model).resells:
        return {}
    rates = model.price.dearest(model.context_window)
    dollars = {"prompt": rates.input / PICOS_PER_USD, "completion": rates.output / PICOS_PER_USD}
    return {"provider": {"max_price": dollars}}


def dialect_of(model: Model) -> Dialect:
    """The dialect of the model's provider."""
    return _DIALECTS.get(model.provider.slug, USUAL)
