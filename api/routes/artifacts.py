"""What tools have kept: pictures, texts, JSON."""

from aiohttp import web

from api.bodies import path_uuid
from api.context import caller, services
from qlaud_actors.artifacts import store
from qlaud_actors.conversation.threads import sees_account
from qlaud_actors.errors import NotFound

routes = web.RouteTableDef()


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
