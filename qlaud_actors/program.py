"""What a child process is made of, and how it is started so that it cannot outlive its parent."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
LEFTOVER_SECONDS = 10.0

STORE_ENV = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"}
"""All that a store sees of the environment: no provider's key reaches it."""


class ProgramError(Exception):
    """A program of ours could not be started; the message says why and what to do."""


async def always_ready() -> bool:
    """For a program that has nothing to ask."""
    return True


@dataclass(frozen=True, slots=True)
class Program:
    """One child process: how it is started, asked whether it is ready, and stopped."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=lambda: STORE_ENV, repr=False)
    user: str | None = None
    """The system user it runs as; None is ours."""
    url: str = ""
    ready: Callable[[], Awaitable[bool]] = always_ready
    prepare: Callable[[], None] = lambda: None
    """Blocking work before each start, such as creating its files; may raise ProgramError."""
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGTERM
    """What the kernel sends it when we die without a word (Linux only)."""

    def popen_options(self) -> dict[str, Any]:
        """Keyword arguments for `subprocess.Popen` and `asyncio.create_subprocess_exec`.

        The child leads its own session, so that Ctrl-C in a terminal reaches the supervisor alone,
        which then stops the children in order. Call from the main thread: the kernel ties
        `orphan_signal` to the life of the thread that starts the child.
        """
        options: dict[str, Any] = {
            "cwd": self.cwd,
            "env": dict(self.env),
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
            "preexec_fn": _die_with_parent(self.orphan_signal),
        }
        return options | as_user(self.user)


def start(program: Program, log: Path) -> subprocess.Popen[bytes]:
    """Prepare and start a program whose output is appended to `log`; does not wait for readiness."""
    program.prepare()
    with log.open("ab") as output:
        return subprocess.Popen(program.argv, stdout=output, stderr=output, **program.popen_options())


def stop(program: Program, process: subprocess.Popen[bytes], grace: float = 10.0) -> None:
    """Ask a program to end, kill it after `grace` seconds, and reap it."""
    if process.poll() is None:
        process.send_signal(program.stop_signal)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def as_user(user: str | None) -> dict[str, Any]:
    """Arguments for `subprocess` that drop all rights but those of `user`; None changes nothing."""
    if user is None:
        return {}
    import pwd

    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def command_of(pid: int) -> str:
    """The command line of a running process, empty when there is none."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    listing = subprocess.run(["/bin/ps", "-p", str(pid), "-o", "command="], capture_output=True, check=False)
    return listing.stdout.decode(errors="replace").strip()


def end_leftover(pid_file: Path, belongs: Callable[[str], bool], stop_signal: signal.Signals) -> None:
    """End the process that `pid_file` names if its command line is one of ours, else forget a false lead.

    A supervisor that was killed may have left a store that is still shutting down; two of them must
    not share one folder. Numbers are reused, so the command line decides.
    """
    try:
        pid = int(pid_file.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return
    command = command_of(pid)
    if command and not belongs(command):
        pid_file.unlink(missing_ok=True)
        return
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while belongs(command_of(pid)):
        late = time.monotonic() > deadline
        try:
            os.kill(pid, signal.SIGKILL if late else stop_signal)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise ProgramError(f"process {pid} holds {pid_file.parent}; it is not ours to stop") from error
        time.sleep(0.1)


def _die_with_parent(orphan_signal: signal.Signals) -> Callable[[], None] | None:
    """Runs in the child between fork and exec, after its user changed (which would clear it)."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os.kill(os.getpid(), signal.SIGKILL)

    return arrange
