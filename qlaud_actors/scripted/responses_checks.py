"""What the OpenAI Responses API refuses, in the words that clients match on.

Source: the API reference, the official SDK's types and error bodies in public threads (e.g.
community.openai.com "No tool output found for function call"), November 2026. Any model name is accepted.
"""

from typing import Any

from qlaud_actors.scripted.openai_checks import check_fields, check_name, refuse, wrong_type

THOUGHT = "gAAAA"
"""How this vendor's encrypted thoughts begin."""

_BODY = """
    access_programs background background_options context_management conversation image include input
    instructions max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls
    previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning
    safety_identifier service_tier store stream stream_options temperature text tool_choice tools
    top_logprobs top_p truncation user
"""
_FIELDS = frozenset(_BODY.split())
_ITEMS = {
    "message": "type id role content status phase",
    "function_call": "type id call_id name arguments status namespace caller async",
    "function_call_output": "type id call_id output status caller",
    "reasoning": "type id summary content encrypted_content status",
}
_ITEM_FIELDS = {kind: frozenset(names.split()) for kind, names in _ITEMS.items()}
_PARTS = {
    "user": ("input_text", "input_image", "input_file"),
    "system": ("input_text",),
    "developer": ("input_text",),
    "assistant": ("output_text", "refusal"),
}
_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}
_LEAST_OUTPUT = 16


def check(body: Any) -> None:
    """Raise Refusal (400) for what the vendor would not accept."""
    check_fields(body, _FIELDS, ("model", "input"))
    _check_limit(body.get("max_output_tokens"))
    if not isinstance(body.get("stream") or False, bool):
        wrong_type("stream", "a boolean")
    _check_input(body)
    _check_tools(body)
    _check_format((body.get("text") or {}).get("format"))


def _check_limit(limit: Any) -> None:
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool):
        wrong_type("max_output_tokens", "an integer")
    if limit < _LEAST_OUTPUT:
        refuse(
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >="
            f" {_LEAST_OUTPUT}, but got {limit} instead.",
            "max_output_tokens",
            "integer_below_min_value",
        )


def _check_input(body: dict[str, Any]) -> None:
    items = body["input"]
    if isinstance(items, str):
        return
    if not isinstance(items, list):
        wrong_type("input", "a string or an array of items")
    for n, item in enumerate(items):
        if not isinstance(item, dict):
            wrong_type(f"input[{n}]", "an object")
        _check_item(item, f"input[{n}]", stored=bool(body.get("store", True)))
    _check_pairs(items)


def _check_item(item: dict[str, Any], where: str, *, stored: bool) -> None:
    kind = item.get("type") or "message"
    if kind not in _ITEM_FIELDS:
        refuse(f"Invalid value: '{kind}'.", where, "invalid_value")
    for name in item:
        if name not in _ITEM_FIELDS[kind]:
            refuse(f"Unknown parameter: '{where}.{name}'.", f"{where}.{name}", "unknown_parameter")
    prefix = _PREFIXES.get(kind)
    if prefix and item.get("id") and not str(item["id"]).startswith(prefix):
        refuse(
            f"Invalid '{where}.id': '{item['id']}'. Expected an ID that begins with '{prefix}'.",
            f"{where}.id",
            "invalid_value",
        )
    if kind == "message":
        _check_message(item, where)
    elif kind == "reasoning":
        _check_thought(item, where, stored=stored)
    else:
        _check_call(item, where)


def _check_message(item: dict[str, Any], where: str) -> None:
    role, content = item.get("role"), item.get("content")
    if role not in _PARTS:
        known = ", ".join(f"'{name}'" for name in _PARTS)
        refuse(f"Invalid value: '{role}'. Supported values are: {known}.", f"{where}.role", "invalid_value")
    if not isinstance(content, str | list):
        wrong_type(f"{where}.content", "a string or an array of content parts")
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, dict) or part.get("type") not in _PARTS[role]:
            known = ", ".join(f"'{name}'" for name in _PARTS[role])
            refuse(f"Invalid value. Supported values are: {known}.", f"{where}.content", "invalid_value")


def _check_thought(item: dict[str, Any], where: str, *, stored: bool) -> None:
    if not isinstance(item.get("summary"), list):
        refuse(f"Missing required parameter: '{where}.summary'.", where, "missing_required_parameter")
    sealed = item.get("encrypted_content")
    if sealed is None and not stored:
        refuse(f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is false.")
    if sealed is not None and not str(sealed).startswith(THOUGHT):
        refuse("The encrypted content could not be verified.", code="invalid_encrypted_content")


def _check_call(item: dict[str, Any], where: str) -> None:
    texts = ("call_id", "name", "arguments") if item["type"] == "function_call" else ("call_id",)
    for name in texts:
        if not isinstance(item.get(name), str):
            refuse(f"Missing required parameter: '{where}.{name}'.", where, "missing_required_parameter")
    if item["type"] == "function_call":
        check_name(item["name"], f"{where}.name")
    elif not isinstance(item.get("output"), str | list):
        wrong_type(f"{where}.output", "a string or an array of content parts")


def _check_pairs(items: list[dict[str, Any]]) -> None:
    """Every call is answered somewhere behind it, and nothing else is."""
    asked = [item["call_id"] for item in items if item.get("type") == "function_call"]
    answered = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    for call_id in answered:
        if call_id not in asked:
            refuse(f"No tool call found for function call output with call_id {call_id}.", "input")
    for call_id in asked:
        if call_id not in answered:
            refuse(f"No tool output found for function call {call_id}.", "input")


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        wrong_type("tools", "an array of objects")
    for n, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            refuse(f"Missing required parameter: 'tools[{n}].type'.", "tools", "missing_required_parameter")
        if tool["type"] == "function":
            check_name(tool.get("name"), f"tools[{n}].name")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("name") not in [tool.get("name") for tool in tools]:
        refuse(f"Tool choice '{choice.get('name')}' not found in 'tools' parameter.", "tool_choice")
    if not isinstance(choice, dict) and choice not in (None, "none", "auto", "required"):
        refuse(f"Invalid value: '{choice}'.", "tool_choice", "invalid_value")


def _check_format(wanted: Any) -> None:
    if (wanted or {}).get("type") == "json_schema" and not (wanted.get("name") and wanted.get("schema")):
        where = "text.format.name"
        refuse(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
