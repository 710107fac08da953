"""GitHub: one repository whose issues are listed and opened; OAuth for its app."""

from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from fakes.vendors.oauth import App, oauth_pages
from fakes.vendors.server import Answer, Call, VendorDouble, operations

OWNER, REPO, LOGIN = "acme", "website", "ada-lovelace"
DOCS = "https://docs.github.com/rest"
AT = "2026-11-24T10:00:00Z"
CREATE = "POST /repos/{owner}/{repo}/issues"


class GitHub(VendorDouble):
    """One person with one repository; answers are the vendor's own examples with our values."""

    slug = "github"
    file = "github"

    def __init__(self, credential: str) -> None:
        super().__init__(credential)
        self.oauth = App()

    def extra_routes(self, app: web.Application) -> None:
        """The page where a person agrees, and the exchange of the code."""
        oauth_pages(app, self.oauth, "/login/oauth/authorize", "/login/oauth/access_token", self._token)

    def answer(self, call: Call) -> Answer:
        """Who the token is, the issues, a new issue."""
        if call.operation == "GET /user":
            example = operations(self.file)[call.operation]["example"]
            return Answer(200, {**example, "login": LOGIN, "name": "Ada Lovelace", "id": 1815})
        if (call.path["owner"].lower(), call.path["repo"].lower()) != (OWNER, REPO):
            return self.unknown()
        if call.operation == CREATE:
            return self._create(call.body)
        return Answer(200, self.made[::-1])

    def _create(self, asked: dict[str, Any]) -> Answer:
        number = len(self.made) + 1
        api = f"https://api.github.com/repos/{OWNER}/{REPO}"
        issue = {
            **operations(self.file)[CREATE]["example"],
            "id": 1_000_000 + number,
            "number": number,
            "title": str(asked["title"]),
            "body": asked.get("body"),
            "state": "open",
            "url": f"{api}/issues/{number}",
            "repository_url": api,
            "html_url": f"https://github.com/{OWNER}/{REPO}/issues/{number}",
            "created_at": AT,
            "updated_at": AT,
            "closed_at": None,
            "labels": [{"name": name} for name in asked.get("labels", ())],
        }
        self.made.append(issue)
        return Answer(201, issue, {"Location": issue["url"]})

    def unauthenticated(self, credential: str) -> Answer:
        """As its API refuses a token; without one it says so."""
        message = "Bad credentials" if credential else "Requires authentication"
        return _refusal(401, message)

    def invalid(self, problems: list[str]) -> Answer:
        """As its API refuses a body."""
        errors = [{"resource": "Issue", "code": "custom", "message": problem} for problem in problems]
        return Answer(422, {"message": "Validation Failed", "errors": errors, "documentation_url": DOCS})

    def unknown(self) -> Answer:
        """No such path, or nothing that the token may see."""
        return _refusal(404, "Not Found")

    def _token(self, request: web.Request, problem: str | None, scope: str) -> web.Response:
        """Text as of a form, unless JSON is asked for; errors are 200, too."""
        said = {"access_token": self.credential, "token_type": "bearer", "scope": scope}
        if problem:
            code = "bad_verification_code" if problem == "code" else "incorrect_client_credentials"
            said = {"error": code, "error_description": "The exchange was refused."}
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response(said)
        return web.Response(text=urlencode(said), content_type="application/x-www-form-urlencoded")


def _refusal(status: int, message: str) -> Answer:
    return Answer(status, {"message": message, "documentation_url": DOCS, "status": str(status)})
