"""What every forked process has loaded (see `forked.py`): the product, and its packaged files parsed."""

import gc

import api.__main__  # noqa: F401 - to be loaded
import workers.__main__  # noqa: F401 - to be loaded
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.providers.catalog import Catalog

Catalog.load({})
ConnectorCatalog.load({})
gc.freeze()  # the collector of a child does not walk what is shared, which would copy it
