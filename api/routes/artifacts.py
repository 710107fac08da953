"""What tools have kept: pictures, texts, JSON."""

from typing import Any

from aiohttp import web

from api.bodies import path_uuid, query_int, query_text
from api.context import caller, services
from api.responses import json_response
from qlaud_actors.artifacts import store
from qlaud_actors.artifacts.model import Artifact
from qlaud_actors.conversation import threads
from qlaud_actors.conversation.model import Thread
from qlaud_actors.conversation.threads import sees_account
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.ids import parse_uuid
from qlaud_actors.tools.builtins.artifact_tool import listed, whole

MAX_PAGE = 100

routes = web.RouteTableDef()


@routes.get("/v1/threads/{thread_id}/artifacts")
async def list_artifacts(request: web.Request) -> web.Response:
    """What was last stored in a thread, newest first, without the content."""
    pool, thread = services(request).pool, await _thread(request)
    limit, after = query_int(request, "limit", 20, 1, MAX_PAGE), query_text(request, "after")
    after_id = parse_uuid(after) if after is not None else None
    if after is not None and after_id is None:
        raise InvalidRequest("`after` must be the id of an artifact.")
    found = await store.list_of_thread(pool, thread.account_id, thread.id, after_id=after_id, limit=limit + 1)
    data = [artifact_object(artifact, listed(artifact)) for artifact in found[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(found) > limit})


@routes.get("/v1/threads/{thread_id}/artifacts/{artifact_id}")
async def get_artifact(request: web.Request) -> web.Response:
    """One of them: a text or JSON with its content, a picture with where its bytes are."""
    pool, thread = services(request).pool, await _thread(request)
    artifact_id = path_uuid(request, "artifact_id")
    artifact = await store.find_in_thread(pool, thread.account_id, thread.id, artifact_id)
    if artifact is None:
        raise NotFound("There is no such artifact in this thread.")
    return json_response(artifact_object(artifact, whole(artifact)))


@routes.get("/v1/artifacts/{artifact_id}/download")
async def download_artifact(request: web.Request) -> web.Response:
    """The bytes. Models and vendors made them, so a browser is to do nothing with them but show them."""
    key = caller(request)
    artifact = await store.visible(
        services(request).pool,
        path_uuid(request, "artifact_id"),
        key.account_id,
        key_id=key.id,
        end_user_id=key.end_user_id,
        whole_account=sees_account(key),
    )
    if artifact is None:
        raise NotFound("There is no such artifact.")
    headers = {
        "content-type": artifact.mime,
        "content-disposition": "attachment",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-cache",
    }
    return web.Response(body=artifact.content, headers=headers)


async def _thread(request: web.Request) -> Thread:
    return await threads.get(services(request).pool, caller(request), path_uuid(request, "thread_id"))


def artifact_object(artifact: Artifact, told: dict[str, Any]) -> dict[str, Any]:
    """An artifact as the API shows it: as the model's tool does, and its id."""
    return {"id": str(artifact.id), "object": "artifact", **told}
