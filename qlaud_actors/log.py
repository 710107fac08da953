"""structlog: one JSON line per unit of work on stdout, context bound as it becomes known."""

import logging
import sys
from typing import Any

import structlog


def configure(level: str = "info", fmt: str = "json") -> None:
    """Set up logging for this process. `fmt` is `json` or `console`."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if fmt == "console" else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
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
    structlog.contextvars.bind_contextvars(**context)


def clear() -> None:
    """Forget all bound fields of this task."""
    structlog.contextvars.clear_contextvars()
