"""From the result of an MCP call to what a model reads. Pure.

Text is joined. What is structured is preferred, because it is the same in a form that can be relied on.
Images, sound and resources are described: a tool's result is text for the models of both wires.
"""

from typing import Any

from qlaud_actors.tools.model import ToolOutcome

MAX_URI = 500


def outcome_of(result: dict[str, Any]) -> ToolOutcome:
    """The outcome that a `CallToolResult` of the protocol stands for."""
    is_error = result.get("isError") is True
    structured = result.get("structuredContent")
    if structured is not None and not is_error:
        return ToolOutcome(structured)
    text = "\n".join(map(_described, result.get("content") or []))
    if structured is not None and not text:
        return ToolOutcome(structured, is_error)
    return ToolOutcome(text or ("The tool failed and did not say why." if is_error else ""), is_error)


def _described(block: dict[str, Any]) -> str:
    match block.get("type"):
        case "text":
            return str(block["text"])
        case "image" | "audio" as kind:
            size = len(block.get("data") or "") * 3 // 4
            return f"[{kind}, {block.get('mimeType')}, about {size} bytes, not shown]"
        case "resource":
            resource = block.get("resource") or {}
            if "text" in resource:
                return str(resource["text"])
            return f"[resource {_uri(resource)}, {resource.get('mimeType')}, not shown]"
        case "resource_link":
            return f"[resource {_uri(block)}: {block.get('title') or block.get('name')}]"
    return f"[{block.get('type')}, not shown]"


def _uri(resource: dict[str, Any]) -> str:
    return str(resource.get("uri"))[:MAX_URI]
