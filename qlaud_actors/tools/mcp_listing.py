"""From what an MCP server lists to the tools that an account gets. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.ids import new_tool_id
from qlaud_actors.tools.model import Effect, McpServer, Tool
from qlaud_actors.tools.schema import MAX_DESCRIPTION, check_definition

MAX_TOOLS = 200
"""Of one server: every one is shown to the model on each turn in tenant mode."""

MAX_NAME_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Unusable:
    """A listed tool that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes the tools of a server what it lists now."""

    add: list[Tool]
    change: list[Tool]
    revoke: list[str]
    """Ids."""


def tools_of(server: McpServer, listed: list[dict[str, Any]]) -> tuple[list[Tool], list[Unusable]]:
    """The tools named `<server>/<tool>`, and those that cannot be used, each with its reason."""
    tools: dict[str, Tool] = {}
    unusable = []
    for told in listed:
        name = f"{server.name}/{told['name']}"
        try:
            tools[name] = _tool(server, name, told, tools)
        except InvalidRequest as error:
            unusable.append(Unusable(name[:MAX_NAME_SHOWN], error.message))
    return list(tools.values()), unusable


def entrance(server: McpServer, vendor: str, description: str) -> Tool:
    """Stands for the tools of a server to which nobody has connected yet: so it is found, and connected."""
    words = f"{description} Connect an account at {vendor} first: its tools are known then."
    return Tool(
        id=new_tool_id(),
        name=f"{server.name}/connect",
        description=words[:MAX_DESCRIPTION],
        input_schema={"type": "object", "properties": {}},
        kind="mcp",
        effect="read",
        timeout_ms=server.timeout_ms,
        server=server,
        shared=False,
    )


def effect_of(hints: Mapping[str, Any]) -> Effect:
    """What the server says of a repetition; what it does not say is taken for a write."""
    if hints.get("readOnlyHint") is True:
        return "read"
    return "idempotent" if hints.get("idempotentHint") is True else "write"


def compare(known: list[Tool], listed: list[Tool]) -> Plan:
    """What to add, change (under the known id) and revoke."""
    by_name = {tool.name: tool for tool in known}
    kept = [replace(tool, id=by_name[tool.name].id) for tool in listed if tool.name in by_name]
    names = {tool.name for tool in listed}
    return Plan(
        add=[tool for tool in listed if tool.name not in by_name],
        change=[tool for tool in kept if _described(tool) != _described(by_name[tool.name])],
        revoke=[tool.id for tool in known if tool.name not in names],
    )


def _described(tool: Tool) -> tuple[object, ...]:
    return tool.description, tool.input_schema, tool.effect, tool.timeout_ms


def _tool(server: McpServer, name: str, told: dict[str, Any], before: Mapping[str, Tool]) -> Tool:
    """One listed tool. Raises InvalidRequest."""
    if name in before:
        raise InvalidRequest("The server lists this name twice.")
    if len(before) == MAX_TOOLS:
        raise InvalidRequest(f"A server may have at most {MAX_TOOLS} tools.")
    hints = told.get("annotations") or {}
    described = (told.get("description"), told.get("title"), hints.get("title"))
    description = next((text for text in described if text and text.strip()), told["name"])
    tool = Tool(
        id=new_tool_id(),
        name=name,
        description=description[:MAX_DESCRIPTION],
        input_schema=told["inputSchema"],
        kind="mcp",
        effect=server.effect or effect_of(hints),
        timeout_ms=server.timeout_ms,
        server=server,
        shared=server.auth_mode == "tenant",
    )
    check_definition(tool.name, tool.description, tool.input_schema)
    return tool
