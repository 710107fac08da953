"""structlog: one JSON line per unit of work on stdout, context bound as it becomes known.

It runs on every request, so it is kept cheap: the context is one mapping, lines are encoded by msgspec,
and the lines of a busy moment leave in one system call. What is worse than news leaves at once.
"""

import asyncio
import atexit
import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from threading import Lock
from typing import Any, BinaryIO

import msgspec
import structlog

FLUSH_SECONDS = 0.1
"""How long a line of news may wait for others while an event loop runs."""

_context: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default={})  # noqa: B039 - never changed
_encoder = msgspec.json.Encoder(enc_hook=repr)


def configure(level: str = "info", fmt: str = "json") -> None:
    """Set up logging for this process. `fmt` is `json` or `console`."""
    first: list[Any] = [
        _add_context,
        structlog.processors.add_log_level,
        _add_time,
        structlog.processors.format_exc_info,
    ]
    wrapper = structlog.make_filtering_bound_logger(getattr(logging, level.upper()))
    if fmt == "console":
        structlog.configure(
            processors=[*first, structlog.dev.ConsoleRenderer()],
            wrapper_class=wrapper,
            logger_factory=structlog.PrintLoggerFactory(sys.stdout),
            cache_logger_on_first_use=True,
        )
    else:
        lines = Lines(open(sys.stdout.fileno(), "wb", closefd=False))  # noqa: SIM115 - as long as the process
        atexit.register(lines.flush)
        structlog.configure(
            processors=[*first, _as_json],
            wrapper_class=wrapper,
            logger_factory=lambda *_: lines,
            cache_logger_on_first_use=True,
        )
    # Libraries log through the standard module: only their warnings are of interest.
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)


def to_stderr() -> None:
    """For commands whose answer is on stdout: log lines go beside it."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def get_logger(name: str) -> Any:
    """A logger that names its origin."""
    return structlog.get_logger(name)


def bind(**context: Any) -> None:
    """Add fields to every line that this task logs from here on."""
    _context.set({**_context.get(), **context})


def clear() -> None:
    """Forget all bound fields of this task."""
    _context.set({})


class Lines:
    """Writes lines to a file; safe from several threads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = Lock()
        self._waiting: list[bytes] = []
        self._due_in: asyncio.AbstractEventLoop | None = None

    def debug(self, line: bytes) -> None:
        """A line that may wait a moment for others."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._lock:
            self._waiting.append(line)
        if loop is None:
            self.flush()
        elif self._due_in is not loop:
            self._due_in = loop
            loop.call_later(FLUSH_SECONDS, self.flush)

    def error(self, line: bytes) -> None:
        """A line that leaves at once, behind those that wait."""
        with self._lock:
            self._waiting.append(line)
        self.flush()

    info = debug
    warning = exception = critical = fatal = error

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._due_in = None
            if self._waiting:
                self._file.write(b"\n".join(self._waiting) + b"\n")
                self._file.flush()
                self._waiting.clear()


def _add_context(_logger: Any, _method: str, event: Any) -> Any:
    return {**_context.get(), **event}


def _add_time(_logger: Any, _method: str, event: Any) -> Any:
    """ISO 8601, UTC, to the microsecond."""
    seconds, micros = divmod(time.time_ns() // 1_000, 1_000_000)
    event["timestamp"] = f"{_to_the_second(seconds)}.{micros:06d}Z"
    return event


@lru_cache(maxsize=2)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _as_json(_logger: Any, _method: str, event: Any) -> bytes:
    return _encoder.encode(event)
