"""The formats by name, and how a file tells which one it is."""

from itertools import islice

from qlaud_actors.importing import chatgpt, langgraph, openai_threads, own
from qlaud_actors.importing.documents import documents
from qlaud_actors.importing.model import FormatError, Reader

READERS: dict[str, Reader] = {
    "qlaud": own.read,
    "chatgpt": chatgpt.read,
    "openai": openai_threads.read,
    "langgraph": langgraph.read,
}


def recognise(raw: bytes) -> str:
    """The name of a file's format. Raises FormatError."""
    if own.is_export(raw):
        return "qlaud"
    for where, first in islice(documents(raw), 1):
        if "mapping" in first:
            return "chatgpt"
        if "values" in first:
            return "langgraph"
        if "messages" in first or "items" in first:
            return "openai"
        raise FormatError(f"{where} is of no known format; name it with --format")
    raise FormatError("the file is empty")
