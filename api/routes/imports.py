"""`POST /v1/threads/import`: a conversation that began elsewhere becomes a thread."""

import time
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from api.bodies import check_depth, no_nul, read_json
from api.context import REQUEST_ID, caller, services
from api.responses import json_response
from api.routes.threads import ThreadBody, check_new, check_text, thread_object
from qlaud_actors.artifacts.model import MAX_ARTIFACTS, MAX_NAME, Brought
from qlaud_actors.conversation import imports
from qlaud_actors.conversation.imports import Imported, ImportedMessage
from qlaud_actors.conversation.model import Compaction
from qlaud_actors.conversation.threads import NewThread
from qlaud_actors.errors import InvalidRequest

routes = web.RouteTableDef()

MAX_MESSAGES = 10_000
MAX_BLOCKS = 1_000
MAX_SUMMARY = 10_000
"""Characters; ours have 8,000 bytes and a sentence at most."""
MAX_VERSION = 1_000_000_000
"""Of a compaction; half of what the database counts to is left for those that follow."""
MAX_TIME_MS = 253_402_300_799_000
"""The end of the year 9999."""

REQUIRED: dict[str, dict[str, type]] = {
    "text": {"text": str},
    "image": {"source": dict},
    "document": {"source": dict},
    "tool_use": {"id": str, "name": str, "input": dict},
    "tool_result": {"tool_use_id": str},
    "thinking": {"thinking": str},
}
"""What blocks of these types must have; others are the provider's own and are kept as they are."""

SPOKEN_BY = {"tool_use": "assistant", "thinking": "assistant", "tool_result": "user"}


Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_MESSAGES)]


class MessageBody(msgspec.Struct, forbid_unknown_fields=True):
    """One message; `created_at` in ms since the epoch."""

    role: Literal["user", "assistant"]
    content: str | Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_BLOCKS)]
    created_at: Time | None = None


class CompactionBody(msgspec.Struct, forbid_unknown_fields=True):
    """A version of what stands for the oldest messages; seqs count the messages from 1."""

    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    summarized_through_seq: Seq
    trimmed_through_seq: Seq
    summary: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SUMMARY)] | None = None
    omitted: bool = False
    model: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    created_at: Time | None = None


class ArtifactBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a tool had kept in the thread; the content in base64."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    mime: str
    content: bytes
    created_at: Time | None = None
    updated_at: Time | None = None


Compactions = Annotated[list[CompactionBody], msgspec.Meta(max_length=MAX_MESSAGES)]
Artifacts = Annotated[list[ArtifactBody], msgspec.Meta(max_length=MAX_ARTIFACTS)]


class ImportBody(ThreadBody, forbid_unknown_fields=True, kw_only=True):
    """What a new thread may have, what was said in it, and its id where it comes from."""

    messages: Annotated[list[MessageBody], msgspec.Meta(max_length=MAX_MESSAGES)]
    compactions: Compactions = msgspec.field(default_factory=list)
    artifacts: Artifacts = msgspec.field(default_factory=list)
    external_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


@routes.post("/v1/threads/import")
async def import_thread(request: web.Request) -> web.Response:
    """201 with the new thread; 200 with the one that was made of this `external_id` before, which then gets
    the artifacts whose names it lacks.
    """
    body = await read_json(request, ImportBody)
    new = NewThread(**{name: getattr(body, name) for name in ThreadBody.__struct_fields__})
    check_new(request, new)
    check_text("external_id", body.external_id)
    for index, message in enumerate(body.messages):
        _check(f"messages[{index}]", message)
    brought = Imported(
        [ImportedMessage(m.role, m.content, m.created_at) for m in body.messages],
        _compactions(body),
        [_artifact(f"artifacts[{index}]", one) for index, one in enumerate(body.artifacts)],
    )
    taken = await imports.take_in(
        services(request).pool,
        caller(request),
        new,
        brought,
        external_id=body.external_id,
        request_id=request[REQUEST_ID],
    )
    status = 201 if taken.created else 200
    return json_response({**thread_object(taken.thread), "external_id": body.external_id}, status=status)


def _check(where: str, message: MessageBody) -> None:
    no_nul(where, message.content)
    for index, block in enumerate(message.content if isinstance(message.content, list) else ()):
        kind = block.get("type")
        if not isinstance(kind, str):
            raise InvalidRequest(f"{where}.content[{index}].type must be a string.")
        if SPOKEN_BY.get(kind, message.role) != message.role:
            raise InvalidRequest(f"{where}.content[{index}]: {kind} belongs to the {SPOKEN_BY[kind]}.")
        for name, needed in REQUIRED.get(kind, {}).items():
            if not isinstance(block.get(name), needed):
                raise InvalidRequest(f"{where}.content[{index}].{name} must be a {needed.__name__}.")


def _compactions(body: ImportBody) -> list[Compaction]:
    """Each version comes after the one before, and shows no more than there is."""
    taken: list[Compaction] = []
    version, through, now = 0, 0, int(time.time() * 1000)
    for index, one in enumerate(body.compactions):
        where = f"compactions[{index}]"
        no_nul(where, [one.summary, one.model])
        if one.version <= version or one.summarized_through_seq < through:
            raise InvalidRequest(f"{where}: versions must rise, and none may go back behind the one before.")
        version, through = one.version, one.summarized_through_seq
        if max(through, one.trimmed_through_seq) > len(body.messages):
            raise InvalidRequest(f"{where}: there are only {len(body.messages)} messages.")
        if through and one.summary is None:
            raise InvalidRequest(f"{where}.summary is needed where it stands for messages.")
        fields = msgspec.structs.asdict(one)
        said = fields.pop("created_at")
        taken.append(Compaction(cost_nanos=0, created_at_ms=now if said is None else said, **fields))
    return taken


def _artifact(where: str, one: ArtifactBody) -> Brought:
    no_nul(where, one.name)
    brought = Brought(one.name, one.mime, one.content, one.created_at, one.updated_at)
    if wrong := brought.wrong:
        raise InvalidRequest(f"{where}: {wrong}.")
    if one.mime == "application/json":
        check_depth(one.content)
        try:
            msgspec.json.decode(one.content)
        except msgspec.DecodeError:
            raise InvalidRequest(f"{where}.content must be JSON.") from None
    return brought
