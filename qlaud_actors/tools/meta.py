"""The four meta-tools: through them a model finds and runs tools that it was not shown.

Names and shapes are fixed by the wire (reference 5.2). They are `idempotent`: what they run is
journaled call by call, so running one of them again repeats nothing. The first two are answered here,
purely; `qlaud_multi_execute` is carried out by the dispatcher, `qlaud_manage_connections` by `manage.py`.
"""

from typing import Any

from qlaud_actors.tools.model import MANAGE_CONNECTIONS, MULTI_EXECUTE, Tool, ToolOutcome, Toolset
from qlaud_actors.tools.search import rank, told
from qlaud_actors.tools.search_document import of_tools
from qlaud_actors.tools.search_index import Index
from qlaud_actors.tools.search_intent import Brands, Intent

SEARCH, SCHEMAS = "qlaud_search_tools", "qlaud_get_tool_schemas"
EXECUTE, CONNECTIONS = MULTI_EXECUTE, MANAGE_CONNECTIONS

MAX_INTENT = 1000
DEFAULT_RESULTS, MAX_RESULTS = 8, 25
MAX_SCHEMAS = 25
MAX_CALLS = 50
TIMEOUT_MS = 120_000


def _meta(name: str, description: str, properties: dict[str, Any], *required: str) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return Tool(name, name, description, schema, "meta", effect="idempotent", timeout_ms=TIMEOUT_MS)


def _text(description: str, **limits: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **limits}


SEARCH_TOOL = _meta(
    SEARCH,
    "Find tools by what you want to do. Returns names and descriptions, best match first, and whether the "
    "vendor's account is connected and whose it is. Search before "
    f"you say that something cannot be done. Then read the schemas with {SCHEMAS} and run the tools with "
    f"{EXECUTE}.",
    {
        "intent": _text(
            "What should happen, as a short phrase with a verb and an object: 'create a ticket'. One "
            "intent for each search.",
            minLength=1,
            maxLength=MAX_INTENT,
        ),
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_RESULTS,
            "description": f"The most results, {DEFAULT_RESULTS} if absent.",
        },
    },
    "intent",
)

# `names` is what some clients send for `tools`: accepted, not advertised. So `tools` is not `required`.
SCHEMAS_TOOL = _meta(
    SCHEMAS,
    f"Get the input schemas of tools, by the names that {SEARCH} returned. Read a tool's schema before you "
    "run it for the first time.",
    {
        "tools": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MAX_SCHEMAS,
            "description": "Names of tools, exactly as found. Always needed.",
        }
    },
)

EXECUTE_TOOL = _meta(
    EXECUTE,
    "Run tools by name. Independent calls of one request run in parallel. Every call has its own result, in "
    "the order of the calls, and may fail alone: look at `status` of each.",
    {
        "calls": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_CALLS,
            "description": "The calls to make.",
            "items": {
                "type": "object",
                "properties": {
                    "tool": _text("The tool's name, exactly as found.", minLength=1),
                    "args": {"type": "object", "description": "Its input, as its schema asks."},
                    "timeout_ms": {
                        "type": "integer",
                        "minimum": 100,
                        "maximum": TIMEOUT_MS,
                        "description": "Give up earlier than the tool itself would.",
                    },
                    "idempotency_key": _text(
                        "A name of yours for this call: repeated within a day, it is not run again but "
                        "answered as the first time.",
                        minLength=1,
                        maxLength=255,
                    ),
                },
                "required": ["tool"],
            },
        },
        "ordered": {
            "type": "boolean",
            "description": "Run the calls one after another, and none after one that failed. For calls that "
            "build on each other.",
        },
    },
    "calls",
)

CONNECTIONS_TOOL = _meta(
    CONNECTIONS,
    "See and change which of the user's accounts are connected. When a tool says that it is not connected, "
    "use `connect` and give the user the link. Never ask the user for passwords or keys in the conversation.",
    {
        "action": {
            "type": "string",
            "enum": ["list", "status", "connect", "disconnect"],
            "description": "`list` needs nothing else, the others need `tool`.",
        },
        "tool": _text(
            "What to connect: `qlaud-mcp/<connector>`, or the name of one of its tools.", maxLength=128
        ),
        "credentials": {"type": "object", "description": "Never in a conversation."},
    },
    "action",
)

META_TOOLS: tuple[Tool, ...] = (SEARCH_TOOL, SCHEMAS_TOOL, EXECUTE_TOOL, CONNECTIONS_TOOL)


def answer(name: str, toolset: Toolset, arguments: dict[str, Any]) -> ToolOutcome:
    """What a meta-tool that runs no other tool gives. The arguments fit its schema."""
    match name:
        case "qlaud_search_tools":
            return search_tools(toolset, arguments)
        case "qlaud_get_tool_schemas":
            return get_tool_schemas(toolset, arguments)
    raise ValueError(f"{name!r} is not answered here")


def search_tools(toolset: Toolset, arguments: dict[str, Any]) -> ToolOutcome:
    """`{results: [{name, kind, description, score, …}]}`, best first, by words and over the toolset alone."""
    index = Index.of(of_tools(toolset.reachable))
    limit = arguments.get("limit") or DEFAULT_RESULTS
    found = rank(Intent.read(arguments["intent"]), [index], limit, Brands.of(()), {})
    return ToolOutcome({"results": [told(match) for match in found]})


def get_tool_schemas(toolset: Toolset, arguments: dict[str, Any]) -> ToolOutcome:
    """`{schemas: [{name, description, input_schema}]}`, and `unknown` names if there are any."""
    names = arguments.get("tools") or arguments.get("names")
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_SCHEMAS:
        return ToolOutcome(f"`tools` must be a list of 1 to {MAX_SCHEMAS} names.", is_error=True)
    known = {name: toolset.find_reachable(name) for name in names if isinstance(name, str)}
    schemas = [
        {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
        for tool in known.values()
        if tool
    ]
    unknown = [name for name, tool in known.items() if tool is None]
    return ToolOutcome({"schemas": schemas, **({"unknown": unknown} if unknown else {})})
