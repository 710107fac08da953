"""The built-in artifact-store: texts and JSON under names, for an end user, else a thread, else a key."""

from typing import Any

import msgspec

from qlaud_actors.artifacts import store
from qlaud_actors.artifacts.model import MAX_TEXT_BYTES, Artifact, Origin, owner_of
from qlaud_actors.db.pool import Pool
from qlaud_actors.tools.model import CallContext, ToolOutcome

FULL = "Nothing was stored: there is no room for more. Store less, or under a name that is there already."
DOWNLOAD = "/v1/artifacts/{}/download"


def owner(context: CallContext) -> str:
    """Whose the artifacts of a call are."""
    return owner_of(context.end_user_id, context.thread_id, context.own_key_id)


async def run(pool: Pool, arguments: dict[str, Any], context: CallContext) -> ToolOutcome:
    """Store, retrieve or list."""
    whose, name = owner(context), arguments.get("name")
    if "\x00" in (name or ""):
        return _failed("`name` must not contain NUL.")
    if arguments["action"] == "list":
        found = await store.list_(pool, context.account_id, whose, name or "")
        return ToolOutcome({"artifacts": [listed(artifact) for artifact in found]})
    if name is None:
        return _failed(f"`name` is needed to {arguments['action']}.")
    if arguments["action"] == "store":
        return await _store(pool, arguments, context, whose)
    artifact = await store.find(pool, context.account_id, whose, name)
    if artifact is None:
        return _failed(f"There is no artifact named {name!r}; list shows which there are.")
    return ToolOutcome(whole(artifact))


async def _store(pool: Pool, arguments: dict[str, Any], context: CallContext, whose: str) -> ToolOutcome:
    content = arguments.get("content")
    if content is None:
        return _failed("`content` is needed to store.")
    text = isinstance(content, str)
    raw = content.encode() if text else msgspec.json.encode(content)
    if len(raw) > MAX_TEXT_BYTES:
        return _failed(f"`content` has more than {MAX_TEXT_BYTES // 1024} KiB: store it in parts.")
    mime = "text/plain" if text else "application/json"
    origin = Origin(context.thread_id, context.key_id)
    kept = await store.keep(pool, context.account_id, whose, arguments["name"], mime, raw, origin)
    return _failed(FULL) if kept is None else ToolOutcome({"stored": listed(kept)})


def listed(artifact: Artifact) -> dict[str, Any]:
    """An artifact without its content."""
    return {
        "name": artifact.name,
        "mime": artifact.mime,
        "bytes": artifact.size,
        "updated_at": artifact.updated_at_ms,
        "url": DOWNLOAD.format(artifact.id),
    }


def whole(artifact: Artifact) -> dict[str, Any]:
    """An artifact with its content if that is text or JSON; a picture is downloaded."""
    content = artifact.content or b""
    match artifact.mime:
        case "application/json":
            return {**listed(artifact), "content": msgspec.json.decode(content)}
        case "text/plain":
            return {**listed(artifact), "content": content.decode()}
    return listed(artifact)


def _failed(words: str) -> ToolOutcome:
    return ToolOutcome(words, is_error=True)
