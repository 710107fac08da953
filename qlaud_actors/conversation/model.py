"""Threads, turns, steps: the types of a conversation and the decisions that need no I/O."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from qlaud_actors.conversation.approval_rules import APPROVAL_SECONDS, Approval
from qlaud_actors.conversation.context import CompactionMode, View
from qlaud_actors.providers.model import Block, Message, Model, ModelReply, ModelRequest
from qlaud_actors.tools.model import ToolCall, ToolOutcome, ToolsMode
from qlaud_actors.usage import Usage

TurnStatus: TypeAlias = Literal["queued", "running", "parked", "completed", "failed", "cancelled"]

# Every transition is one SQL statement with the old status in its condition:
#   queued  → running    a worker claims the turn (epoch + 1)
#   running → running    another worker claims it after the lease has ended (epoch + 1)
#   running → queued     a worker that stops hands it back; the sweeper after a lost lease
#   running → parked     calls of its step wait for a person's word; nobody owns it
#   parked  → queued     nothing is left undecided
#   queued | running | parked → completed | failed | cancelled
UNFINISHED: frozenset[TurnStatus] = frozenset({"queued", "running", "parked"})

MAX_ATTEMPTS = 3
"""Workers that may be lost over one turn before it fails: a turn that kills workers must end."""

DEFAULT_MAX_ITERATIONS = 8
MAX_ITERATIONS = 500
MAX_QUEUED_TURNS = 200
"""Unfinished turns that one thread may have."""


@dataclass(frozen=True, slots=True)
class Thread:
    """An account's ordered messages, optionally for one end user. Times in ms since the epoch."""

    id: uuid.UUID
    account_id: uuid.UUID
    key_id: uuid.UUID
    end_user_id: str | None
    metadata: dict[str, Any] | None
    title: str | None
    workspace_id: str | None
    kind: str | None
    default_mode: str | None
    default_model: str | None
    approval: Approval | None
    """What its turns do when they do not say."""
    compaction: CompactionMode
    compaction_threshold: float
    compaction_model: str | None
    created_at_ms: int
    last_active_at_ms: int
    parent_thread_id: uuid.UUID | None = None
    """The thread whose messages this one began with."""
    branched_at_seq: int | None = None
    """The last of those messages."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a model sees in place of a thread's oldest messages, and where it came from."""

    version: int
    summary: str | None
    summarized_through_seq: int
    trimmed_through_seq: int
    omitted: bool
    """Some messages are in no summary."""
    model: str | None
    """Who wrote the summary; None: nobody was asked for this version."""
    cost_nanos: int
    created_at_ms: int

    @property
    def view(self) -> View:
        """What follows from it for the model."""
        return View(
            self.version, self.summary, self.summarized_through_seq, self.trimmed_through_seq, self.omitted
        )


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One row of a thread; `seq` counts from 1 without reuse."""

    seq: int
    role: Literal["user", "assistant"]
    content: str | list[Block]
    request_id: str
    created_at_ms: int


def is_question(message: StoredMessage) -> bool:
    """Whether the user said something here; what only brings results of tools is no question."""
    if message.role != "user":
        return False
    content = message.content
    return isinstance(content, str) or any(block.get("type") != "tool_result" for block in content)


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What the caller asked of a turn, beside the message itself."""

    model: str
    max_tokens: int
    system: str | list[Block] | None = None
    tools: list[str] | None = None
    tools_mode: ToolsMode = "dynamic"
    client_tools: list[dict[str, Any]] = field(default_factory=list)
    max_iterations: int = DEFAULT_MAX_ITERATIONS
    params: dict[str, Any] = field(default_factory=dict)
    fallbacks: list[str] | None = None
    """Models to ask when no host of the first answers; None leaves it to the catalogue."""
    max_nanos: int | None = None
    """The most that the turn may spend, in nano-USD."""
    approval: Approval = "never"
    approval_timeout_s: int = APPROVAL_SECONDS


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message carried to its final answer. `epoch` is the fence of its present owner."""

    id: uuid.UUID
    thread_id: uuid.UUID
    account_id: uuid.UUID
    key_id: uuid.UUID
    end_user_id: str | None
    number: int
    status: TurnStatus
    request: TurnRequest
    request_id: str
    epoch: int
    attempts: int
    user_seq: int | None
    final_seq: int | None
    iterations: int
    hit_max_iterations: bool
    cost_nanos: int
    usage: Usage
    """Of its steps."""
    summary_usage: Usage
    """Of summaries that were made for it; `cost_nanos` has both."""
    error: dict[str, Any] | None
    cancel_requested: bool
    parked_epoch: int | None
    created_at_ms: int
    started_at_ms: int | None
    finished_at_ms: int | None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to this turn."""
        return self.status not in UNFINISHED

    @property
    def resumes(self) -> bool:
        """Whether its owner took it over from nobody: the one before had parked it, so nothing was lost."""
        return self.parked_epoch is not None and self.epoch == self.parked_epoch + 1


@dataclass(frozen=True, slots=True)
class Step:
    """An opened step: which model is asked, and its request as clamped to the money that was held for it.

    `wanted` is the request before any money was asked.
    """

    number: int
    wanted: ModelRequest
    model: Model
    request: ModelRequest
    call_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a turn has come: the same whether it was just begun, carried on, or taken over."""

    messages: tuple[Message, ...]
    steps: int = 0
    pending: tuple[ToolCall, ...] = ()
    """Calls of the last reply that have no results yet."""
    last_seq: int = 0
    """Of the last message; each has the next number after the one before it."""

    @property
    def finished(self) -> bool:
        """Whether the model has said its last word: it spoke last and waits for no result."""
        return not self.pending and self.messages[-1].role == "assistant"

    @property
    def numbered(self) -> Iterator[tuple[int, Message]]:
        """The messages with their seqs."""
        return enumerate(self.messages, self.last_seq - len(self.messages) + 1)

    def replied(self, reply: ModelReply, calls: tuple[ToolCall, ...]) -> "Progress":
        """After a step: its reply is part of the history, its calls are pending."""
        return replace(
            self,
            messages=(*self.messages, Message("assistant", reply.content)),
            steps=self.steps + 1,
            pending=calls,
            last_seq=self.last_seq + 1,
        )

    def answered(self, results: list[Block]) -> "Progress":
        """After the tools: their results are the next user message."""
        messages = (*self.messages, Message("user", results))
        return replace(self, messages=messages, pending=(), last_seq=self.last_seq + 1)


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """How a turn ended well."""

    hit_max_iterations: bool = False


@dataclass(frozen=True, slots=True)
class Parked:
    """The turn waits for a person's word; whoever carries it then goes on where it stood."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step as the turn resource shows it."""

    number: int
    state: str
    model: str
    message_id: str | None
    message_seq: int | None
    stop_reason: str | None
    stop_sequence: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_nanos: int
    log_seq: int
    started_at_ms: int
    finished_at_ms: int | None


@dataclass(frozen=True, slots=True)
class ToolCallRecord:
    """A tool call as the turn resource shows it."""

    id: str
    step: int
    tool_use_id: str
    name: str
    input: dict[str, Any]
    effect: str
    kind: str
    state: str
    output: Any
    is_error: bool | None
    approved: bool | None
    """None: nobody was asked, or nobody has decided."""
    approval_expires_at_ms: int | None
    started_at_ms: int | None
    finished_at_ms: int | None


def decide_takeover(state: str, effect: str, outcome: ToolOutcome | None) -> ToolOutcome | None:
    """What to do with a journaled call that a new owner finds: an outcome, or None to run it.

    `done` and `failed` calls are replayed. A call that had `started` is run again only when a
    repetition is harmless; a `write` may have happened, so the model is told and nobody repeats it.
    One that waits for a person's word is never run.
    """
    if state == "awaiting_approval":
        return NOT_DECIDED
    if state in ("done", "failed", "unknown"):
        return outcome
    if state == "started" and effect == "write":
        return UNKNOWN_OUTCOME
    return None


UNKNOWN_OUTCOME = ToolOutcome(
    "The worker was lost while this call was running, so its result is unknown. It may or may not have "
    "taken effect and was not repeated. Check before you try again.",
    is_error=True,
    status="unknown",
)

NOT_DECIDED = ToolOutcome("This call was not made: nobody has approved it.", is_error=True)
