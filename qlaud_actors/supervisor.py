"""Keeps child processes alive: starts them, starts them again when they die, stops them in order."""

import asyncio
import contextlib
import io
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path

from qlaud_actors.probe import wait_until
from qlaud_actors.program import Program, ProgramError

FIRST_BACKOFF = 0.2
LAST_BACKOFF = 5.0
STEADY_SECONDS = 30.0
"""A child that lived this long is thought healthy: its next restart is quick again."""

MAX_LOG_BYTES = 16 * 1024 * 1024
TAIL_LINES = 5

Say = Callable[[str], None]


class Child:
    """One program that is kept running until it is told to stop."""

    def __init__(self, program: Program, logs: Path, say: Say, echo: bool) -> None:
        self.program = program
        self.log = logs / f"{program.name}.log"
        self._say = say
        self._echo = echo
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._copier: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives at this moment."""
        return self._process is not None and self._process.returncode is None

    async def start(self, seconds: float) -> None:
        """Start it, wait until it is ready, keep it running. Raises ProgramError with its last words."""
        await self._spawn()
        if not await wait_until(self.program.ready, seconds, lambda: self.running):
            state = f"is not ready after {seconds:.0f} s" if self.running else "ended at once"
            raise ProgramError(f"{self.program.name} {state}{self._last_words()}")
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self, grace: float) -> None:
        """Ask it to end, kill it after `grace` seconds, return once it is gone."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None and self.running:
            self._signal(self.program.stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
            self.kill()
            await self._process.wait()
        if self._copier is not None:
            await self._copier

    def kill(self) -> None:
        """End it without asking."""
        if self._process is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _keep(self) -> None:
        backoff = FIRST_BACKOFF
        started = time.monotonic()
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if time.monotonic() - started > STEADY_SECONDS:
                backoff = FIRST_BACKOFF
            self._say(f"{self.program.name} ended ({_reason(code)}); starting it again in {backoff:.1f} s")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF)
            started = time.monotonic()
            try:
                await self._spawn()
            except (ProgramError, OSError) as error:
                self._say(f"{self.program.name} cannot be started: {error}")

    async def _spawn(self) -> None:
        await asyncio.to_thread(self.program.prepare)
        if self._copier is not None:
            await self._copier
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.program.argv,
                stdout=asyncio.subprocess.PIPE if self._echo else log,
                stderr=asyncio.subprocess.STDOUT,
                **self.program.popen_options(),
            )
        if self._echo:
            self._copier = asyncio.create_task(self._copy(self._process))

    def _open_log(self) -> io.FileIO:
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > MAX_LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
        return io.FileIO(self.log, "ab")

    async def _copy(self, process: Process) -> None:
        """Show each line of the output under the program's name, and keep it in the log."""
        assert process.stdout is not None
        rest = b""
        with self._open_log() as log:
            while chunk := await process.stdout.read(65536):
                log.write(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._say(f"{self.program.name} | {line.decode(errors='replace')}")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return "".join(f"\n  {line}" for line in [*lines[-TAIL_LINES:], f"(log: {self.log})"])


class Supervisor:
    """The children of one `qlaud up`, in the groups in which they are stopped."""

    def __init__(self, logs: Path, say: Say, *, echo: bool = False) -> None:
        self._logs = logs
        self._say = say
        self._echo = echo
        self._groups: list[list[Child]] = []

    async def start(self, *programs: Program, seconds: float = 60.0, quiet: bool = False) -> None:
        """Start programs at once and wait until all are ready; they are stopped together.

        Groups are stopped in reverse order of their start. `quiet` keeps output off the terminal
        even when the supervisor was asked to show it. Raises ProgramError.
        """
        group = [Child(program, self._logs, self._say, self._echo and not quiet) for program in programs]
        self._groups.append(group)
        results = await asyncio.gather(*(child.start(seconds) for child in group), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def stop(self, grace: float) -> None:
        """End all children, the latest group first, each within `grace` seconds."""
        for group in reversed(self._groups):
            await asyncio.gather(*(child.stop(grace) for child in group))

    def kill(self) -> None:
        """End all children now; `stop` still has to be awaited."""
        for group in self._groups:
            for child in group:
                child.kill()


def _reason(code: int) -> str:
    """Words for an exit status as asyncio gives it: negative is the signal's number."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
