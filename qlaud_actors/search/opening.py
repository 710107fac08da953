"""Puts search together for one process."""

from qlaud_actors.db.pool import Pool
from qlaud_actors.embeddings.embedder import Embedder
from qlaud_actors.gateway.relay import Relay
from qlaud_actors.search.embed import Models, OfflineModel, QueryVectors
from qlaud_actors.search.find import Searcher
from qlaud_actors.search.index import open_vector_index
from qlaud_actors.search.indexer import Indexer
from qlaud_actors.search.placing import Placer
from qlaud_actors.settings import Secret, Settings


def open_searcher(settings: Settings, pool: Pool, relay: Relay) -> Searcher:
    """Search over messages; the offline model is loaded at its first use."""
    offline = OfflineModel(Embedder())
    models = Models(offline, relay, settings.embedding_model, settings.embedding_dimensions)
    chroma = open_vector_index(settings.chroma_url) if settings.chroma_url else None
    return Searcher(pool, models, chroma, QueryVectors())


def open_indexer(searcher: Searcher, master_key: Secret | None) -> Indexer:
    """The one who indexes messages, with the parts of a searcher."""
    placer = Placer(searcher.pool, searcher.chroma) if searcher.chroma else None
    return Indexer(searcher.pool, searcher.models, placer, master_key)
