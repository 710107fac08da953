"""Jobs: a request to a model that is answered later, and how it may end."""

import uuid
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from qlaud_actors.errors import QlaudError, error_type
from qlaud_actors.money import nanos_to_micros

JobStatus: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]

# Every transition is one SQL statement with the old status in its condition:
#   queued  → running   a worker claims the job (epoch + 1)
#   running → running   another worker claims it after the lease has ended (epoch + 1)
#   running → queued    a worker that stops hands it back
#   queued | running → succeeded | failed | cancelled
STATUSES: tuple[JobStatus, ...] = ("queued", "running", "succeeded", "failed", "cancelled")

MAX_ATTEMPTS = 3
"""Workers that may be lost over one job before it fails."""

MAX_UNFINISHED = 1_000
"""Jobs of one key that wait or run."""

MAX_UNFINISHED_BYTES = 256 * 2**20
"""Of all their bodies together."""

MAX_RESPONSE_BYTES = 2**20
MAX_VECTORS_BYTES = 16 * 2**20
"""A list of vectors is long: 20 kB of JSON for one of 1,536 figures."""


def response_limit(endpoint: str) -> int:
    """Bytes of the longest answer that is kept."""
    return MAX_VECTORS_BYTES if endpoint == "/v1/embeddings" else MAX_RESPONSE_BYTES


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times in ms since the epoch, money in nano-USD; `epoch` is the fence of its present owner."""

    id: uuid.UUID
    account_id: uuid.UUID
    key_id: uuid.UUID
    endpoint: str
    body: dict[str, Any] | None
    """None once the job has ended."""
    headers: dict[str, str]
    webhook_url: str | None
    request_id: str
    status: JobStatus
    epoch: int
    attempts: int
    cancel_requested: bool
    call_id: uuid.UUID | None
    """Of the latest attempt."""
    model_slug: str | None
    """Which model answered, or was asked last."""
    response: str | None
    """The answer's body as it came."""
    cost_nanos: int
    error: dict[str, Any] | None
    created_at_ms: int
    started_at_ms: int | None
    finished_at_ms: int | None


@dataclass(frozen=True, slots=True)
class End:
    """How a job ends."""

    status: JobStatus
    model_slug: str | None = None
    response: str | None = None
    cost_nanos: int = 0
    error: QlaudError | None = None


def shown(job: Job) -> dict[str, Any]:
    """A job as the API and the webhook show it, without its response."""
    ended = job.finished_at_ms is not None
    return {
        "id": str(job.id),
        "object": "job",
        "status": job.status,
        "endpoint": job.endpoint,
        "model": job.model_slug,
        "created_at": job.created_at_ms,
        "started_at": job.started_at_ms,
        "completed_at": job.finished_at_ms,
        "cost_micros": nanos_to_micros(job.cost_nanos) if ended else None,
        "error": job.error,
    }


def stored_error(error: QlaudError) -> dict[str, Any]:
    """An error as a job keeps it: what the caller may see, nothing else."""
    told = {"type": error_type(error.status), "code": error.code, "message": error.message}
    details: dict[str, Any] = msgspec.to_builtins(error.details, str_keys=True)
    return {**details, **told}
