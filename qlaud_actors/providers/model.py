"""The neutral form of a model call: Anthropic's block vocabulary, the richer of the two wires.

Blocks stay JSON objects as the wire spells them (`{"type": "text", "text": …}`), so that fields
this version does not know survive a round trip. What is ours is typed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from qlaud_actors.providers.pricing import UNPRICED, Timeline
from qlaud_actors.usage import Price, Usage

Block: TypeAlias = dict[str, Any]
Role: TypeAlias = Literal["user", "assistant"]
StopReason: TypeAlias = str
"""`end_turn`, `max_tokens`, `tool_use`, `stop_sequence`, `refusal`, `pause_turn`, or newer."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str | list[Block]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it. Names may contain `/`; wires map them where that is forbidden."""

    name: str
    description: str
    input_schema: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of a caller's own tool (cache_control, strict, …), as Anthropic names them."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model, before it is put on a wire."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    system: str | list[Block] | None = None
    tools: tuple[ToolSpec, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    """Sampling and thinking fields as Anthropic names them: temperature, top_p, top_k,
    stop_sequences, thinking, tool_choice, metadata, output_config. Fields that change the price of a token
    (service tiers, speed, region) are not among them: no hold would cover them."""


@dataclass(frozen=True, slots=True)
class MessageStarted:
    """The provider has begun to answer."""

    message_id: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class BlockStarted:
    """A content block begins; `block` is its empty form (for tool_use: id, name, empty input)."""

    index: int
    block: Block


@dataclass(frozen=True, slots=True)
class BlockDelta:
    """A piece of a block: text_delta, thinking_delta, signature_delta, input_json_delta, …"""

    index: int
    delta: Block


@dataclass(frozen=True, slots=True)
class BlockStopped:
    """A content block is complete."""

    index: int


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """The provider has finished: why, and what the call used in all."""

    stop_reason: StopReason
    usage: Usage
    stop_sequence: str | None = None


ModelEvent: TypeAlias = MessageStarted | BlockStarted | BlockDelta | BlockStopped | MessageEnded


@dataclass(frozen=True, slots=True)
class ModelReply:
    """A complete answer: the fold of its events."""

    message_id: str
    content: list[Block]
    stop_reason: StopReason
    usage: Usage
    stop_sequence: str | None = None

    @property
    def tool_uses(self) -> list[Block]:
        """The tool_use blocks, in order."""
        return [block for block in self.content if block.get("type") == "tool_use"]


@dataclass(frozen=True, slots=True)
class Provider:
    """A model vendor's endpoint: which wire it speaks, where, and how it is authenticated."""

    slug: str
    display_name: str
    wire: str
    base_url: str
    auth_header: str
    """`x-api-key` or `authorization` (then sent as a bearer token)."""
    api_key_env: str
    base_url_env: str
    requires_key: bool = True
    image_tokens: int = 5_000
    """The most that one image of any size is billed as, in input tokens."""
    on_request: bool = False
    """Offered only when it is given a base URL: a provider that nobody gets by accident."""
    surfaces: tuple[str, ...] = ()
    """Dialects beside its wire in which its models can be asked: requests in them pass as they are."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What a picture or a sound is billed as at most, where a request itself does not say; 0 is unknown."""

    image_tokens: Mapping[str, int] = field(default_factory=dict)
    """Output tokens of one picture by `<quality>/<size>`, for models with fixed sizes."""
    image_grid: Mapping[str, int] = field(default_factory=dict)
    """The long edge of the grid of tokens by quality, for models of any size (`image_bound.grid_tokens`)."""
    audio_tokens_per_second: int = 0
    audio_tokens: int = 0
    """Of one call, sent or made."""
    audio_seconds: int = 0
    """Of one call."""


@dataclass(frozen=True, slots=True)
class Model:
    """A catalogued model at one provider."""

    slug: str
    upstream: str
    """The provider's own name for it."""
    display_name: str
    provider: Provider
    context_window: int
    max_output_tokens: int
    capabilities: tuple[str, ...]
    price: Price
    source: str
    """Where the price was read."""
    checked: str
    """When, ISO date."""
    author: str = ""
    description: str = ""
    task: str = "text-generation"
    image_tokens: int | None = None
    """The most that one image is billed as, where this model differs from its provider."""
    fallbacks: tuple[str, ...] = ()
    """Slugs of models to ask when no host of this one answers."""
    media: MediaLimits = field(default_factory=MediaLimits, hash=False)
    surfaces: tuple[str, ...] = ()
    """As its provider's, where it is not said otherwise for this model."""
    scheduled: Timeline = ()
    """Prices that the files announce, by their beginning; `price` is the one in force."""

    @property
    def priced(self) -> bool:
        """Whether anybody has said what it costs."""
        return self.price.version != UNPRICED.version
