"""Runs `qlaud vault rotate` again and again, each time in a process of its own that may be killed.

Each line of standard input is a JSON object: the `keyring`, and `deaths`, one for each of the rotations
that run at once. A death is null, or `{"statement": n, "side": "before"|"after"}` (the process kills
itself around its n-th statement), or `{"seconds": s}` (it is killed from outside after that time). The
answer is a line with the exit statuses, negative for signals. Forked from here a rotation starts at once.
"""

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg

from qlaud_actors import vault_tasks  # noqa: F401 - loaded before the fork
from qlaud_actors.settings import Secret, Settings
from qlaud_actors.vault_commands import vault

STATEMENTS = ("fetch", "fetchrow", "fetchval", "execute")


def die() -> None:
    """As `kill -9` does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(at: int, side: str) -> None:
    """Wrap the statements of pools."""
    left = at

    def mortal(original: Any) -> Any:
        async def statement(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            mine = left == 0
            if mine and side == "before":
                die()
            result = await original(*arguments, **more)
            if mine:
                die()
            return result

        return statement

    for name in STATEMENTS:
        setattr(asyncpg.Pool, name, mortal(getattr(asyncpg.Pool, name)))


def rotation(settings: Settings, death: dict[str, Any], output: Path) -> int:
    """Fork one; its process number."""
    child = os.fork()
    if child:
        return child
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if "statement" in death:
        arm(death["statement"], death["side"])
    try:
        vault.main(["rotate"], obj=lambda: settings)
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(int(end.code or 0))
    os._exit(99)


def main(database_url: str, output: Path) -> None:
    """Rounds until the end of standard input."""
    gc.disable()  # what the fork shares is not touched
    for line in sys.stdin:
        asked = json.loads(line)
        settings = Settings(
            data_dir=output.parent, database_url=database_url, keyring=Secret(asked["keyring"])
        )
        deaths = [death or {} for death in asked["deaths"]]
        children = [rotation(settings, death, output) for death in deaths]
        for child, death in sorted(zip(children, deaths, strict=True), key=lambda c: c[1].get("seconds", 0)):
            if "seconds" in death:
                time.sleep(death["seconds"])
                os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(f"{json.dumps(ends)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
