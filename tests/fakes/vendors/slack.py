"""Slack's Web API: every answer is 200, and `ok` says whether it went well."""

from typing import Any

from aiohttp import web
from fakes.vendors.oauth import App, oauth_pages
from fakes.vendors.server import Answer, Call, VendorDouble, operations

TEAM, TEAM_ID, USER_ID = "Acme", "T0ACME0001", "U0ADA00001"
CHANNEL = {"id": "C0GENERAL1", "name": "general", "is_channel": True, "is_archived": False, "is_member": True}


class Slack(VendorDouble):
    """A workspace with one channel; OAuth v2 for its app gives a user's token."""

    slug = "slack"
    file = "slack-methods"

    def __init__(self, credential: str) -> None:
        super().__init__(credential)
        self.oauth = App(lists="user_scope", separator=",")

    def extra_routes(self, app: web.Application) -> None:
        """The page where a person agrees, and the exchange of the code."""
        oauth_pages(app, self.oauth, "/oauth/v2/authorize", "/api/oauth.v2.access", self._token)

    def _token(self, _: web.Request, problem: str | None, scope: str) -> web.Response:
        """The user's token below `authed_user`; errors are 200, too."""
        if problem:
            code = "invalid_code" if problem == "code" else "bad_client_secret"
            return web.json_response({"ok": False, "error": code})
        token = {"access_token": self.credential, "token_type": "user", "scope": scope}
        user = {"id": USER_ID, **token}
        team = {"id": TEAM_ID, "name": TEAM}
        return web.json_response({"ok": True, "app_id": "A0QLAUD", "authed_user": user, "team": team})

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any], dict[str, str]] | None:
        """Methods of the Web API; arguments may come as JSON or form by POST, or in the query."""
        name = path.removeprefix("/api/")
        said = operations(self.file).get(name)
        if said is None or method not in ("GET", "POST"):
            return None
        if method == "POST":
            return name, said, {}
        known = said["body"]
        parameters = [
            {"name": n, "in": "query", "required": n in known["required"], "schema": {}}
            for n in known["properties"]
        ]
        return name, {"parameters": parameters, "errors": said["errors"]}, {}

    def answer(self, call: Call) -> Answer:
        """Who the token is, the channels, a new message."""
        match call.operation:
            case "auth.test":
                who = {"team": TEAM, "user": "ada", "team_id": TEAM_ID, "user_id": USER_ID}
                return Answer(200, {"ok": True, "url": "https://acme.slack.com/", **who})
            case "conversations.list":
                return Answer(
                    200, {"ok": True, "channels": [CHANNEL], "response_metadata": {"next_cursor": ""}}
                )
            case "chat.postMessage":
                return self._post(call)
        return self.unknown()

    def _post(self, call: Call) -> Answer:
        asked = call.body
        if asked["channel"] != CHANNEL["id"]:
            return self._no(call.operation, "channel_not_found")
        if not (asked.get("text") or asked.get("blocks") or asked.get("attachments")):
            return self._no(call.operation, "no_text")
        ts = f"{1764000000 + len(self.made)}.000100"
        message = {"type": "message", "user": USER_ID, "team": TEAM_ID, "text": asked["text"], "ts": ts}
        self.made.append(message)
        return Answer(200, {"ok": True, "channel": asked["channel"], "ts": ts, "message": message})

    def unauthenticated(self, credential: str) -> Answer:
        """As its API refuses a token."""
        code = "token_revoked" if self.revoked else "invalid_auth" if credential else "not_authed"
        return self._no("auth.test", code)

    def invalid(self, problems: list[str]) -> Answer:
        """As its API refuses arguments."""
        told = {"ok": False, "error": "invalid_arguments", "response_metadata": {"messages": problems}}
        return Answer(200, told)

    def unknown(self) -> Answer:
        """No such method."""
        return Answer(200, {"ok": False, "error": "unknown_method"})

    def _no(self, method: str, code: str) -> Answer:
        """An error that the method's own description has."""
        if code not in operations(self.file)[method]["errors"]:
            self.mistakes.append(f"answer of {method}: {code} is none of its errors")
        return Answer(200, {"ok": False, "error": code})
