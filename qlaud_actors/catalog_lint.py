"""What a connector file must be beyond readable: definitions that models accept, words they can choose by."""

from collections.abc import Iterator
from typing import Any

from qlaud_actors.connectors.hosted import HostedServer
from qlaud_actors.connectors.inputs import input_schema
from qlaud_actors.connectors.model import Action, Connector
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.tools.schema import check_definition

MAX_NAME = 64
"""Of a tool, in models' own APIs."""


def lint(connector: Connector) -> list[str]:
    """Everything that is wrong with a connector that could be read, one line each."""
    return [
        f"{action.name}: {problem}" for action in connector.actions for problem in _found(connector, action)
    ]


def lint_hosted(entry: HostedServer) -> list[str]:
    """Everything that is wrong with a hosted MCP server whose file could be read."""
    secret = [field for field in entry.auth.fields if field.secret]
    found = [] if any(not field.optional for field in secret) else ["it asks for no secret"]
    found += [f"field {field.name}: a secret has no default" for field in secret if field.default]
    if not entry.description.startswith(entry.name):
        found.append("the description says first whose server it is")
    return found


def _found(connector: Connector, action: Action) -> Iterator[str]:
    name = f"{connector.slug}/{action.name}"
    schema = input_schema(connector, action)
    try:
        check_definition(name, action.description, schema)
    except InvalidRequest as error:
        yield str(error)
    if len(name) > MAX_NAME:
        yield f"`{name}` is longer than {MAX_NAME} characters"
    if "?" in action.description or 'e.g. "' in action.description:
        yield "the description asks a question or quotes a user; the tool search is tested with held-out ones"
    for input_name, definition in schema["properties"].items():
        yield from _input_problems(input_name, definition)
    yield from _list_problems(action)


def _input_problems(name: str, definition: dict[str, Any]) -> Iterator[str]:
    if not str(definition.get("description", "")).strip():
        yield f"input `{name}` has no description"
    if not {"type", "enum", "const", "anyOf", "oneOf"} & definition.keys():
        yield f"input `{name}` has no type"
    if definition.get("type") == "array" and "items" not in definition:
        yield f"input `{name}` is a list of what? It has no `items`"


def _list_problems(action: Action) -> Iterator[str]:
    if action.name.startswith(("list_", "search_")) and action.effect != "read":
        yield "a list or search has the effect `read`"
    if action.name.startswith("delete_") and action.effect == "read":
        yield "deleting is not a read"
