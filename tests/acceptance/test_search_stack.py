"""Search beside `qlaud up`: Chroma may die at any time, and its operator sees and remakes the index."""

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from conftest import QLAUD, Stack
from test_stack import scripted_cloud

Until = Callable[..., None]
Start = Callable[..., Any]
NOWHERE = {"CHROMA_URL": "http://127.0.0.1:1"}


def say(stack: Stack, thread: str, words: str) -> None:
    """A turn, from its question to its answer."""
    asked = f'{words} <<script [{{"text": "Noted."}}] >>'
    body = {"model": "claude-haiku-4-5", "max_tokens": 50, "content": asked}
    status, answer = stack.call(f"/v1/threads/{thread}/messages", body)
    assert (status, answer["content"][0]["text"]) == (200, "Noted."), answer


def found(stack: Stack, query: str) -> int:
    """How many messages a search by meaning finds; -1 while it says that it cannot."""
    status, answer = stack.call(f"/v1/search?q={query}")
    assert status == 200 or (status, answer["error"]["code"]) == (503, "search_unavailable"), answer
    return len(answer["data"]) if status == 200 else -1


def search(stack: Stack, *arguments: str, **environ: str) -> tuple[int, str]:
    """`qlaud search …`: its exit status, and all that it said."""
    environ = {**stack.environ, **environ}
    done = subprocess.run(
        [QLAUD, "search", *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_killed_chroma_comes_back_and_the_commands_remake(start_stack: Start, until: Until) -> None:
    """503 while it is away, turns go on, search answers again by itself; then status and reindex as told."""
    with scripted_cloud() as url:
        stack = start_stack(ANTHROPIC_API_KEY="a", ANTHROPIC_BASE_URL=url)
        thread = stack.call("/v1/threads", {})[1]["id"]
        say(stack, thread, "My kettle arrived broken")
        until(lambda: found(stack, "kettle") == 2)
        killed = stack.child("chroma")
        os.kill(killed, signal.SIGKILL)
        assert found(stack, "kettle") == -1
        say(stack, thread, "The toaster is broken as well")
        until(lambda: found(stack, "toaster") == 4)
        assert stack.child("chroma") not in {0, killed}
        the_commands(stack)
        assert found(stack, "toaster") == 4
        stack.stop()


def the_commands(stack: Stack) -> None:
    """What the operator of four indexed messages is told, and may do."""
    status, told = search(stack, "status")
    assert status == 0, told
    assert "serving, 4 entries, 0 messages queued" in told
    assert "Chroma: 1 collections, 4 vectors" in told
    status, told = search(stack, "status", **NOWHERE, QLAUD_EMBEDDING_MODEL="text-embedding-3-small")
    assert (status, "run `qlaud search reindex`" in told, "Chroma: " in told) == (1, True, True)
    status, told = search(stack, "reindex")
    assert (status, "already; --force makes it anew" in told) == (0, True)
    status, told = search(stack, "reindex", "--force")
    assert (status, told.splitlines()[-1]) == (0, "done: it serves from now on"), told
    assert "building beside the index that serves" in told
    assert "messages" in told
