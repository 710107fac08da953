"""What is measured, and how each is started: all before the first run, all on the same core."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qlaud_actors.embedded import valkey_server
from qlaud_actors.program import free_port

MODEL = "gpt-5.4-mini"
START_SECONDS = 90.0
CAP_USD = 1_000_000
MASTER_KEY = "qlk_live_" + "5" * 64


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that stands between a client and the upstream, and runs."""

    name: str
    port: int
    path: str
    headers: dict[str, str]
    roots: list[int]
    """Processes whose trees are what it costs."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where subjects are started."""

    upstream: int
    """Port."""
    folder: Path
    core: int
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def run(self, name: str, *argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> int:
        """Start a process on the core of the subjects; its number. It is ended with the bench."""
        log = self.stack.enter_context((self.folder / f"{name}.log").open("wb"))
        with pinned(self.core):
            process = subprocess.Popen(argv, env=_environment(env or {}), stdout=log, stderr=log, cwd=cwd)
        self.stack.callback(_end, process)
        return process.pid


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started within the block stays on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def direct(bench: Bench, _peers: Path) -> Subject:
    """No proxy at all: what latencies are counted from."""
    return Subject("direct", bench.upstream, "/v1/chat/completions", {"authorization": "Bearer x"}, [])


def bare(bench: Bench, _peers: Path) -> Subject:
    """The bare aiohttp proxy."""
    port = free_port()
    pid = bench.run("bare", sys.executable, "-m", "benchmarks.relay.baseline", str(port), str(bench.upstream))
    _await_port(port)
    return Subject("bare aiohttp", port, "/v1/chat/completions", {"authorization": "Bearer x"}, [pid])


def qlaud(bench: Bench, _peers: Path) -> Subject:
    """`qlaud up` as it comes: front door, worker, Postgres, Valkey, Chroma; a key with a cap."""
    port = free_port()
    environment = {
        "QLAUD_DATA_DIR": str(bench.folder / "qlaud"),
        "QLAUD_PORT": str(port),
        "QLAUD_MASTER_KEY": MASTER_KEY,
        "OPENAI_API_KEY": "x",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{bench.upstream}/v1",
    }
    pid = bench.run("qlaud", str(Path(sys.executable).with_name("qlaud")), "up", env=environment)
    _await_answer(f"http://127.0.0.1:{port}/readyz")
    created = post(
        f"http://127.0.0.1:{port}/v1/keys", {"name": "bench", "max_spend_usd": CAP_USD}, MASTER_KEY
    )
    return Subject(
        "qlaud", port, "/v1/chat/completions", {"authorization": f"Bearer {created['secret']}"}, [pid]
    )


def hardcap(bench: Bench, peers: Path) -> Subject | None:
    """Hardcap with a budget in force, on a Valkey of its own."""
    binary = peers / "hardcap/bin/hardcap"
    if not binary.exists():
        return None
    store, port, config = free_port(), free_port(), bench.folder / "hardcap.json"
    config.write_text(
        json.dumps(
            {
                "redis_url": f"redis://127.0.0.1:{store}/0",
                "upstreams": {"mock": {"kind": "openai", "base_url": f"http://127.0.0.1:{bench.upstream}"}},
                "routes": {MODEL: {"targets": [{"upstream": "mock", "model": MODEL}]}},
                "tenants": {"t": {"api_keys": ["hc"], "budget": {"window_s": 3600, "total": 10**12}}},
            }
        )
    )
    pids = [
        bench.run("valkey", str(valkey_server()), "--port", str(store), "--bind", "127.0.0.1", "--save", ""),
        bench.run("hardcap", str(binary), *f"serve -c {config} --host 127.0.0.1 --port {port}".split()),
    ]
    _await_port(port)
    return Subject("hardcap", port, "/v1/chat/completions", {"authorization": "Bearer hc"}, pids)


def portkey(bench: Bench, peers: Path) -> Subject | None:
    """Portkey's gateway, which has no caps in this version."""
    script, node = (
        peers / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js",
        shutil.which("node"),
    )
    if not script.exists() or node is None:
        return None
    port = free_port()
    pid = bench.run("portkey", node, str(script), f"--port={port}", "--headless")
    _await_port(port)
    headers = {
        "authorization": "Bearer x",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{bench.upstream}/v1",
    }
    return Subject("Portkey", port, "/v1/chat/completions", headers, [pid])


def litellm(bench: Bench, peers: Path) -> Subject | None:
    """LiteLLM with a master key; its keys and budgets need a database engine that is downloaded."""
    binary = peers / "litellm/bin/litellm"
    if not binary.exists():
        return None
    port, config = free_port(), bench.folder / "litellm.json"
    upstream = {
        "model": f"openai/{MODEL}",
        "api_base": f"http://127.0.0.1:{bench.upstream}/v1",
        "api_key": "x",
    }
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": upstream}],
                "general_settings": {"master_key": "sk-bench-0123456789abcdef"},
            }
        )
    )
    arguments = f"--config {config} --host 127.0.0.1 --port {port} --num_workers 1".split()
    pid = bench.run("litellm", str(binary), *arguments, env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"})
    _await_port(port)
    headers = {"authorization": "Bearer sk-bench-0123456789abcdef"}
    return Subject("LiteLLM", port, "/v1/chat/completions", headers, [pid])


SUBJECTS: dict[str, Callable[[Bench, Path], Subject | None]] = {
    "direct": direct,
    "bare": bare,
    "qlaud": qlaud,
    "hardcap": hardcap,
    "portkey": portkey,
    "litellm": litellm,
}


def post(url: str, body: dict[str, Any], key: str) -> Any:
    """A JSON answer; of a GET when there is no body."""
    headers = {"content-type": "application/json", "x-api-key": key}
    sent = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(url, sent, headers), timeout=30) as answer:
        return json.load(answer)


def _environment(extra: dict[str, str]) -> dict[str, str]:
    """Ours without what belongs to other installations."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}  # noqa: TID251
    return kept | {"PYTHONUNBUFFERED": "1"} | extra


def _await_port(port: int) -> None:
    _await_answer(f"http://127.0.0.1:{port}/", any_status=True)


def _await_answer(url: str, *, any_status: bool = False) -> None:
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            if any_status:
                return
        except OSError:
            pass
        if time.monotonic() > give_up:
            raise SystemExit(f"nothing answers on {url}")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
