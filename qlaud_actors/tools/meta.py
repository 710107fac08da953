"""The four meta-tools: through them a model finds and runs tools that it was not shown.

Names and shapes are fixed by the wire (reference 5.2). They are `idempotent`: what they run is
journaled call by call, so running one of them again repeats nothing.
"""

from typing import Any

from qlaud_actors.tools.model import Tool, ToolOutcome, Toolset
from qlaud_actors.tools.search import rank

SEARCH, SCHEMAS = "qlaud_search_tools", "qlaud_get_tool_schemas"
EXECUTE, CONNECTIONS = "qlaud_multi_execute", "qlaud_manage_connections"

DEFAULT_RESULTS, MAX_RESULTS = 8, 25
MAX_CALLS = 50


def _meta(name: str, description: str, schema: dict[str, Any]) -> Tool:
    return Tool(name, name, description, {"type": "object", **schema}, "meta", effect="idempotent")


META_TOOLS: tuple[Tool, ...] = (
    _meta(
        SEARCH,
        "Find tools by what you want to do. Returns names and descriptions. Search before you say that "
        "something cannot be done; then get the schemas of the tools you want to run.",
        {
            "properties": {
                "intent": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1000,
                    "description": "What should happen, in a few words: 'create a ticket'.",
                },
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_RESULTS},
            },
            "required": ["intent"],
        },
    ),
    _meta(
        SCHEMAS,
        "Get the input schemas of tools, by the names that a search returned.",
        {
            "properties": {
                "tools": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 25},
                "names": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 25},
            },
            "anyOf": [{"required": ["tools"]}, {"required": ["names"]}],
        },
    ),
    _meta(
        EXECUTE,
        "Run tools by name, with arguments that fit their schemas. Independent calls run in parallel; set "
        "`ordered` when each must wait for the one before. Every call has its own result and may fail alone.",
        {
            "properties": {
                "calls": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_CALLS,
                    "items": {
                        "type": "object",
                        "properties": {"tool": {"type": "string"}, "args": {"type": "object"}},
                        "required": ["tool"],
                    },
                },
                "ordered": {"type": "boolean"},
            },
            "required": ["calls"],
        },
    ),
    _meta(
        CONNECTIONS,
        "See and change which accounts are connected. When a tool says that it is not connected, use "
        "`connect` and give the user the link.",
        {
            "properties": {
                "action": {"type": "string", "enum": ["list", "status", "connect", "disconnect"]},
                "tool": {"type": "string"},
                "credentials": {"type": "object"},
            },
            "required": ["action"],
        },
    ),
)


def search_tools(toolset: Toolset, arguments: dict[str, Any]) -> ToolOutcome:
    """`{results: [{name, kind, description}]}`, best first."""
    limit = arguments.get("limit") or DEFAULT_RESULTS
    found = rank(arguments["intent"], toolset.reachable, limit)
    results = [{"name": t.name, "kind": t.kind, "description": t.description} for t, _ in found]
    return ToolOutcome({"results": results})


def get_tool_schemas(toolset: Toolset, arguments: dict[str, Any]) -> ToolOutcome:
    """`{schemas: [{name, description, input_schema}]}`; unknown names are told apart."""
    schemas, unknown = [], []
    for name in arguments.get("tools") or arguments["names"]:
        if tool := toolset.find_reachable(name):
            schemas.append(
                {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
            )
        else:
            unknown.append(name)
    return ToolOutcome({"schemas": schemas, **({"unknown": unknown} if unknown else {})})


def manage_connections(toolset: Toolset, arguments: dict[str, Any]) -> ToolOutcome:
    """Webhook tools need no connection: they are the developer's own."""
    if arguments["action"] == "list":
        return ToolOutcome({"tools": []})
    name = arguments.get("tool")
    if not name:
        return ToolOutcome(f"`tool` is needed to {arguments['action']}.", is_error=True)
    if toolset.find_reachable(name) is None:
        return ToolOutcome(f"There is no tool named {name!r}. Search for it first.", is_error=True)
    if arguments["action"] != "status":
        return ToolOutcome(f"{name} needs no connection and can be run as it is.", is_error=True)
    return ToolOutcome({"tool": name, "status": "connected", "connected": True, "credentials_prompt": None})
