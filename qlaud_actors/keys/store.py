"""Rows ↔ keys."""

from qlaud_actors.db.pool import Record
from qlaud_actors.db.queries import load_queries
from qlaud_actors.keys.model import ApiKey, KeyLimits

QUERIES = load_queries("qlaud_actors.keys")

FIELDS = ApiKey.__dataclass_fields__.keys() - {"limits", "remembered"}


def key_from(row: Record) -> ApiKey:
    """A key from its row joined with its budget."""
    models = row["allowed_models"]
    limits = KeyLimits(
        row["rpm"],
        row["tpm"],
        row["max_concurrent"],
        None if models is None else tuple(models),
        row["expires_at_ms"],
    )
    return ApiKey(limits=limits, **{name: row[name] for name in FIELDS})
