"""Processes of the product that start at once, forked from one that has loaded everything.

`python -m workers` spends a second and a half on its imports, and the tests start hundreds. Python's own
fork server loads the product once; what it forks is a process of its own, with its environment, that is
stopped and killed like any other. How users start it, `qlaud up`, is tested in test_stack.py.
"""

import asyncio
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

from crashing import arm

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["warm"])


class Child:
    """A running process."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """To it, if it still lives."""
        if self._process.pid is not None and self.returncode is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """It gets no chance to do anything."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self.returncode is not None
        return self.returncode


def fork(module: str, environ: Mapping[str, str], output: Path | None = None, dies_at: str = "") -> Child:
    """What `python -m module` does. Its output goes where the tests' own goes, or is added to a file;
    `dies_at` is a point of `crashing.py`.
    """
    process = _context.Process(target=_run, args=(module, dict(environ), output, dies_at), daemon=True)
    with mock.patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parent)):  # noqa: TID251 - not read
        forkserver.ensure_running()  # it finds `warm.py` there
    process.start()
    return Child(process)


def _run(module: str, environ: dict[str, str], output: Path | None, dies_at: str) -> None:
    os.environ.clear()  # noqa: TID251 - it is made, not read
    os.environ.update(environ)  # noqa: TID251 - it is made, not read
    if output:
        with output.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    if dies_at:
        arm(dies_at)
    sys.exit(importlib.import_module(f"{module}.__main__").main())
