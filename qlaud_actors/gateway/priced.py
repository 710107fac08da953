"""Requests that would cost what no hold covers are refused before money is set aside. Pure.

A hold is a bound only while a token costs what the price table says, the model reads only what it was
sent, and nothing is billed beside tokens. Whatever breaks one of these is refused in words; dropping it
silently would answer another question than was asked.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.model import Block, Model

USUAL: Mapping[str, tuple[object, ...]] = {
    "service_tier": ("default", "auto", "standard", "standard_only"),
    "speed": ("standard",),
    "inference_geo": ("global",),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "prompt_cache_options.ttl": ("30m",),
    "reasoning.mode": ("standard",),
}
"""Fields that change the price of a token, with the values that do not."""

NEVER: Mapping[str, str] = {
    "audio": "audio output is priced apart",
    "billing_policy": "it changes who is billed",
    "compaction": "it is billed beside the answer",
    "container": "code execution is billed by time",
    "data_sources": "what the provider looks up is read beside what was sent",
    "deferred": "the answer, and what it cost, would come elsewhere",
    "enable_search": "searches are billed apart",
    "fallbacks": "the other model has another price",
    "mcp_servers": "the provider's own tool calls read more than was sent",
    "plugins": "plugins are billed apart",
    "prediction": "rejected predictions are billed beyond the limit",
    "preset": "what the provider keeps of a request is not seen here",
    "provider": "another host has another price",
    "route": "another host has another price",
    "safety_model": "another model is billed beside the answer",
    "search_options": "searches are billed apart",
    "search_parameters": "searches are billed apart",
    "thread": "what the provider remembers is read beside what was sent",
    "web_search_options": "searches are billed apart",
}
"""Fields that are billed beside tokens or read more than the request, and why they are refused."""

GUARDED = (
    frozenset(NEVER)
    | {name.partition(".")[0] for name in USUAL}
    | {
        "functions",
        "input",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "model",
        "n",
        "stream",
        "tools",
    }
)
"""Fields that decide what a call costs. Some servers (those in Go) read a name in any case."""

RUN_BY_CALLER = re.compile(r"(custom|function|(bash|text_editor|computer|memory|browser)_[a-z0-9_]+)")
"""Types of tools that the caller runs; all others run at the provider, at a price of their own."""

FUNCTIONS = re.compile(r"custom|function")
"""Types of tools in a Responses request that its caller runs and whose whole text is in it."""

COMES_WITH = frozenset({"additional_tools", "compaction_trigger", "item_reference", "mcp_approval_response"})
"""Items of a Responses request that stand for more than is in them, or start what is billed apart."""

LONG_CONTEXT = re.compile(r"context-(\d+)m")


def require_priced(body: Mapping[str, Any], tools: Sequence[Block]) -> None:
    """Raises InvalidRequest for a field, a tool or a part that changes the price."""
    _require_lower_case(body)
    for name, usual in USUAL.items():
        value = _at(body, name)
        if value is not None and value not in usual:
            words = ", ".join(map(str, usual))
            raise InvalidRequest(f"`{name}` changes the price of a token: leave it out, or use {words}.")
    for name in NEVER.keys() & body.keys():
        if body[name]:
            raise InvalidRequest(f"`{name}` is not supported: {NEVER[name]}.")
    if body.get("modalities") not in (None, [], ["text"]):
        raise InvalidRequest("`modalities` must be text alone: pictures and sound are priced apart.")
    for tool in tools:
        _require_own(tool)
    for edit in _edits(body.get("context_management")):
        if str(edit.get("type")).startswith("compact"):
            raise InvalidRequest("`context_management` must not compact: that is billed beside the answer.")


def require_own_items(items: Sequence[Block], tools: Sequence[Block]) -> None:
    """The same for what is in a Responses request: items that hold all that they cost, functions as tools.

    Raises InvalidRequest.
    """
    for tool in tools:
        _require_own(tool, FUNCTIONS)
    for item in items:
        kind = str(item.get("type") or ("message" if "role" in item else "item_reference"))
        if kind in COMES_WITH:
            raise InvalidRequest(f"An item of type {kind!r} is not supported: send what it stands for.")
    refuse_audio([*items, *({"content": item.get("output")} for item in items)])


def require_own_context(betas: str, model: Model) -> None:
    """Refuse a beta that widens the context window beyond what the hold assumes. Raises InvalidRequest."""
    for found in LONG_CONTEXT.finditer(betas):
        if int(found.group(1)) * 1_000_000 > model.context_window:
            raise InvalidRequest(f"`anthropic-beta: {found.group()}…` is not supported for this model.")


def refuse_audio(messages: Sequence[Block]) -> None:
    """Audio tokens have a price of their own. Raises InvalidRequest."""
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if message.get("audio") or any(
            isinstance(part, dict) and part.get("type") in ("input_audio", "audio_url", "video_url")
            for part in parts
        ):
            raise InvalidRequest("Audio and video in messages are not supported: they are priced apart.")
        for part in parts:
            _require_usual_cache(part)


def _require_lower_case(body: Mapping[str, Any]) -> None:
    """Another spelling of a field would pass here unseen."""
    for name in body:
        if not name.islower() and name.lower() in GUARDED:
            raise InvalidRequest(f"`{name}` must be written in lower case.")


def _at(body: Mapping[str, Any], path: str) -> Any:
    """A field, or one within another."""
    name, _, inner = path.partition(".")
    value = body.get(name)
    return (value.get(inner) if isinstance(value, dict) else None) if inner else value


def _require_usual_cache(part: Any) -> None:
    """A mark for the cache must not ask for a longer life than the price table knows."""
    mark = part.get("prompt_cache_breakpoint") if isinstance(part, dict) else None
    if isinstance(mark, dict) and mark.get("ttl") not in (None, "30m"):
        raise InvalidRequest("`prompt_cache_breakpoint.ttl` must be '30m': longer ones are priced apart.")


def _require_own(tool: Block, own: re.Pattern[str] = RUN_BY_CALLER) -> None:
    kind = tool.get("type") or "custom"
    if not own.fullmatch(str(kind)):
        raise InvalidRequest(
            f"The tool {str(kind)[:60]!r} runs at the provider and is billed apart: it is not supported."
        )


def _edits(management: Any) -> list[Block]:
    """Anthropic's object holds a list of edits, OpenAI's field is the list."""
    edits = management.get("edits") if isinstance(management, dict) else management
    return [edit for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else []
