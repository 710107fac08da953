"""The supervisor keeps children alive and ends them in order. The children here are small scripts."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from qlaud_actors.probe import wait_until
from qlaud_actors.program import Program, ProgramError
from qlaud_actors.supervisor import Supervisor

NOTE_AND_SLEEP = """
import os, pathlib, signal, sys, time
note = pathlib.Path(sys.argv[1]).open("a")
def leave(*_):
    note.write(f"end {sys.argv[2]}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
note.write(f"start {os.getpid()}\\n")
note.flush()
while True:
    time.sleep(0.05)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


def script(name: str, code: str, folder: Path, *arguments: str) -> Program:
    """A Python script as a child."""
    return Program(name=name, argv=(sys.executable, "-I", "-c", code, *arguments), cwd=folder)


def noting(name: str, folder: Path) -> Program:
    """A child that notes its starts and its end, and is ready once it has noted the first."""
    note = folder / f"{name}.notes"

    async def ready() -> bool:
        return note.exists() and "start" in note.read_text()

    program = script(name, NOTE_AND_SLEEP, folder, str(note), name)
    return Program(program.name, program.argv, program.cwd, ready=ready)


def starts(folder: Path, name: str) -> list[int]:
    """Process numbers of all starts so far."""
    lines = (folder / f"{name}.notes").read_text().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("start")]


async def test_a_child_that_dies_is_replaced(tmp_path: Path) -> None:
    """After `kill -9` another process takes the place, and the operator is told."""
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "logs", said.append)
    await supervisor.start(noting("one", tmp_path), seconds=10)
    try:
        os.kill(starts(tmp_path, "one")[0], signal.SIGKILL)

        async def replaced() -> bool:
            return len(starts(tmp_path, "one")) == 2

        assert await wait_until(replaced, 10)
    finally:
        await supervisor.stop(5)
    assert said == ["one ended (SIGKILL); starting it again in 0.2 s"]
    assert (tmp_path / "one.notes").read_text().endswith("end one\n")


async def test_groups_are_stopped_in_reverse_order(tmp_path: Path) -> None:
    """What was started first, the stores, is there until everything else has ended."""
    supervisor = Supervisor(tmp_path / "logs", print)
    await supervisor.start(noting("store", tmp_path), seconds=10)
    await supervisor.start(noting("api", tmp_path), seconds=10)
    await supervisor.stop(5)
    store, api = ((tmp_path / f"{name}.notes").stat().st_mtime_ns for name in ("store", "api"))
    assert api < store


async def test_a_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """Grace is limited."""
    supervisor = Supervisor(tmp_path / "logs", print)
    log = tmp_path / "logs" / "stubborn.log"

    async def ready() -> bool:
        return log.exists() and log.read_text() == "up\n"

    program = script("stubborn", STUBBORN, tmp_path)
    await supervisor.start(Program(program.name, program.argv, program.cwd, ready=ready), seconds=10)
    began = time.monotonic()
    await supervisor.stop(0.3)
    assert 0.3 <= time.monotonic() - began < 3


async def test_a_child_that_cannot_start_is_explained(tmp_path: Path) -> None:
    """The error holds the program's last words, and nothing is left running."""

    async def never() -> bool:
        return False

    bad = script("bad", "import sys; sys.exit('QLAUD_PORT must be a whole number')", tmp_path)
    supervisor = Supervisor(tmp_path / "logs", print)
    with pytest.raises(ProgramError, match="bad ended at once\n  QLAUD_PORT must be a whole number"):
        await supervisor.start(Program(bad.name, bad.argv, bad.cwd, ready=never), seconds=10)
    await supervisor.stop(5)


async def test_output_is_shown_on_request_and_always_kept(tmp_path: Path) -> None:
    """Verbose output carries the child's name; long lines and a missing last newline do no harm."""
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "logs", said.append, echo=True)
    code = "import time; print('hello'); print('x' * 200_000, flush=True); time.sleep(60)"
    await supervisor.start(script("chatty", code, tmp_path), seconds=10)

    async def shown() -> bool:
        return len(said) == 2

    assert await wait_until(shown, 10)
    await supervisor.stop(5)
    assert said == ["chatty | hello", "chatty | " + "x" * 200_000]
    assert (tmp_path / "logs" / "chatty.log").read_text() == "hello\n" + "x" * 200_000 + "\n"


async def test_stopping_while_a_child_is_between_lives(tmp_path: Path) -> None:
    """A stop during the pause before a restart does not start the child again."""
    supervisor = Supervisor(tmp_path / "logs", lambda _: None)
    await supervisor.start(noting("one", tmp_path), seconds=10)
    os.kill(starts(tmp_path, "one")[0], signal.SIGKILL)
    await asyncio.sleep(0.1)
    await supervisor.stop(5)
    await asyncio.sleep(0.3)
    assert len(starts(tmp_path, "one")) == 1
