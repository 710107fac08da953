"""Tools and parameters of a Chat Completions request → what the neutral form calls them. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.model import Block, Model, ToolSpec
from qlaud_actors.providers.params import OPENAI_ONLY
from qlaud_actors.providers.schemas import for_anthropic

NO_PARAMETERS: Block = {"type": "object", "properties": {}}

BUDGETS = {"low": 4_096, "medium": 12_288, "high": 24_576, "xhigh": 32_768, "max": 48_000}
"""Thinking tokens by effort, for models that take a budget."""

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_OLDER = re.compile(r"claude-(?:3|[a-z]+-(?:3|4(?:-[015])?(?:-\d{8})?$))")
_ADAPTIVE_TOO = re.compile(r"claude-[a-z]+-4-6")


def tools_of(tools: list[Block]) -> tuple[ToolSpec, ...]:
    """The functions on offer. Raises InvalidRequest for tools of another type."""
    return tuple(map(_tool, tools))


def params_of(body: Mapping[str, Any], model: Model, has_tools: bool) -> dict[str, Any]:
    """Sampling, thinking, format and choice, as Anthropic names them; what has no name there is left out."""
    params: dict[str, Any] = {
        name: body[name] for name in OPENAI_ONLY if body.get(name) is not None and name != "response_format"
    }
    stop = body.get("stop")
    if stop:
        params["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if user := body.get("user") or body.get("safety_identifier"):
        params["metadata"] = {"user_id": user}
    if has_tools and (choice := _choice(body)):
        params["tool_choice"] = choice
    forced = params.get("tool_choice", {}).get("type") in ("any", "tool")
    params |= {} if forced else _thinking(body.get("reasoning_effort"), model)
    if schema := _schema(body.get("response_format")):
        params["output_config"] = {**params.get("output_config", {}), "format": schema}
    if "thinking" not in params and not _unsampled(model):
        params |= {name: body[name] for name in ("temperature", "top_p") if body.get(name) is not None}
    return params


def _tool(tool: Block) -> ToolSpec:
    match tool:
        case {"type": "function", "function": {"name": str(name)} as function}:
            extra = {name: tool[name] for name in ("cache_control",) if tool.get(name)}
            schema = function.get("parameters") or NO_PARAMETERS
            if not isinstance(schema, dict):
                raise InvalidRequest(f"The parameters of the function {name[:64]!r} must be an object.")
            if function.get("strict"):
                extra["strict"] = True
                schema = for_anthropic(schema)
            return ToolSpec(name, function.get("description") or "", schema, extra)
    raise InvalidRequest("This model knows tools of type 'function' only.")


def _choice(body: Mapping[str, Any]) -> Block:
    wanted = body.get("tool_choice")
    choice: Block = {}
    match wanted:
        case {"type": "function", "function": {"name": str(name)}}:
            choice = {"type": "tool", "name": name}
        case str() if wanted in _CHOICES:
            choice = {"type": _CHOICES[wanted]}
        case None:
            pass
        case _:
            raise InvalidRequest("`tool_choice` must be auto, required, none or a function.")
    if body.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    return choice


def _thinking(effort: Any, model: Model) -> dict[str, Any]:
    """Effort as this model takes it: a budget up to Claude 4.5, adaptive since.

    Source: Anthropic's pages on adaptive thinking and effort, November 2026.
    """
    if "reasoning" not in model.capabilities or effort in (None, "none", "minimal"):
        return {}
    if effort not in BUDGETS:
        raise InvalidRequest(f"`reasoning_effort` must be one of none, minimal, {', '.join(BUDGETS)}.")
    if _OLDER.match(model.upstream) or not model.upstream.startswith("claude-"):
        return {"thinking": {"type": "enabled", "budget_tokens": BUDGETS[effort]}}
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}


def _unsampled(model: Model) -> bool:
    """Claude since 4.7 refuses temperature and top_p."""
    name = model.upstream
    return name.startswith("claude-") and not (_OLDER.match(name) or _ADAPTIVE_TOO.match(name))


def _schema(wanted: Any) -> Block | None:
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_schema", "schema": for_anthropic(schema)}
        case None | {"type": "text" | "json_object"}:
            return None
    raise InvalidRequest("`response_format` must be text, json_object or json_schema with a schema.")
