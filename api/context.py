"""What a handler works with: the process's services, and who is calling."""

from aiohttp import web

from qlaud_actors.bootstrap import Services
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.tools.model import CallContext

SERVICES = web.AppKey("services", Services)
CALLER = web.RequestKey("caller", ApiKey)
REQUEST_ID = web.RequestKey("request_id", str)


def services(request: web.Request) -> Services:
    """Everything that this process has open."""
    return request.app[SERVICES]


def caller(request: web.Request) -> ApiKey:
    """The verified key of this request."""
    return request[CALLER]


def call_context(request: web.Request) -> CallContext:
    """On whose behalf tools are called outside a turn."""
    key = caller(request)
    return CallContext(
        key.account_id,
        request[REQUEST_ID],
        end_user_id=key.end_user_id,
        key_id=key.id,
        own_key_id=None if key.scope == "admin" else key.id,
    )
