"""`POST /v1/threads/import`: a conversation that began elsewhere becomes a thread."""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from api.bodies import no_nul, read_json
from api.context import REQUEST_ID, caller, services
from api.responses import json_response
from api.routes.threads import ThreadBody, check_new, check_text, thread_object
from qlaud_actors.conversation import imports
from qlaud_actors.conversation.imports import ImportedMessage
from qlaud_actors.conversation.threads import NewThread
from qlaud_actors.errors import InvalidRequest

routes = web.RouteTableDef()

MAX_MESSAGES = 10_000
MAX_BLOCKS = 1_000
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


class MessageBody(msgspec.Struct, forbid_unknown_fields=True):
    """One message; `created_at` in ms since the epoch."""

    role: Literal["user", "assistant"]
    content: str | Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_BLOCKS)]
    created_at: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)] | None = None


class ImportBody(ThreadBody, forbid_unknown_fields=True, kw_only=True):
    """What a new thread may have, what was said in it, and its id where it comes from."""

    messages: Annotated[list[MessageBody], msgspec.Meta(max_length=MAX_MESSAGES)]
    external_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


@routes.post("/v1/threads/import")
async def import_thread(request: web.Request) -> web.Response:
    """201 with the new thread; 200 with the one that was made of this `external_id` before."""
    body = await read_json(request, ImportBody)
    new = NewThread(**{name: getattr(body, name) for name in ThreadBody.__struct_fields__})
    check_new(request, new)
    check_text("external_id", body.external_id)
    for index, message in enumerate(body.messages):
        _check(f"messages[{index}]", message)
    taken = await imports.take_in(
        services(request).pool,
        caller(request),
        new,
        [ImportedMessage(m.role, m.content, m.created_at) for m in body.messages],
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
