"""`GET /v1/account`: whose key this is."""

from aiohttp import web

from api.context import caller
from api.responses import json_response

routes = web.RouteTableDef()


@routes.get("/v1/account")
async def get_account(request: web.Request) -> web.Response:
    """The caller's account; people's names are not kept here."""
    account_id = str(caller(request).account_id)
    return json_response({"user_id": account_id, "email": None, "first_name": None, "last_name": None})
