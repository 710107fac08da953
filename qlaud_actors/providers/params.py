"""Request parameters that only one of the wires knows, and their translation to the other."""

from typing import Any

from qlaud_actors.providers.dialects import dialect_of, price_limit
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.providers.names import ToolNames
from qlaud_actors.providers.schemas import can_be_strict

ANTHROPIC_PARAMS = frozenset(
    {
        "cache_control",
        "context_management",
        "metadata",
        "output_config",
        "service_tier",
        "stop_sequences",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_p",
    }
)
"""What Anthropic's wire passes on. What makes a token dearer than the price table says (`speed`,
`inference_geo`) or costs beside tokens (`mcp_servers`, `container`) would break a spend cap.
"""

OPENAI_ONLY = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "user",
        "verbosity",
    }
)
"""Fields of callers who speak OpenAI's dialect, which the OpenAI wire passes on.

None of them changes what a token costs; OpenAI's `service_tier` does and is left out.
"""

MAX_TEMPERATURE = 2.0
LOW_BUDGET, MEDIUM_BUDGET = 4_096, 16_384
"""Thinking budgets (tokens) up to which the effort is `low`, or `medium`."""

_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def openai_params(request: ModelRequest, model: Model, names: ToolNames) -> dict[str, Any]:
    """The Chat Completions fields beside model and messages; `top_k` has no counterpart."""
    params = request.params
    dialect = dialect_of(model)
    fields: dict[str, Any] = {dialect.limit_field: request.max_tokens}
    if dialect.takes_stream_options:
        fields["stream_options"] = {"include_usage": True}
    if stop := params.get("stop_sequences"):
        fields["stop"] = stop
    return {
        **fields,
        **_sampling(params, model),
        **_reasoning(params, model),
        **_format(params),
        **(_tools(request, names) if request.tools else {}),
        **{name: value for name, value in params.items() if name in OPENAI_ONLY},
        **price_limit(model),
    }


def _sampling(params: dict[str, Any], model: Model) -> dict[str, Any]:
    if dialect_of(model).fixed_sampling and "reasoning" in model.capabilities:
        return {}
    fields = {name: params[name] for name in ("temperature", "top_p") if params.get(name) is not None}
    if "temperature" in fields:
        fields["temperature"] = min(max(fields["temperature"], 0), MAX_TEMPERATURE)
    return fields


def _reasoning(params: dict[str, Any], model: Model) -> dict[str, Any]:
    """Effort as asked for, or as a thinking budget implies it; only `low` to `high` exist everywhere."""
    if "reasoning" not in model.capabilities:
        return {}
    effort = (params.get("output_config") or {}).get("effort")
    if effort:
        return {"reasoning_effort": "high" if effort in ("xhigh", "max") else effort}
    budget = (params.get("thinking") or {}).get("budget_tokens")
    if not budget:
        return {}
    if budget <= LOW_BUDGET:
        return {"reasoning_effort": "low"}
    return {"reasoning_effort": "medium" if budget <= MEDIUM_BUDGET else "high"}


def _format(params: dict[str, Any]) -> dict[str, Any]:
    wanted = (params.get("output_config") or {}).get("format") or {}
    if wanted.get("type") != "json_schema":
        return {}
    strict = can_be_strict(wanted["schema"])
    schema = {"name": "output", "schema": wanted["schema"], "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _tools(request: ModelRequest, names: ToolNames) -> dict[str, Any]:
    fields: dict[str, Any] = {"tools": []}
    for tool in request.tools:
        function: dict[str, Any] = {
            "name": names.to_wire(tool.name),
            "description": tool.description,
            # An object schema without properties is refused.
            "parameters": {"type": "object", "properties": {}, **tool.input_schema},
        }
        if "strict" in tool.extra:
            function["strict"] = bool(tool.extra["strict"]) and can_be_strict(function["parameters"])
        fields["tools"].append({"type": "function", "function": function})
    choice = request.params.get("tool_choice") or {}
    if choice.get("type") == "tool":
        fields["tool_choice"] = {"type": "function", "function": {"name": names.to_wire(choice["name"])}}
    elif choice.get("type") in _TOOL_CHOICES:
        fields["tool_choice"] = _TOOL_CHOICES[choice["type"]]
    if choice.get("disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields
