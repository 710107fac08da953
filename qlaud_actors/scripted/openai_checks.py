"""What the OpenAI Chat Completions API refuses, in the words that clients match on.

Source: the API reference and error bodies in public issue threads (e.g. CherryHQ/cherry-studio
2895, run-llama/llama_index 10493), November 2026. Any model name is accepted.
"""

import re
from typing import Any, NoReturn

from qlaud_actors.scripted import images, schemas
from qlaud_actors.scripted.refusal import Refusal

_BODY = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
    messages metadata modalities model moderation n parallel_tool_calls prediction presence_penalty
    prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format
    safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools
    top_logprobs top_p user verbosity web_search_options
"""
_FIELDS = frozenset(_BODY.split())
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_LONGEST_NAME = 64
_MOST_COPIES = 128
_PART_FIELDS = {"text": ("type", "text"), "image_url": ("type", "image_url")}
_PATTERN = "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."


def check(body: Any) -> None:
    """Raise Refusal (400) for what the vendor would not accept."""
    check_fields(body, _FIELDS, ("model", "messages"))
    _check_limits(body)
    _check_messages(body["messages"])
    _check_pairs(body["messages"])
    _check_tools(body)
    _check_format(body.get("response_format"))


def check_fields(body: Any, known: frozenset[str], required: tuple[str, ...]) -> None:
    """Raise Refusal (400) for a body that is no object, has a field too many or lacks one."""
    if not isinstance(body, dict):
        refuse("The body must be a JSON object.")
    for name in body:
        if name not in known:
            refuse(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in required:
        if not body.get(name) and body.get(name) != []:
            refuse(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def refuse(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    """Refuse a request as malformed."""
    raise Refusal(400, message, param=param, code=code)


def wrong_type(where: str, expected: str) -> NoReturn:
    """Refuse a value of another type."""
    refuse(f"Invalid type for '{where}': expected {expected}.", where, "invalid_type")


def _check_limits(body: dict[str, Any]) -> None:
    for name, least in (("max_tokens", 1), ("max_completion_tokens", 1), ("n", 1)):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            wrong_type(name, "an integer")
        if value < least:
            refuse(
                f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got"
                f" {value} instead.",
                name,
                "integer_below_min_value",
            )
    if body.get("max_tokens") and body.get("max_completion_tokens"):
        refuse(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            "max_tokens",
            "invalid_parameter_combination",
        )
    if (body.get("n") or 1) > _MOST_COPIES:
        refuse(f"Invalid 'n': expected a value <= {_MOST_COPIES}.", "n", "integer_above_max_value")
    if not isinstance(body.get("stream") or False, bool):
        wrong_type("stream", "a boolean")
    if body.get("stream_options") is not None and not body.get("stream"):
        refuse("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list):
        wrong_type("messages", "an array of objects")
    if not messages:
        refuse(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty"
            " array instead.",
            "messages",
            "empty_array",
        )
    for n, message in enumerate(messages):
        if not isinstance(message, dict):
            wrong_type(f"messages[{n}]", "an object")
        if message.get("role") not in _ROLES:
            supported = ", ".join(f"'{role}'" for role in _ROLES)
            refuse(
                f"Invalid value: '{message.get('role')}'. Supported values are: {supported}.",
                f"messages[{n}].role",
                "invalid_value",
            )
        _check_content(message, n)
        for m, call in enumerate(message.get("tool_calls") or []):
            _check_call(call, f"messages[{n}].tool_calls[{m}]")
    if any(message.get("tool_calls") == [] for message in messages):
        refuse("Invalid 'messages': 'tool_calls' must not be an empty array.", "messages", "empty_array")


def _check_content(message: dict[str, Any], n: int) -> None:
    content = message.get("content")
    where = f"messages.[{n}].content"
    bare = message["role"] == "assistant" and any(
        message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio")
    )
    if content is None and not bare:
        refuse("Invalid value for 'content': expected a string, got null.", where)
    if content is not None and not isinstance(content, str | list):
        wrong_type(where, "a string or an array of content parts")
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            wrong_type(where, "an array of content parts with a type")
        _check_part(part, where)


def _check_part(part: dict[str, Any], where: str) -> None:
    for name in part:
        if name not in _PART_FIELDS.get(part["type"], part):
            refuse(f"Unknown parameter: '{where}.{name}'.", f"{where}.{name}", "unknown_parameter")
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        wrong_type(f"{where}.text", "a string")
    if part["type"] == "image_url":
        image = part.get("image_url")
        if not isinstance(image, dict):
            wrong_type(f"{where}.image_url", "an object")
        if complaint := images.openai_complaint(image.get("url")):
            refuse(complaint, where, "invalid_image")


def _check_call(call: Any, where: str) -> None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(call.get("id"), str):
        refuse(f"Missing required parameter: '{where}.id'.", f"{where}.id", "missing_required_parameter")
    if not isinstance(function.get("arguments"), str):
        wrong_type(f"{where}.function.arguments", "a string")
    check_name(function.get("name"), f"{where}.function.name")


def check_name(name: Any, where: str) -> None:
    """Raise Refusal (400) for a function's name that is missing, too long or of other characters."""
    if not isinstance(name, str) or not name:
        refuse(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    if len(name) > _LONGEST_NAME:
        refuse(
            f"Invalid '{where}': string too long. Expected a string with maximum length {_LONGEST_NAME},"
            f" but got a string with length {len(name)} instead.",
            where,
            "string_above_max_length",
        )
    if not _NAME.fullmatch(name):
        refuse(f"Invalid '{where}': string does not match pattern. {_PATTERN}", where, "invalid_value")


def _check_pairs(messages: list[dict[str, Any]]) -> None:
    """Every tool call is answered by the tool messages right after it, and none answers another."""
    asked: list[str] = []
    answered: set[str] = set()
    for n, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in asked:
                refuse(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding"
                    " message with 'tool_calls'.",
                    f"messages.[{n}].role",
                )
            answered.add(message["tool_call_id"])
            continue
        _check_answered(asked, answered, n)
        asked = [call["id"] for call in message.get("tool_calls") or []]
        answered = set()
    _check_answered(asked, answered, len(messages))


def _check_answered(asked: list[str], answered: set[str], n: int) -> None:
    if missing := [name for name in asked if name not in answered]:
        refuse(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
            " 'tool_call_id'. The following tool_call_ids did not have response messages:"
            f" {', '.join(missing)}",
            f"messages.[{n}].role",
        )


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) not in (None, "none"):
                refuse(
                    f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", name
                )
        return
    if not isinstance(tools, list):
        wrong_type("tools", "an array of objects")
    if not tools:
        refuse(
            "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array"
            " instead.",
            "tools",
            "empty_array",
        )
    for n, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            where = f"tools[{n}].function"
            refuse(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
        check_name(function.get("name"), f"tools[{n}].function.name")
        schema = function.get("parameters")
        if schema is not None and (not isinstance(schema, dict) or schema.get("type", "object") != "object"):
            name = function["name"]
            refuse(
                f"Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \"object\"'.",
                f"tools[{n}].function.parameters",
                "invalid_function_parameters",
            )
    _check_choice(body)


def _check_format(wanted: Any) -> None:
    if wanted is None:
        return
    kinds = ("text", "json_object", "json_schema")
    if not isinstance(wanted, dict) or wanted.get("type") not in kinds:
        refuse("Invalid value for 'response_format'.", "response_format", "invalid_value")
    if wanted["type"] != "json_schema":
        return
    given = wanted.get("json_schema")
    if not isinstance(given, dict):
        where = "response_format.json_schema"
        refuse(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    check_name(given.get("name"), "response_format.json_schema.name")
    complaint = schemas.openai_complaint(given.get("schema")) if given.get("strict") else None
    if complaint:
        said = f"Invalid schema for response_format '{given['name']}': {complaint}"
        refuse(said, "response_format", "invalid_json_schema")


def _check_choice(body: dict[str, Any]) -> None:
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if name not in [tool["function"]["name"] for tool in body["tools"]]:
            refuse(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    elif choice not in (None, "none", "auto", "required"):
        refuse(
            f"Invalid value: '{choice}'. Supported values are: 'none', 'auto', and 'required'.",
            "tool_choice",
            "invalid_value",
        )
