"""`qlaud up` as a user runs it: a real process on a free port with a data directory of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qlaud_actors.program import command_of, free_port

START_SECONDS = 60
QLAUD = Path(sys.executable).with_name("qlaud")
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Stack:
    """A running `qlaud up`."""

    process: subprocess.Popen[bytes]
    base_url: str
    data_dir: Path
    output: Path
    environ: dict[str, str]
    _processes_of: Callable[[Path], list[int]]

    @property
    def master_key(self) -> str:
        """The key that the first start minted."""
        return (self.data_dir / "master.key").read_text().strip()

    def call(self, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """GET, or POST when there is a body; status and JSON. Status 0 when nothing answers."""
        request = urllib.request.Request(self.base_url + path, method="POST" if body is not None else "GET")
        request.add_header("content-type", "application/json")
        request.add_header("x-api-key", key or self.master_key)
        data = None if body is None else json.dumps(body).encode()
        try:
            with _opener.open(request, data, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")
        except OSError:
            return 0, None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `qlaud` command in the same environment."""
        return subprocess.run(
            [QLAUD, *arguments], env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )

    def ready(self) -> bool:
        """Whether the front door can work."""
        return self.call("/readyz", key="none")[0] == 200

    def child(self, marker: str) -> int:
        """The process number of the supervisor's child whose command line holds `marker`, 0 if none."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and marker in command_of(int(path.name)):
                    return int(path.name)
        return 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the supervisor, and to nobody else; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)

    def left(self) -> list[int]:
        """Processes of this stack that still live."""
        return self._processes_of(self.data_dir)


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits until something holds, and fails after some seconds."""

    def wait(holds: Callable[[], Any], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not so after {seconds} s"
            time.sleep(0.05)

    return wait


@pytest.fixture
def data_dir(data_root: Path) -> Iterator[Path]:
    """A data directory that does not exist yet."""
    folder = Path(tempfile.mkdtemp(prefix="qlaud-up-", dir=data_root))
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def start_stack(
    data_dir: Path, processes_of: Callable[[Path], list[int]], until: Callable[..., None]
) -> Iterator[Callable[..., Stack]]:
    """Starts `qlaud up` and waits until it is ready; at the end all are stopped and nothing is left."""
    stacks: list[Stack] = []

    def start(**environ: str) -> Stack:
        port = free_port()
        output = data_dir.with_name(f"output-{len(stacks)}.txt")
        full = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},  # noqa: TID251
            "QLAUD_DATA_DIR": str(data_dir),
            "QLAUD_PORT": str(port),
            **environ,
        }
        with output.open("wb") as file:
            process = subprocess.Popen([QLAUD, "up"], env=full, stdout=file, stderr=file, cwd=data_dir.parent)
        stack = Stack(process, f"http://127.0.0.1:{port}", data_dir, output, full, processes_of)
        stacks.append(stack)
        until(lambda: process.poll() is not None or "qlaud is ready" in output.read_text(), START_SECONDS)
        assert process.poll() is None, output.read_text()
        return stack

    yield start
    for stack in stacks:
        with contextlib.suppress(subprocess.TimeoutExpired):
            stack.stop()
        stack.process.kill()
        stack.process.wait()
    until(lambda: not processes_of(data_dir), 15)


@pytest.fixture
def stack(start_stack: Callable[..., Stack]) -> Stack:
    """One running stack with all defaults."""
    return start_stack()
