"""Rows ↔ keys."""

from qlaud_actors.db.pool import Record
from qlaud_actors.db.queries import load_queries
from qlaud_actors.keys.model import ApiKey

QUERIES = load_queries("qlaud_actors.keys")

FIELDS = ApiKey.__dataclass_fields__


def key_from(row: Record) -> ApiKey:
    """A key from its row joined with its budget."""
    return ApiKey(**{name: row[name] for name in FIELDS})
