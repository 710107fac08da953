"""Runs → one line for each subject: medians over the rounds, and ratios."""

import os
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

CLOSED_FOR_BEST = ("16", "64", "256")

Samples = Mapping[str, Mapping[str, list[Any]]]


def median(samples: list[Any], name: str) -> float:
    """Of one figure over the rounds; NaN when it was never measured."""
    return statistics.median(getattr(sample, name) for sample in samples) if samples else float("nan")


def best(runs: Mapping[str, list[Any]], name: str) -> float:
    """The best setting's median: the highest rate, or the least CPU per request."""
    figures = [median(runs[setting], name) for setting in CLOSED_FOR_BEST if runs.get(setting)]
    return (max if name == "rate" else min)(figures, default=float("nan"))


def table(samples: Samples, memory: Mapping[str, float]) -> str:
    """For people."""
    heads = (
        *("", "req/s", "CPU ms", "req/s/core", "of bare", "p50@1", "p99@1", "+p50@1", "p50@32", "p99@32"),
        *("cpu@1", "cpu@32", "p50 open", "p99 open", "cpu open", "MiB", "errors"),
    )
    rows = [_row(name, samples, memory) for name in samples]
    cells = [heads, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )


def _row(name: str, samples: Samples, memory: Mapping[str, float]) -> tuple[str, ...]:
    runs = samples[name]
    alone, many, open_loop = (runs.get(setting, []) for setting in ("1", "32", "open"))
    direct = median(samples.get("direct", {}).get("1", []), "p50")
    cpu = best(runs, "cpu_ms")
    bare = best(samples.get("bare aiohttp", {}), "cpu_ms")
    return (
        name,
        f"{best(runs, 'rate'):.0f}",
        f"{cpu:.3f}",
        f"{1000 / cpu:.0f}" if cpu else "",
        f"{bare / cpu:.2f}" if cpu else "",
        f"{median(alone, 'p50'):.2f}",
        f"{median(alone, 'p99'):.2f}",
        f"{median(alone, 'p50') - direct:.2f}",
        f"{median(many, 'p50'):.2f}",
        f"{median(many, 'p99'):.2f}",
        f"{median(alone, 'cpu_ms'):.3f}",
        f"{median(many, 'cpu_ms'):.3f}",
        f"{median(open_loop, 'p50'):.2f}",
        f"{median(open_loop, 'p99'):.2f}",
        f"{median(open_loop, 'cpu_ms'):.3f}",
        f"{memory[name]:.0f}",
        str(sum(sample.errors for setting in runs.values() for sample in setting)),
    )


def as_json(samples: Samples, memory: Mapping[str, float]) -> dict[str, Any]:
    """For machines: every run."""
    packages = ("aiohttp", "uvloop", "asyncpg", "msgspec")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "load_average": os.getloadavg(),
        "memory_mib": dict(memory),
        "runs": {
            name: {setting: [asdict(sample) for sample in found] for setting, found in runs.items()}
            for name, runs in samples.items()
        },
    }
