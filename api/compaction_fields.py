"""What the API takes and tells of long threads."""

from typing import Annotated

import msgspec
from aiohttp import web

from api.context import caller, services
from qlaud_actors.conversation.context import MAX_THRESHOLD, MIN_THRESHOLD
from qlaud_actors.conversation.model import Compaction
from qlaud_actors.money import nanos_to_micros
from qlaud_actors.providers.routing import candidates

Threshold = Annotated[float, msgspec.Meta(ge=MIN_THRESHOLD, le=MAX_THRESHOLD)]


def compaction_object(found: Compaction | None) -> dict[str, object] | None:
    """What stands for a thread's oldest messages, as the API shows it; null while nothing does."""
    if found is None or found.summary is None:
        return None
    return {
        "summary": found.summary,
        "summarized_through_seq": found.summarized_through_seq,
        "version": found.version,
        "trimmed_through_seq": found.trimmed_through_seq,
        "omitted": found.omitted,
        "model": found.model,
        "cost_micros": nanos_to_micros(found.cost_nanos),
        "created_at": found.created_at_ms,
    }


def check_model(request: web.Request, slug: str | None) -> None:
    """Raise UnknownModel, or ScopeMissing for a model that the key may not use."""
    if slug is not None:
        hub = services(request)
        limits = caller(request).limits
        candidates(hub.catalog, slug, lambda _: True, (), limits.allows)
