"""One request to somebody else's URL: sent once, answered in full or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

Session = aiohttp.ClientSession

CONNECT_SECONDS = 10.0
"""For name resolution, connection and TLS together."""


class PostFailed(Exception):
    """There is no answer; the message names the kind of failure and nothing that was sent.

    `permanent` failures are the same on the next attempt.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(slots=True)
class Attempt:
    """What is known of a request while it runs, and still is when it was cut off."""

    sent: bool = False
    """Whether any of it may have reached the peer."""
    addresses: list[str] = field(default_factory=list)
    """Where connections were opened to, in order; the last one carried the request."""

    @property
    def address(self) -> str | None:
        """The address that the request went to, or was meant to."""
        return self.addresses[-1] if self.addresses else None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `body` is None when it was larger than allowed."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


current: ContextVar[Attempt | None] = ContextVar("attempt", default=None)
"""The attempt that this task is making; the guarded session notes in it what it does."""


async def post(
    session: Session,
    url: URL,
    headers: Mapping[str, str],
    body: bytes,
    *,
    attempt: Attempt,
    max_bytes: int,
) -> Answer:
    """POST once, follow nothing. Raises PostFailed, and ForbiddenURL for a refused address.

    There is no time limit but for the connection: the caller has a deadline.
    """
    return await request(session, "POST", url, headers, body, attempt=attempt, max_bytes=max_bytes)


async def request(
    session: Session,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    attempt: Attempt,
    max_bytes: int,
) -> Answer:
    """The same with any method. Without a body nothing is said of its type."""
    token = current.set(attempt)
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
    try:
        with named_failures():
            async with session.request(
                method,
                url,
                data=body,
                headers=headers,
                skip_auto_headers=("content-type",),
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                return Answer(response.status, response.headers, await _read(response, max_bytes))
    finally:
        current.reset(token)


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn what aiohttp raises into PostFailed, whose words name nothing that was sent."""
    try:
        yield
    except aiohttp.ClientConnectorDNSError as error:
        raise PostFailed("its name does not resolve") from error
    except aiohttp.ClientSSLError as error:
        raise PostFailed("its TLS certificate is not valid", permanent=True) from error
    except aiohttp.InvalidURL as error:
        raise PostFailed("its URL is not valid", permanent=True) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise PostFailed(f"no connection within {CONNECT_SECONDS:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise PostFailed("the connection was refused or broke") from error


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body after decompression, or None as soon as it is too large."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)
