"""Linear: one GraphQL address. Documents are validated against its schema, then carried out on this state."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import graphql as gql
from aiohttp import web
from fakes.vendors.server import DATA, Answer, Call, VendorDouble

TEAM = {"id": "8f6b8c1e-6a39-4a6f-9a52-0c5f0a3a7f10", "key": "ENG", "name": "Engineering"}
ADA = {"id": "1c4d7a52-60a5-4b9e-8f0e-2f6a1d3c5b7e", "name": "Ada Lovelace", "displayName": "ada"}
VIEWER = {**ADA, "email": "ada@acme.test", "active": True, "organization": {"name": "Acme"}}
TODO = {"id": "3a9b6f0d-2a3e-4f0f-9a43-7f1a4f3e9c21", "name": "Todo", "type": "unstarted", "position": 1.0}
LAST_PAGE = {"hasNextPage": False, "endCursor": None}
PRIORITIES = ("No priority", "Urgent", "High", "Medium", "Low")
AT = "2026-11-24T10:00:00.000Z"


class Linear(VendorDouble):
    """A workspace with one team and one person."""

    slug = "linear"
    file = "linear"

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any], dict[str, str]] | None:
        """The one address."""
        here = (method, path) == ("POST", "/graphql")
        return ("POST /graphql", {}, {}) if here else None

    async def read_body(self, request: web.Request, said: dict[str, Any]) -> tuple[Any, list[str]]:
        """A document with its variables, held against the schema."""
        try:
            body = json.loads(await request.read())
            parsed = gql.parse(body["query"])
        except (ValueError, KeyError, TypeError, gql.GraphQLError) as error:
            return None, [f"no document: {error}"]
        found = [error.message for error in gql.validate(schema(), parsed)]
        if extra := body.keys() - {"query", "variables", "operationName"}:
            found.append(f"the request has {sorted(extra)}")
        for definition in parsed.definitions if not found else ():
            assert isinstance(definition, gql.OperationDefinitionNode)
            given = gql.execution.values.get_variable_values(
                schema(), definition.variable_definitions or (), body.get("variables") or {}
            )
            found += [error.message for error in given] if isinstance(given, list) else []
        return body, found

    def answer(self, call: Call) -> Answer:
        """Carry the document out."""
        given = call.body.get("variables")
        result = gql.graphql_sync(schema(), call.body["query"], self._root(), variable_values=given)
        shown: dict[str, Any] = {"data": result.data}
        if result.errors:
            shown["errors"] = [_error(e.message, "INPUT_ERROR", "invalid input") for e in result.errors]
        return Answer(200, shown)

    def unauthenticated(self, credential: str) -> Answer:
        """As its API refuses a key."""
        message = "Authentication required, not authenticated"
        return Answer(401, {"errors": [_error(message, "AUTHENTICATION_ERROR", "authentication error")]})

    def invalid(self, problems: list[str]) -> Answer:
        """As its GraphQL server refuses a document."""
        errors = [_error(problem, "GRAPHQL_VALIDATION_FAILED", "graphql error") for problem in problems]
        return Answer(400, {"errors": errors})

    def unknown(self) -> Answer:
        """No such path."""
        return Answer(404, {"errors": [_error("Not found", "NOT_FOUND", "other")]})

    def _root(self) -> dict[str, Any]:
        return {
            "viewer": VIEWER,
            "teams": _listing(lambda: [TEAM]),
            "users": _listing(lambda: [VIEWER]),
            "workflowStates": _listing(lambda: [{**TODO, "team": TEAM}]),
            "issues": _listing(lambda: self.made[::-1]),
            "issue": self._issue,
            "issueCreate": self._create,
        }

    def _issue(self, _: Any, **given: Any) -> dict[str, Any]:
        for issue in self.made:
            if given["id"] in (issue["id"], issue["identifier"]):
                return issue
        raise gql.GraphQLError("Entity not found: Issue")

    def _create(self, _: Any, **given: Any) -> dict[str, Any]:
        asked = given["input"]
        if asked["teamId"] != TEAM["id"]:
            raise gql.GraphQLError("Entity not found: Team")
        if asked.get("assigneeId") not in (None, ADA["id"]):
            raise gql.GraphQLError("Entity not found: User")
        number = len(self.made) + 1
        issue = {
            "id": f"00000000-0000-4000-8000-{number:012d}",
            "identifier": f"{TEAM['key']}-{number}",
            "title": asked.get("title") or "Untitled",
            "description": asked.get("description"),
            "url": f"https://linear.app/acme/issue/{TEAM['key']}-{number}",
            "priorityLabel": PRIORITIES[asked.get("priority") or 0],
            "dueDate": asked.get("dueDate"),
            "createdAt": AT,
            "updatedAt": AT,
            "state": {**TODO, "team": TEAM},
            "assignee": VIEWER if asked.get("assigneeId") else None,
            "team": TEAM,
            "labels": {"nodes": []},
            "comments": {"nodes": []},
        }
        self.made.append(issue)
        return {"success": True, "issue": issue}


@cache
def schema() -> gql.GraphQLSchema:
    """Linear's own schema, as far as the connector's documents use it; nothing else is known."""
    read = json.loads((DATA / "connector_specs.json").read_text("utf-8"))
    return gql.build_schema(read["schemas"]["linear"])


def _listing(items: Callable[[], list[dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    return lambda *_, **__: {"nodes": items(), "pageInfo": LAST_PAGE}


def _error(message: str, code: str, kind: str) -> dict[str, Any]:
    extensions = {"code": code, "type": kind, "userError": True, "userPresentableMessage": message}
    return {"message": message, "extensions": extensions}
