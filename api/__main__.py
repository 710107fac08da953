"""`python -m api`: one front door process, configured by the environment."""

import asyncio
import gc
import os
import signal
import sys

import uvloop
from aiohttp import web

from api.app import make_app
from qlaud_actors import log
from qlaud_actors.bootstrap import open_services
from qlaud_actors.db.pool import ConnectionLost, DatabaseError
from qlaud_actors.keys.lifecycle import ensure_master_key
from qlaud_actors.providers.catalog import CatalogError
from qlaud_actors.settings import Settings, SettingsError

CLOSING_SECONDS = 10.0


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; open requests get a while to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with open_services(settings) as services:
        if settings.master_key:
            await ensure_master_key(services.pool, settings.master_key)
        runner = web.AppRunner(
            make_app(services), access_log=None, shutdown_timeout=CLOSING_SECONDS, keepalive_timeout=75
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
            log.get_logger(__name__).info("api_started", host=settings.host, port=settings.port)
            collect_less()
            await stop.wait()
        finally:
            await runner.cleanup()


def collect_less() -> None:
    """What is open now stays for good: the collector need not walk it again and again, which took a fifth
    of the CPU under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def main() -> int:
    """Run until stopped; 2 when the environment is not usable, 1 when what it names is not."""
    try:
        settings = Settings.from_env(os.environ)  # noqa: TID251 - the process's own entry
        log.configure(settings.log_level, settings.log_format)
        uvloop.run(serve(settings))
    except (SettingsError, CatalogError) as error:
        print(error, file=sys.stderr)
        return 2
    except (*ConnectionLost, DatabaseError) as error:
        # A store that is away or not migrated, or a port that is taken.
        print(f"the front door cannot start: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
