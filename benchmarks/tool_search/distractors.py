"""Tools of made-up companies, as an account would register them: what a search has to see past.

`business_tools.toml` says what the systems know; here every thing gets the usual actions of an API. The same
580 tools each time.
"""

import tomllib
from pathlib import Path
from typing import Any

from qlaud_actors.tools.model import Effect, Tool

DATA = Path(__file__).parents[2] / "tests" / "data" / "tool_search"

_ACTIONS: tuple[tuple[str, str, Effect], ...] = (
    ("create_{one}", "Create a new {a} in {system}: {what}.", "write"),
    ("get_{one}", "Look up one {a} in {system} by its number. {What}.", "read"),
    ("list_{many}", "List {all} of {system}, with filters; {what}.", "read"),
    ("update_{one}", "Change a {a} in {system}. Give only what changes.", "idempotent"),
    ("delete_{one}", "Delete a {a} from {system}. This cannot be undone.", "idempotent"),
)


def distractors() -> list[Tool]:
    """All of them, in the order of the file."""
    systems = tomllib.loads((DATA / "business_tools.toml").read_text(encoding="utf-8"))
    return [tool for name, system in systems.items() for tool in _tools(name, system)]


def _tools(name: str, system: dict[str, Any]) -> list[Tool]:
    tools = []
    for thing in system["things"]:
        one, many, what, parameters = thing.split("; ")
        words = {"one": one, "many": many, "a": one.replace("_", " "), "all": many.replace("_", " ")}
        words |= {"what": what, "What": what[0].upper() + what[1:], "system": system["system"]}
        for action, description, effect in _ACTIONS:
            tools.append(
                _tool(f"{name}/{action.format(**words)}", description.format(**words), parameters, effect)
            )
    for line in system["also"]:
        action, description, parameters = line.split("; ")
        tools.append(_tool(f"{name}/{action}", description, parameters, "write"))
    return tools


def _tool(name: str, description: str, parameters: str, effect: Effect) -> Tool:
    properties = {parameter: {"type": "string"} for parameter in parameters.split(", ")}
    schema = {"type": "object", "properties": properties}
    return Tool(f"tool_{name}", name, description, schema, "webhook", effect=effect)
