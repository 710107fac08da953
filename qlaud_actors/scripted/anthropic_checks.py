"""What the Anthropic Messages API refuses, in the words that clients match on.

Source: the API reference and error bodies in public issue threads (e.g. anthropics/claude-code
8573, 49171, 10687, 18947), November 2026. Any model name is accepted.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from qlaud_actors.scripted import images, schemas
from qlaud_actors.scripted.anthropic_pairs import check_leading_thought, check_pairs
from qlaud_actors.scripted.refusal import Refusal

_BODY = """
    cache_control container context_management diagnostics inference_geo max_tokens mcp_servers messages
    metadata model output_config output_format service_tier speed stop_sequences stream system
    temperature thinking tool_choice tools top_k top_p user_profile_id workspace_id
"""
_TOOL = """
    allowed_callers cache_control defer_loading description eager_input_streaming input_examples
    input_schema name strict type
"""
_BLOCKS = {
    "text": "type text cache_control citations",
    "image": "type source cache_control",
    "thinking": "type thinking signature",
    "tool_use": "type id name input cache_control caller toolset_name",
    "tool_result": "type tool_use_id content is_error cache_control toolset_name",
}
_FIELDS = frozenset(_BODY.split())
_TOOL_FIELDS = frozenset(_TOOL.split())
_BLOCK_FIELDS = {kind: frozenset(names.split()) for kind, names in _BLOCKS.items()}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_CACHE_MARKS = 4


def check(body: Any, *, counting: bool = False) -> None:
    """Raise Refusal (400) for what the vendor would not accept.

    `counting` is the token counter's form, which has no `max_tokens`.
    """
    if not isinstance(body, dict):
        _refuse("Input should be a valid dictionary")
    _no_extras(body, _FIELDS, "")
    if not isinstance(body.get("model"), str) or not body["model"]:
        _refuse("model: Field required")
    if not counting:
        _check_limits(body)
    _check_messages(body.get("messages"))
    _check_system(body.get("system"))
    _check_tools(body.get("tools"))
    _check_choice(body)
    _check_thinking(body)
    _check_format(body.get("output_config"))
    check_pairs(body["messages"])
    if (marks := sum(_cache_marks(body))) > _CACHE_MARKS:
        _refuse(f"A maximum of {_CACHE_MARKS} blocks with cache_control may be provided. Found {marks}.")


def _refuse(message: str) -> NoReturn:
    raise Refusal(400, message)


def _no_extras(value: dict[str, Any], allowed: frozenset[str], where: str) -> None:
    for name in value:
        if name not in allowed:
            _refuse(f"{where}{name}: Extra inputs are not permitted")


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_limits(body: dict[str, Any]) -> None:
    if "max_tokens" not in body:
        _refuse("max_tokens: Field required")
    if not _integer(body["max_tokens"]):
        _refuse("max_tokens: Input should be a valid integer")
    if body["max_tokens"] < 1:
        _refuse("max_tokens: Input should be greater than or equal to 1")
    heat = body.get("temperature")
    if heat is not None and not (isinstance(heat, int | float) and 0 <= heat <= 1):
        _refuse("temperature: range: 0..1")
    for n, sequence in enumerate(body.get("stop_sequences") or []):
        if not isinstance(sequence, str) or not sequence.strip():
            _refuse(f"stop_sequences.{n}: each stop sequence must contain non-whitespace")
    if not isinstance(body.get("stream", False), bool):
        _refuse("stream: Input should be a valid boolean")
    if isinstance(metadata := body.get("metadata"), dict):
        _no_extras(metadata, frozenset(("user_id",)), "metadata.")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list):
        _refuse("messages: Field required" if messages is None else "messages: Input should be a valid list")
    if not messages:
        _refuse("messages: at least one message is required")
    for n, message in enumerate(messages):
        if not isinstance(message, dict):
            _refuse(f"messages.{n}: Input should be a valid dictionary")
        _no_extras(message, frozenset(("role", "content")), f"messages.{n}.")
        if message.get("role") not in ("user", "assistant", "system"):
            _refuse(f"messages.{n}.role: Input should be 'user' or 'assistant'")
        _check_content(message.get("content"), n, final=n == len(messages) - 1, role=message["role"])
    if messages[0]["role"] != "user":
        _refuse('messages: first message must use the "user" role')


def _check_content(content: Any, n: int, *, final: bool, role: str) -> None:
    if not isinstance(content, str | list):
        _refuse(
            f"messages.{n}.content: {'Field required' if content is None else 'Input should be a valid list'}"
        )
    if not content and not (final and role == "assistant"):
        _refuse(
            f"messages.{n}: all messages must have non-empty content except for the optional final"
            " assistant message"
        )
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) and content else content
    for m, block in enumerate(blocks):
        _check_block(block, f"messages.{n}.content.{m}")
    last = blocks[-1] if blocks else {}
    if final and role == "assistant" and last.get("type") == "text" and last["text"] != last["text"].rstrip():
        _refuse("messages: final assistant content cannot end with trailing whitespace")


def _check_block(block: Any, where: str) -> None:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        _refuse(f"{where}: Input should be a valid dictionary or object with a `type`")
    kind = block["type"]
    if kind in _BLOCK_FIELDS:
        _no_extras(block, _BLOCK_FIELDS[kind], f"{where}.{kind}.")
    if kind in _BLOCK_CHECKS:
        _BLOCK_CHECKS[kind](block, where)


def _check_text(block: dict[str, Any], where: str) -> None:
    if not isinstance(block.get("text"), str):
        _refuse(f"{where}.text.text: Field required")
    if not block["text"]:
        _refuse("messages: text content blocks must be non-empty")
    if not block["text"].strip():
        _refuse("messages: text content blocks must contain non-whitespace text")


def _check_thought(block: dict[str, Any], where: str) -> None:
    for name in ("thinking", "signature"):
        if not isinstance(block.get(name), str):
            _refuse(f"{where}.thinking.{name}: Field required")


def _check_call(block: dict[str, Any], where: str) -> None:
    _check_match(block.get("id"), _ID, f"{where}.tool_use.id")
    _check_match(block.get("name"), _NAME, f"{where}.tool_use.name")
    if not isinstance(block.get("input"), dict):
        _refuse(f"{where}.tool_use.input: Input should be a valid dictionary")


def _check_result(block: dict[str, Any], where: str) -> None:
    _check_match(block.get("tool_use_id"), _ID, f"{where}.tool_result.tool_use_id")
    content = block.get("content")
    if not isinstance(content, str | list | None):
        _refuse(f"{where}.tool_result.content: Input should be a valid string or list")
    for m, part in enumerate(content if isinstance(content, list) else []):
        _check_block(part, f"{where}.tool_result.content.{m}")


def _check_image(block: dict[str, Any], where: str) -> None:
    if complaint := images.anthropic_complaint(block.get("source")):
        _refuse(f"{where}.image.{complaint}")


_BLOCK_CHECKS = {
    "text": _check_text,
    "image": _check_image,
    "thinking": _check_thought,
    "tool_use": _check_call,
    "tool_result": _check_result,
}


def _check_match(value: Any, pattern: re.Pattern[str], where: str) -> None:
    if value is None:
        _refuse(f"{where}: Field required")
    if not isinstance(value, str) or not pattern.fullmatch(value):
        _refuse(f"{where}: String should match pattern '^{pattern.pattern}$'")


def _check_system(system: Any) -> None:
    if system is not None and not isinstance(system, str | list):
        _refuse("system: Input should be a valid list")
    for n, block in enumerate(system if isinstance(system, list) else []):
        if not isinstance(block, dict) or block.get("type") != "text":
            _refuse(f"system.{n}: Input should be a text block")
        if not block.get("text"):
            _refuse("system: text content blocks must be non-empty")


def _check_tools(tools: Any) -> None:
    if tools is not None and not isinstance(tools, list):
        _refuse("tools: Input should be a valid list")
    names = set()
    for n, tool in enumerate(tools or []):
        if not isinstance(tool, dict):
            _refuse(f"tools.{n}: Input should be a valid dictionary")
        if tool.get("type") in (None, "custom"):
            _no_extras(tool, _TOOL_FIELDS, f"tools.{n}.custom.")
            _check_match(tool.get("name"), _NAME, f"tools.{n}.custom.name")
            schema = tool.get("input_schema")
            if not isinstance(schema, dict):
                _refuse(f"tools.{n}.custom.input_schema: Field required")
            if schema.get("type") != "object":
                _refuse(f"tools.{n}.custom.input_schema.type: Input should be 'object'")
        if tool.get("name") in names:
            _refuse("tools: Tool names must be unique.")
        names.add(tool.get("name"))


def _check_choice(body: dict[str, Any]) -> None:
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not isinstance(choice, dict) or choice.get("type") not in ("auto", "any", "tool", "none"):
        _refuse("tool_choice: Input tag should be one of: 'auto', 'any', 'tool', 'none'")
    if not body.get("tools"):
        _refuse("tool_choice: tool_choice may only be specified while providing tools")
    names = [tool.get("name") for tool in body["tools"]]
    if choice["type"] == "tool" and choice.get("name") not in names:
        _refuse(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")


def _check_thinking(body: dict[str, Any]) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    if not isinstance(thinking, dict) or not isinstance(thinking.get("type"), str):
        _refuse("thinking: Input should be a valid dictionary or object with a `type`")
    if thinking["type"] != "enabled":
        return
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < 1_024:
        _refuse("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if "max_tokens" in body and budget >= body["max_tokens"]:
        _refuse("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if body.get("temperature") not in (None, 1):
        _refuse("`temperature` may only be set to 1 when thinking is enabled.")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        _refuse("Thinking may not be enabled when tool_choice forces tool use.")
    check_leading_thought(body["messages"])


def _check_format(config: Any) -> None:
    if config is not None and not isinstance(config, dict):
        _refuse("output_config: Input should be a valid dictionary")
    wanted = (config or {}).get("format")
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        _refuse("output_config.format: Input tag should be 'json_schema'")
    _no_extras(wanted, frozenset(("type", "schema")), "output_config.format.")
    if not isinstance(wanted.get("schema"), dict):
        _refuse("output_config.format.schema: Field required")
    if complaint := schemas.anthropic_complaint(wanted["schema"]):
        _refuse(f"output_config.format.schema: {complaint}")


def _cache_marks(body: dict[str, Any]) -> Iterator[int]:
    """One for each cache breakpoint that the caller set on a block."""
    contents = [body.get("system"), body.get("tools"), *(message["content"] for message in body["messages"])]
    for content in contents:
        for block in content if isinstance(content, list) else []:
            yield int(bool(block.get("cache_control")))
