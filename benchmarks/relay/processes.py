"""What a tree of processes used, from /proc: CPU seconds of the living and of those they have reaped."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class CpuMeter:
    """CPU seconds that the trees of some processes use within a `with` block."""

    def __init__(self, roots: list[int]) -> None:
        self._roots = roots
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._before = cpu_seconds(self._roots)

    def __exit__(self, *failure: object) -> None:
        self.seconds = cpu_seconds(self._roots) - self._before


def cpu_seconds(roots: list[int]) -> float:
    """User and system time of the trees below these processes, themselves included."""
    ticks = 0
    for pid in tree(roots):
        try:
            ticks += sum(map(int, _stat(pid)[11:15]))  # utime, stime, and both of reaped children
        except OSError:
            continue
    return ticks / TICK


def memory_mib(roots: list[int]) -> float:
    """Proportional set size: shared pages are counted once."""
    total = 0
    for pid in tree(roots):
        try:
            found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except OSError:
            continue
        total += int(found.group(1)) if found else 0
    return total / 1024


def tree(roots: list[int]) -> Iterator[int]:
    """These processes and all below them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(int(_stat(int(path.name))[1]), []).append(int(path.name))
        except OSError:
            continue
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _stat(pid: int) -> list[bytes]:
    """The fields of `stat` behind the name: state, ppid, …"""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
