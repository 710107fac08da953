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
}
"""Fields that change the price of a token, with the values that do not."""

NEVER: Mapping[str, str] = {
    "audio": "audio output is priced apart",
    "billing_policy": "it changes who is billed",
    "compaction": "it is billed beside the answer",
    "container": "code execution is billed by time",
    "enable_search": "searches are billed apart",
    "fallbacks": "the other model has another price",
    "mcp_servers": "the provider's own tool calls read more than was sent",
    "plugins": "plugins are billed apart",
    "prediction": "rejected predictions are billed beyond the limit",
    "provider": "another host has another price",
    "route": "another host has another price",
    "search_options": "searches are billed apart",
    "search_parameters": "searches are billed apart",
    "thread": "what the provider remembers is read beside what was sent",
    "web_search_options": "searches are billed apart",
}
"""Fields that are billed beside tokens or read more than the request, and why they are refused."""

RUN_BY_CALLER = re.compile(r"(custom|function|(bash|text_editor|computer|memory|browser)_[a-z0-9_]+)")
"""Types of tools that the caller runs; all others run at the provider, at a price of their own."""

LONG_CONTEXT = re.compile(r"context-(\d+)m")


def require_priced(body: Mapping[str, Any], tools: Sequence[Block]) -> None:
    """Raises InvalidRequest for a field, a tool or a part that changes the price."""
    for name, usual in USUAL.items():
        if body.get(name) is not None and body[name] not in usual:
            words = ", ".join(str(value) for value in usual)
            raise InvalidRequest(f"`{name}` changes the price of a token: leave it out, or use {words}.")
    for name, why in NEVER.items():
        if body.get(name):
            raise InvalidRequest(f"`{name}` is not supported: {why}.")
    if "audio" in (body.get("modalities") or ()):
        raise InvalidRequest("`modalities` must not hold audio: audio output is priced apart.")
    for tool in tools:
        _require_own(tool)
    for edit in _edits(body.get("context_management")):
        if str(edit.get("type")).startswith("compact"):
            raise InvalidRequest("`context_management` must not compact: that is billed beside the answer.")


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


def _require_own(tool: Block) -> None:
    kind = tool.get("type") or "custom"
    if not RUN_BY_CALLER.fullmatch(str(kind)):
        raise InvalidRequest(
            f"The tool {str(kind)[:60]!r} runs at the provider and is billed apart: it is not supported."
        )


def _edits(management: Any) -> list[Block]:
    edits = management.get("edits") if isinstance(management, dict) else None
    return [edit for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else []
