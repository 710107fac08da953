"""Short questions to servers: are you there, and fit for use?"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from qlaud_actors.db.pool import ConnectionLost, DatabaseError, connect


async def postgres_answers(url: str) -> bool:
    """Whether the server takes connections, even if only to refuse this one."""
    try:
        connection = await connect(url)
    except ConnectionLost:
        return False
    except DatabaseError:
        return True
    await connection.close()
    return True


async def redis_answers(url: str) -> bool:
    """Whether Redis or Valkey answers a PING; one that still loads its data does not."""
    try:
        async with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            return bool(await client.ping())
    except (RedisError, OSError, ValueError):
        return False


async def http_status(url: str, timeout_seconds: float = 2.0) -> int | None:
    """The status that a GET answers with, None when nothing answers. Asks no proxy."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _get_status(url)
    except (OSError, TimeoutError, ValueError, IndexError, EOFError):
        return None


async def wait_until(
    ready: Callable[[], Awaitable[bool]], seconds: float, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Ask again and again until ready; False when time is up or the process has died."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while alive() and time.monotonic() < deadline:
        if await ready():
            return True
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return False


async def _get_status(url: str) -> int:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(host, port, ssl=secure)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(f"GET {target} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
