"""The decoder of streamed Chat Completions, with the liberties that compatible servers take."""

import secrets
from typing import Any

from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.ids import new_message_id
from qlaud_actors.providers import failure
from qlaud_actors.providers.brackets import Brackets
from qlaud_actors.providers.model import Block, MessageEnded, MessageStarted, ModelEvent
from qlaud_actors.providers.names import ToolNames
from qlaud_actors.providers.stream import CUT, JsonStream, read_object
from qlaud_actors.usage import Usage

_STOP_REASONS = {"length": "max_tokens", "content_filter": "refusal"}
# OpenRouter and DeepSeek report a failure of theirs as the reason for the end.
_BROKEN = frozenset({"error", "insufficient_system_resource"})


class OpenAIDecoder(JsonStream):
    """Decodes chat chunks. The answer ends with `[DONE]`, or with the stream once a reason was given."""

    def __init__(self, names: ToolNames, taken_ids: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._names = names
        self._brackets = Brackets()
        self._calls = _Calls(taken_ids)
        self._reason: str | None = None
        self._refused = False
        self._metered = False
        self._started = False
        self._ended = False

    def _take(self, data: str) -> list[ModelEvent]:
        if self._ended:
            return []
        if data.strip() == "[DONE]":
            return self._close(done=True)
        chunk = read_object(data)
        if chunk.get("error"):
            raise failure.from_event(chunk["error"])
        choice = next((c for c in chunk.get("choices") or () if not c.get("index")), None)
        self._meter(chunk.get("usage") or (choice or {}).get("usage"))
        return [] if choice is None else self._choice(chunk, choice)

    def _choice(self, chunk: dict[str, Any], choice: dict[str, Any]) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        if not self._started:
            self._started = True
            events.append(MessageStarted(chunk.get("id") or new_message_id(), self.usage))
        events += self._delta(choice.get("delta") or {})
        if reason := choice.get("finish_reason"):
            if reason in _BROKEN:
                raise ProviderUnavailable(CUT)
            self._reason = reason
            self.usage_known = self._metered
            events += self._brackets.close()
        return events

    def _delta(self, delta: dict[str, Any]) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            events += self._brackets.write("thinking", _thinking(), thought)
        for kind, piece in _content(delta.get("content")):
            start = _thinking() if kind == "thinking" else {"type": "text", "text": ""}
            events += self._brackets.write(kind, start, piece)
        if refusal := delta.get("refusal"):
            self._refused = True
            events += self._brackets.write("text", {"type": "text", "text": ""}, refusal)
        for call in delta.get("tool_calls") or ():
            events += self._call(call)
        return events

    def _call(self, call: dict[str, Any]) -> list[ModelEvent]:
        key = self._calls.key(call)
        function = call.get("function") or {}
        start: Block = {
            "type": "tool_use",
            "id": self._calls.ids[key],
            "name": self._names.from_wire(function.get("name") or ""),
            "input": {},
        }
        if "extra_content" in call:
            start["extra_content"] = call["extra_content"]
        return self._brackets.write(("call", key), start, function.get("arguments") or "")

    def _close(self, *, done: bool = False) -> list[ModelEvent]:
        if self._ended:
            return []
        if not self._started or (self._reason is None and not done):
            raise ProviderUnavailable(CUT)
        self._ended = True
        self.usage_known = self._metered
        return [*self._brackets.close(), MessageEnded(self._stop_reason(), self.usage)]

    def _stop_reason(self) -> str:
        """What was done counts: some servers say `stop` after tool calls, or the reverse."""
        if self._reason in _STOP_REASONS:
            return _STOP_REASONS[self._reason]
        if self._refused:
            return "refusal"
        return "tool_use" if self._calls.ids else "end_turn"

    def _meter(self, figures: dict[str, Any] | None) -> None:
        if figures:
            self.usage = read_usage(figures)
            self._metered = True
            self.usage_known = self._reason is not None


class _Calls:
    """Tells which call a piece belongs to, and names calls whose server gave them no id of their own.

    Some servers count calls anew in each answer; in a thread an id must be unique.
    """

    def __init__(self, taken_ids: frozenset[str]) -> None:
        self.ids: list[str] = []
        self._taken = set(taken_ids)
        self._given: list[str | None] = []
        self._at: dict[int, int] = {}

    def key(self, call: dict[str, Any]) -> int:
        """The number of the call, in the order of their first pieces.

        Google's endpoint gives parallel calls one index; then a new id with a name tells them apart.
        """
        index, given = call.get("index"), call.get("id") or None
        named = bool((call.get("function") or {}).get("name"))
        # Without an index, a piece without a name continues the call before it.
        known = self._at.get(index, -1) if index is not None else -1 if named else len(self.ids) - 1
        if known < 0 or (named and given and given != self._given[known]):
            known = len(self.ids)
            own = given if given and given not in self._taken else f"toolu_{secrets.token_hex(12)}"
            self._taken.add(own)
            self.ids.append(own)
            self._given.append(given)
        if index is not None:
            self._at[index] = known
        return known


def _thinking() -> Block:
    return {"type": "thinking", "thinking": "", "signature": ""}


def _content(content: Any) -> list[tuple[str, str]]:
    """Pieces by kind. Content is a string; Mistral's reasoning models send a list of parts."""
    if isinstance(content, str):
        return [("text", content)] if content else []
    pieces: list[tuple[str, str]] = []
    for part in content or ():
        if part.get("type") == "thinking":
            pieces += [("thinking", inner.get("text") or "") for inner in part.get("thinking") or ()]
        elif part.get("text"):
            pieces.append(("text", part["text"]))
    return pieces


def read_usage(figures: dict[str, Any]) -> Usage:
    """A Chat Completions usage object in disjoint buckets.

    `prompt_tokens` includes what was read from and written to the cache (writes are reported since
    GPT-5.6). Servers that count hidden reasoning only in `total_tokens` (xAI, Google) are billed by it.
    """
    prompt, completion = figures.get("prompt_tokens") or 0, figures.get("completion_tokens") or 0
    details = figures.get("prompt_tokens_details") or {}
    read = (
        details.get("cached_tokens")
        or figures.get("prompt_cache_hit_tokens")  # DeepSeek
        or figures.get("cached_tokens")  # Moonshot
        or 0
    )
    read = min(read, prompt)
    written = min(details.get("cache_write_tokens") or 0, prompt - read)
    return Usage(
        input=prompt - read - written,
        output=max(completion, (figures.get("total_tokens") or 0) - prompt),
        cache_read=read,
        cache_write_5m=written,
        reasoning=(figures.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
    )
