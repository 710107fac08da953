r"""How many input tokens a request can cost at most, found without a tokenizer. Pure.

Why it is a bound:

* Every tokenizer in use works on UTF-8 bytes (byte-level BPE, or SentencePiece with byte fallback): a
  token stands for at least one byte, so a text has no more tokens than bytes.
* JSON is counted with spaces and `\u` escapes, the longest usual form in which a provider may show it
  to its model.
* What a provider adds around messages, blocks, tools is covered by allowances several times above what
  vendors document (Anthropic's system prompt for tool use is the longest: some 300 to 700 tokens).
* A picture counts what its provider bills for the largest one, whatever its encoded size.
* A file whose text cannot be seen from outside (a PDF is compressed), or text that is cut into citable
  pieces, may fill the window.
* No provider takes an input longer than the window.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from qlaud_actors.providers.model import Block, Message, Model, ModelRequest

REQUEST_TOKENS = 64
MESSAGE_TOKENS = 16
BLOCK_TOKENS = 16
NAME_TOKENS = 64
"""A tool's name on the wire may be longer than ours; this is the longest that a wire allows."""

TOOL_TOKENS = 64
TOOL_USE_TOKENS = 1_000
"""Once for all tools: the instructions that a provider adds when there are any."""

VENDOR_TOOL_TOKENS = 8_000
"""For a tool that a vendor defines by its type: schema and instructions are its own and not seen here
(Anthropic documents some 250 to 1,300 for each, November 2026).
"""

FILE_TOKENS, BYTES_PER_FILE_TOKEN = 10_000, 2
"""Of a file that is somewhere else, and of one that came along in base64, for the room that it takes."""

_spelled = json.JSONEncoder(default=str).encode

BYTES_PER_TOKEN = 4
"""Of ordinary text: for estimates only."""


def input_bound(request: ModelRequest, model: Model) -> int:
    """The most input tokens that `model`'s provider can bill for `request`; at most the window."""
    return min(_request(request, _Measure(model)), model.context_window)


def input_estimate(request: ModelRequest, model: Model) -> int:
    """A likely count of input tokens, for a call that broke off before its provider told one."""
    return min(_request(request, _Guess(model)) // BYTES_PER_TOKEN + 1, model.context_window)


def fixed_tokens(request: ModelRequest, model: Model) -> int:
    """The most that all but the messages can take of a window, which may be more than there is."""
    return _request(replace(request, messages=()), _Room(model))


def message_tokens(message: Message, model: Model) -> int:
    """The most that one message can take of it."""
    return MESSAGE_TOKENS + _Room(model).content(message.content)


def likely_tokens(request: ModelRequest, model: Model) -> int:
    """What a request probably takes of it, files aside: nobody here knows how long they are."""
    return _request(request, _Seen(model)) // BYTES_PER_TOKEN


def _request(request: ModelRequest, measure: "_Measure") -> int:
    tokens = REQUEST_TOKENS + _json_bytes(request.params)
    tokens += measure.content(request.system or "")
    if request.tools:
        tokens += TOOL_USE_TOKENS
    for tool in request.tools:
        spelled = (tool.name, tool.description, tool.input_schema, tool.extra)
        tokens += TOOL_TOKENS + NAME_TOKENS + _json_bytes(spelled)
        if tool.extra.get("type") not in (None, "custom", "function"):
            tokens += VENDOR_TOOL_TOKENS
    for message in request.messages:
        tokens += MESSAGE_TOKENS + measure.content(message.content)
    return tokens


class _Measure:
    """Measures contents for one model."""

    def __init__(self, model: Model) -> None:
        self._window = model.context_window
        self._image = model.image_tokens or model.provider.image_tokens

    def content(self, content: Any) -> int:
        """Tokens of a message's or a result's content."""
        if isinstance(content, str):
            return BLOCK_TOKENS + _bytes(content)
        if isinstance(content, list):
            return sum(
                self.block(block) if isinstance(block, dict) else _json_bytes(block) for block in content
            )
        return _json_bytes(content)

    def block(self, block: Block) -> int:
        """Tokens of one block. A kind that is unknown here counts as its JSON."""
        tokens = BLOCK_TOKENS
        citations = block.get("citations")
        if isinstance(citations, dict) and citations.get("enabled"):
            tokens += self.unseen({})
        match block.get("type"):
            case "image":
                source = block.get("source") or {}
                tokens += self.unseen(source) if _is_file(source) else self._image
            case "document":
                tokens += self._document(block)
            case "tool_result":
                rest = {name: value for name, value in block.items() if name != "content"}
                tokens += NAME_TOKENS + _json_bytes(rest) + self.content(block.get("content"))
            case "text" if isinstance(text := block.get("text"), str):
                rest = {name: value for name, value in block.items() if name not in ("type", "text")}
                tokens += _bytes(text) + (_json_bytes(rest) if rest else 0)
            case kind:
                tokens += NAME_TOKENS + _json_bytes(block)
                if str(kind).endswith("_tool_result"):
                    tokens += sum(map(self.block, _attached(block)))
        return tokens

    def _document(self, block: Block) -> int:
        rest = {name: value for name, value in block.items() if name != "source"}
        source = block.get("source")
        if isinstance(source, dict) and source.get("type") in ("text", "content"):
            inner = source.get("data") if source["type"] == "text" else source.get("content")
            return _json_bytes(rest) + self.content(inner)
        return self.unseen(source if isinstance(source, dict) else {})

    def unseen(self, source: Block) -> int:
        """Tokens of what cannot be seen from outside."""
        return self._window


class _Guess(_Measure):
    """The same for estimates: a file counts its encoded size."""

    def unseen(self, source: Block) -> int:
        return len(str(source.get("data") or ""))


class _Room(_Measure):
    """The same for the room in a window, where a file must leave some to the rest. That is no bound; what
    the file took is known after the first answer.
    """

    def unseen(self, source: Block) -> int:
        size = len(str(source.get("data") or "")) // BYTES_PER_FILE_TOKEN
        return min(size or FILE_TOKENS, self._window // 4)


class _Seen(_Measure):
    """The same without files."""

    def unseen(self, source: Block) -> int:
        return 0


def _is_file(source: Any) -> bool:
    """Whether what is called a picture says that it is another kind of file, which some servers read."""
    if not isinstance(source, dict):
        return False
    kind, url = source.get("media_type"), str(source.get("url") or "")
    called = kind if isinstance(kind, str) else url.removeprefix("data:") if url[:5] == "data:" else "image/"
    return not called.lower().startswith("image/")


def _attached(value: Any) -> Iterator[Block]:
    """Files and pictures at any depth, as a provider's own tool brings them."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        if isinstance(one, dict) and one.get("type") in ("document", "image"):
            yield one
        else:
            yield from _attached(one)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json_bytes(value: Any) -> int:
    return 2 if value == {} else len(_spelled(value))
