"""`python -m qlaud_actors.scripted --port N`: the scripted model server alone, until a signal."""

import argparse
import asyncio
import signal
import sys

from qlaud_actors.scripted.server import ScriptedServer


async def serve(host: str, port: int, window: int | None) -> None:
    """Serve until SIGINT or SIGTERM; the first line on stdout is the URL."""
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with ScriptedServer(host, port, context_window=window) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m qlaud_actors.scripted", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--context-window", type=int, help="in tokens")
    known = parser.parse_args()
    asyncio.run(serve(known.host, known.port, known.context_window))


if __name__ == "__main__":
    main()
