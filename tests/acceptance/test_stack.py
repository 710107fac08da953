"""`qlaud up` promises: one command starts everything, keeps it running, and leaves nothing behind."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai

Until = Callable[..., None]
Start = Callable[..., Any]


def test_one_command_starts_everything_and_a_second_start_reuses_it(start_stack: Start) -> None:
    """The first start makes data and key; after SIGTERM nothing runs; the next start finds all again."""
    first = start_stack()
    assert first.call("/readyz", key="none")[0] == 200
    output = first.output.read_text()
    assert first.base_url in output
    assert str(first.data_dir / "master.key") in output
    assert first.master_key not in output
    assert stat.S_IMODE((first.data_dir / "master.key").stat().st_mode) == 0o600
    key = first.master_key
    status, made = first.call("/v1/keys", {"name": "kept", "max_spend_usd": 1})
    assert status in {200, 201}, made

    assert first.stop() == 0
    assert first.left() == []
    assert not (first.data_dir / "stack.json").exists()

    second = start_stack()
    assert second.master_key == key
    assert "migrated" not in second.output.read_text()
    status, used = second.call(f"/v1/keys/{made['id']}/usage")
    assert status == 200, used


def test_a_part_that_is_killed_is_replaced(stack: Any, until: Until) -> None:
    """Workers, the front door and each store come back by themselves, at the same addresses."""
    for marker in ("-m workers", "-m api", "valkey", "bin/postgres", "chroma"):
        before = stack.child(marker)
        assert before, marker
        os.kill(before, signal.SIGKILL)
        until(lambda marker=marker, before=before: stack.child(marker) not in {0, before})
        until(stack.ready)
    status, answer = stack.call("/v1/keys", {"name": "after", "max_spend_usd": 1})
    assert status in {200, 201}, answer
    assert stack.output.read_text().count("starting it again") >= 5


def test_a_killed_supervisor_leaves_nothing_behind(start_stack: Start, until: Until) -> None:
    """`kill -9` of `qlaud up` ends every child within seconds, and the next start works at once."""
    stack = start_stack(QLAUD_WORKERS="2")
    assert len(stack.left()) >= 6
    stack.stop(signal.SIGKILL)
    until(lambda: stack.left() == [], 10)
    again = start_stack()
    assert again.ready()


def test_a_second_start_and_a_busy_port_are_refused_in_words(stack: Any) -> None:
    """Two stacks never share a directory or a port; the message says what to do."""
    second = stack.run("up")
    assert second.returncode == 1
    assert second.stderr.startswith("qlaud: another qlaud runs on")
    assert "Traceback" not in second.stderr
    elsewhere = {**stack.environ, "QLAUD_DATA_DIR": f"{stack.data_dir}-2"}
    stack.environ = elsewhere
    busy = stack.run("up")
    assert busy.returncode == 1
    assert "is taken; stop that program or set QLAUD_PORT" in busy.stderr


def test_other_commands_find_the_running_stack(stack: Any) -> None:
    """`doctor` and `migrate` need no addresses beside a running `qlaud up`; Ctrl-C ends it cleanly."""
    checked = stack.run("doctor")
    assert checked.returncode == 0, checked.stdout
    assert "is ready" in checked.stdout
    assert "migrated" in checked.stdout
    migrated = stack.run("migrate")
    assert (migrated.returncode, migrated.stdout) == (0, "the database is up to date\n")
    assert stack.stop(signal.SIGINT) == 0
    assert stack.left() == []


@contextlib.contextmanager
def scripted_cloud() -> Iterator[str]:
    """Both vendors as a process of its own; its address."""
    command = [sys.executable, "-m", "qlaud_actors.scripted"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.terminate()


def test_official_sdks_need_another_base_url_and_nothing_else(start_stack: Start) -> None:
    """As the README says: both SDKs, to models of both vendors, through one capped key."""
    with scripted_cloud() as url:
        stack = start_stack(
            ANTHROPIC_API_KEY="a", ANTHROPIC_BASE_URL=url, OPENAI_API_KEY="o", OPENAI_BASE_URL=f"{url}/v1"
        )
        _, made = stack.call("/v1/keys", {"name": "sdk", "max_spend_usd": 1})
        said: Any = [{"role": "user", "content": 'Hi <<script [{"text": "Hello, you."}] >>'}]
        with (
            anthropic.Anthropic(base_url=stack.base_url, api_key=made["secret"]) as claude,
            openai.OpenAI(base_url=f"{stack.base_url}/v1", api_key=made["secret"]) as gpt,
        ):
            for model in ("claude-haiku-4-5", "gpt-5.4-mini"):
                message: Any = claude.messages.create(model=model, max_tokens=50, messages=said)
                assert message.content[0].text == "Hello, you."
                completion = gpt.chat.completions.create(model=model, messages=said)
                assert completion.choices[0].message.content == "Hello, you."
        _, used = stack.call(f"/v1/keys/{made['id']}/usage")
        assert used["request_count"] == 4
        stack.stop()
