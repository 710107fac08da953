"""The body of `POST /v1/threads/:id/messages`: parsed and checked once, into a `TurnRequest`."""

import hashlib
from typing import Annotated, Any, Literal

import msgspec

from api.bodies import usd_nanos
from qlaud_actors.conversation.approval_rules import APPROVAL_SECONDS, MAX_APPROVAL_SECONDS, Approval
from qlaud_actors.conversation.model import DEFAULT_MAX_ITERATIONS, MAX_ITERATIONS, TurnRequest
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.asks import MAX_FALLBACKS
from qlaud_actors.tools.model import ToolsMode

Block = dict[str, Any]

MAX_BLOCKS = 1000
MAX_TOOLS = 128
BLOCK_TYPES = ("text", "image", "document")

ToolName = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_./-]+\Z")]
Blocks = Annotated[list[Block], msgspec.Meta(min_length=1, max_length=MAX_BLOCKS)]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
ModelSlug = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ClientTool(msgspec.Struct):
    """A tool that the caller runs."""

    name: ToolName
    input_schema: dict[str, Any]
    description: Annotated[str, msgspec.Meta(max_length=4000)] = ""


class Runtime(msgspec.Struct):
    """`qlaud_runtime`; fields for one vendor's own client are accepted and not used."""

    max_iterations: int | None = None
    approval: Approval | None = None
    approval_timeout_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_APPROVAL_SECONDS)] = APPROVAL_SECONDS


class TurnBody(msgspec.Struct):
    """Anthropic's Messages fields without `messages`, and ours."""

    model: ModelSlug
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    content: NonEmpty | Blocks
    stream: bool = False
    models: Annotated[list[ModelSlug], msgspec.Meta(max_length=MAX_FALLBACKS)] | None = None
    """Whom to ask when the model does not answer."""
    max_turn_usd: msgspec.Raw = msgspec.Raw(b"null")
    """The most that the turn may cost, as it is written."""
    system: str | Blocks | None = None
    tools: Annotated[list[str], msgspec.Meta(max_length=MAX_TOOLS)] | None = None
    tools_mode: ToolsMode | None = None
    client_tools: Annotated[list[ClientTool], msgspec.Meta(max_length=MAX_TOOLS)] | None = None
    qlaud_runtime: Runtime | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop_sequences: Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    thinking: dict[str, Any] | None = None
    tool_choice: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None


MODEL_PARAMS = (
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "thinking",
    "tool_choice",
    "metadata",
    "output_config",
)


def turn_request(body: TurnBody, approval: Approval | None = None) -> TurnRequest:
    """What the turn is asked to do; `approval` is its thread's policy.

    Raises InvalidRequest for fields that contradict each other.
    """
    _check_content(body.content)
    _check_system(body.system)
    _check_thinking(body)
    mode = _tools_mode(body.tools, body.tools_mode)
    runtime = body.qlaud_runtime or Runtime()
    return TurnRequest(
        model=body.model,
        max_tokens=body.max_tokens,
        system=body.system or None,
        tools=body.tools if mode == "explicit" else None,
        tools_mode=mode,
        client_tools=[msgspec.to_builtins(tool) for tool in body.client_tools or ()],
        max_iterations=_max_iterations(runtime.max_iterations),
        params={name: value for name in MODEL_PARAMS if (value := getattr(body, name)) is not None},
        fallbacks=body.models,
        max_nanos=usd_nanos("max_turn_usd", body.max_turn_usd),
        approval=runtime.approval or approval or "never",
        approval_timeout_s=runtime.approval_timeout_s,
    )


def fingerprint(raw: bytes, path: str) -> bytes:
    """What must be the same when an Idempotency-Key is used again."""
    return hashlib.sha256(path.encode() + b"\n" + raw).digest()


def _tools_mode(tools: list[str] | None, mode: ToolsMode | None) -> Literal["explicit", "tenant", "dynamic"]:
    """`tools` present means explicit, absent means dynamic; a contradiction is refused."""
    if mode is None:
        return "dynamic" if tools is None else "explicit"
    if tools and mode != "explicit":
        raise InvalidRequest(f"`tools` lists tools one by one, which contradicts tools_mode {mode!r}.")
    return mode


def _max_iterations(asked: int | None) -> int:
    return DEFAULT_MAX_ITERATIONS if asked is None else min(max(asked, 1), MAX_ITERATIONS)


def _check_thinking(body: TurnBody) -> None:
    """The thinking budget decides the smallest affordable answer, so it must be a number below the limit."""
    budget = (body.thinking or {}).get("budget_tokens")
    if budget is None:
        return
    if not isinstance(budget, int) or isinstance(budget, bool) or not 1 <= budget < body.max_tokens:
        raise InvalidRequest("`thinking.budget_tokens` must be a whole number from 1 to below `max_tokens`.")


def _check_system(system: str | list[Block] | None) -> None:
    for index, block in enumerate(system if isinstance(system, list) else ()):
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise InvalidRequest(f'system[{index}] must be a block of type "text".')


def _check_content(content: str | list[Block]) -> None:
    if isinstance(content, str):
        return
    for index, block in enumerate(content):
        kind = block.get("type")
        if kind not in BLOCK_TYPES:
            raise InvalidRequest(f"content[{index}].type must be one of {', '.join(BLOCK_TYPES)}.")
        if kind == "text" and not (isinstance(block.get("text"), str) and block["text"]):
            raise InvalidRequest(f"content[{index}].text must be a non-empty string.")
        if kind != "text" and not isinstance(block.get("source"), dict):
            raise InvalidRequest(f"content[{index}].source must be an object.")
