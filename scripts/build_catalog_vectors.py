"""Writes the vectors of the packaged catalogue (`qlaud_actors/tools/catalog_vectors.npz`): half a minute.

Run it when texts of the catalogue have changed. What it lacks is computed at run time, so nothing breaks.
"""

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.embeddings.embedder import Embedder
from qlaud_actors.tools.search_document import of_connector
from qlaud_actors.tools.search_index import Index
from qlaud_actors.tools.search_vectors import PACKAGED, write_packaged


def main() -> None:
    """Embed every text of every packaged connector."""
    connectors = ConnectorCatalog.load({}).connectors.values()
    index = Index.of([document for connector in connectors for document in of_connector(connector)])
    print(f"{write_packaged(index.texts(), Embedder())} vectors, {PACKAGED.stat().st_size} bytes: {PACKAGED}")


if __name__ == "__main__":
    main()
