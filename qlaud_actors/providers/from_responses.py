"""A Responses request → the neutral form. Pure.

`neutral` translates for a model that is not asked in this dialect and refuses what cannot be said there;
`measured` is only for finding the bound of a request that passes through as it is.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.from_openai import JSON_ONLY, joined
from qlaud_actors.providers.model import Block, Message, Model, ModelRequest, ToolSpec
from qlaud_actors.providers.openai_choices import params_of, tools_of
from qlaud_actors.providers.responses_items import conversation, counted

MIN_OUTPUT_TOKENS = 16
"""OpenAI's own: a smaller limit is refused there."""

_KNOWN = frozenset({"model", "input", "instructions", "stream", "stream_options", "tools"})
_SAME = ("parallel_tool_calls", "prompt_cache_key", "safety_identifier", "temperature", "top_p", "user")
"""Fields that Chat Completions spells alike."""


class ResponsesBody(msgspec.Struct):
    """What the relay itself reads of a request; the rest passes through."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    input: str | Annotated[list[Block], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=MIN_OUTPUT_TOKENS, le=10_000_000)] | None = None
    stream: bool | None = None
    tools: list[Block] | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    reasoning: Block | None = None
    text: Block | None = None
    metadata: Block | None = None
    store: bool | None = None
    background: bool | None = None

    @property
    def items(self) -> list[Block]:
        """The input as a list; a text is what a user said."""
        return [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input


def measured(read: ResponsesBody, body: Mapping[str, Any], max_tokens: int) -> ModelRequest:
    """The request with everything that it can cost, in no more order than that needs."""
    return ModelRequest(
        model=read.model,
        messages=tuple(Message("user", counted(item)) for item in read.items),
        max_tokens=max_tokens,
        system=read.instructions,
        tools=tuple(ToolSpec("", "", {}, tool) for tool in read.tools or ()),
        params={name: value for name, value in body.items() if name not in _KNOWN},
    )


def neutral(read: ResponsesBody, body: Mapping[str, Any], model: Model, max_tokens: int) -> ModelRequest:
    """The request as a model can be asked that does not know this dialect. Raises InvalidRequest."""
    system, messages = conversation(read.items)
    if not messages:
        raise InvalidRequest("`input` must hold a message.")
    if read.instructions:
        system.insert(0, {"type": "text", "text": read.instructions})
    wanted = (read.text or {}).get("format")
    if (wanted or {}) == {"type": "json_object"}:
        system.append({"type": "text", "text": JSON_ONLY})
    return ModelRequest(
        model=read.model,
        messages=messages,
        max_tokens=max_tokens,
        system=joined(system),
        tools=tools_of([_as_chat_tool(tool) for tool in read.tools or ()]),
        params=_params(read, body, model),
    )


def _params(read: ResponsesBody, body: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Said first as Chat Completions says it, which has a translation already."""
    said = {name: body[name] for name in _SAME if body.get(name) is not None}
    said["reasoning_effort"] = (read.reasoning or {}).get("effort")
    said["tool_choice"] = _as_chat_choice(body.get("tool_choice"))
    said["verbosity"] = (read.text or {}).get("verbosity")
    said["response_format"] = wanted = _as_chat_format((read.text or {}).get("format"))
    params = params_of(said, model, bool(read.tools))
    return {**params, "response_format": wanted} if wanted else params


def _as_chat_tool(tool: Block) -> Block:
    if tool.get("type") != "function":
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _as_chat_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _as_chat_format(wanted: Any) -> Block | None:
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "schema": dict()}:
            return {"type": "json_schema", "json_schema": {k: v for k, v in wanted.items() if k != "type"}}
        case {"type": "json_object"}:
            return {"type": "json_object"}
    raise InvalidRequest("`text.format` must be text, json_object or json_schema with a schema.")
