"""Price overrides as they are asked for, stored and shown. Pure."""

import datetime as dt
import uuid
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from qlaud_actors.providers.model import Model
from qlaud_actors.providers.price_rows import PriceRow
from qlaud_actors.providers.pricing import UNPRICED, Override
from qlaud_actors.usage import Price

LEAD_SECONDS = 30.0
"""How long before its beginning an override is known at the latest: every process has read it by then."""

DEFAULT_LEAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator asks for: another price of a model at a provider, or (None) the files' again."""

    model: Model
    """As it is offered there now."""
    begins_ms: int
    row: PriceRow | None
    before: Price
    """What would count at that moment without the change."""
    source: str
    reason: str
    made_by: uuid.UUID

    @property
    def override(self) -> Override:
        """The same as an entry of the book."""
        provider, slug = self.model.provider.slug, self.model.slug
        return override(provider, slug, self.begins_ms, self.row, self.source)


def override(provider: str, model: str, begins_ms: int, row: PriceRow | None, source: str) -> Override:
    """An override whose price is named by the day on which it begins."""
    day = dt.datetime.fromtimestamp(begins_ms / 1000, dt.UTC).date().isoformat()
    price = row.priced(provider, model, day) if row else None
    return Override(provider, model, begins_ms, price, source, day)


def shown(price: Price) -> dict[str, Any]:
    """A price as rows spell it, with every bucket filled; `price` is null for an unpriced model."""
    further = {
        f.name: getattr(price, f.name) for f in fields(price) if f.name not in ("rates", "tiers", "version")
    }
    tiers = [
        {"above_input_tokens": tier.above_input_tokens, **msgspec.to_builtins(tier.rates)}
        for tier in price.tiers
    ]
    rates = None if price.version == UNPRICED.version else msgspec.to_builtins(price.rates)
    return {"price": rates, "tiers": tiers, **msgspec.to_builtins(further)}
