"""The vendor's bill: what was really produced, whoever read it to the end."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from qlaud_actors.scripted.plan import Usage

Ended = Literal["", "complete", "left", "cut", "error"]
_ROWS = 20_000
_REQUESTS = 2_000
_BUCKETS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


@dataclass(slots=True)
class Row:
    """One accepted request. Buckets of tokens are disjoint; `ended` is empty while it runs.

    `left`: the client went away; `cut` and `error`: a script ended it early.
    """

    wire: str
    model: str
    key_suffix: str
    stream: bool
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    call: str = ""
    """The caller's name for the request: its `x-request-id`."""
    ended: Ended = ""
    aborted: bool = False
    units: dict[str, int] = field(default_factory=dict)
    """What is billed beside text tokens."""


class Bill:
    """In memory, since the start or the last reset. Totals are exact, rows and requests bounded."""

    def __init__(self) -> None:
        self.recording = True
        """Whether request bodies are kept."""
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Start anew. Requests still running are billed to the new bill."""
        self._rows: deque[Row] = deque(maxlen=_ROWS)
        self._requests: deque[dict[str, Any]] = deque(maxlen=_REQUESTS)
        self._refusals: deque[dict[str, Any]] = deque(maxlen=_ROWS)
        self._statuses: Counter[int] = Counter()
        self._models: dict[str, Counter[str]] = {}
        self._seen: Counter[bytes] = Counter()
        self._aborted = 0
        self._peak = self._in_flight

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Counts a request as running."""
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1

    def record(self, path: str, body: Any) -> None:
        """Keep a request's body for a test to look at."""
        if self.recording:
            self._requests.append({"path": path, "body": body})

    def seen(self, digest: bytes) -> int:
        """How often this very body came before; counts this time."""
        self._seen[digest] += 1
        return self._seen[digest] - 1

    def refused(self, status: int, call: str = "") -> None:
        """Count an error answer; it costs nothing."""
        self._statuses[status] += 1
        self._refusals.append({"call": call, "status": status})

    def close(self, row: Row, usage: Usage, ended: Ended) -> None:
        """Bill an accepted request, once: the first ending counts."""
        if row.ended:
            return
        self._statuses[200] += 1
        row.ended = ended
        row.aborted = ended != "complete"
        for bucket in _BUCKETS:
            setattr(row, bucket, getattr(usage, bucket))
        self._rows.append(row)
        self._aborted += row.aborted
        total = self._models.setdefault(row.model, Counter(dict.fromkeys(("requests", *_BUCKETS), 0)))
        total["requests"] += 1
        for bucket in _BUCKETS:
            total[bucket] += getattr(row, bucket)

    def account(self) -> dict[str, Any]:
        """Totals, totals by model, answers by HTTP status, rows in order of their end, error answers."""
        total = dict.fromkeys(("requests", *_BUCKETS), 0)
        for counts in self._models.values():
            for name in total:
                total[name] += counts[name]
        return {
            **total,
            "aborted": self._aborted,
            "in_flight": self._in_flight,
            "peak_concurrency": self._peak,
            "by_status": {str(status): count for status, count in sorted(self._statuses.items())},
            "by_model": {model: dict(counts) for model, counts in self._models.items()},
            "rows": [asdict(row) for row in self._rows],
            "refusals": list(self._refusals),
        }

    def requests(self) -> list[dict[str, Any]]:
        """The last request bodies, oldest first: `{path, body}`."""
        return list(self._requests)
