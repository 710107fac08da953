"""The client of model providers against a peer that sends exactly these bytes, over loopback."""

import asyncio
import datetime as dt
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qlaud_actors.outbound import connections
from qlaud_actors.outbound.client import (
    Client,
    OutboundError,
    OutboundTimeoutError,
    Timeouts,
    open_client,
)
from qlaud_actors.outbound.http1 import MAX_HEAD_BYTES, MAX_UNPACKED_BYTES, MAX_WAITING_BYTES

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PACKED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
PATIENT = Timeouts(connect=5.0, first_byte=5.0, between_bytes=5.0)


def gzip(data: bytes) -> bytes:
    """Packed."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return packer.compress(data) + packer.flush()


BOMB = gzip(bytes(MAX_UNPACKED_BYTES + 1))

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """Reads requests and does for each what its script says; the last line repeats."""

    script: list[Script] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """A client's connection has ended."""
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self.script[min(len(self.requests), len(self.script)) - 1](reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.gone.set()


def says(*parts: bytes, close: bool = False) -> Script:
    """Write these bytes, each part in a packet of its own; then perhaps hang up."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    return script


@asynccontextmanager
async def talking(
    *script: Script, timeouts: Timeouts = PATIENT, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Peer, Client]]:
    """A peer with this script, and a client."""
    peer, client = Peer(list(script)), open_client(timeouts)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    peer.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1/x?y=1"
    try:
        yield peer, client
    finally:
        await client.close()
        server.close()


async def ask(peer: Peer, client: Client, body: bytes = b"{}") -> tuple[int, bytes]:
    """Status and body of one answer."""
    with await client.post(peer.url, {"content-type": "application/json"}, body) as response:
        return response.status, b"".join([chunk async for chunk in response])


async def test_a_request_says_what_is_needed_and_no_more() -> None:
    """Path and query, host, length, plain encoding, the given headers, and the body as it is."""
    async with talking(says(OK)) as (peer, client):
        assert await ask(peer, client, b'{"a":1}') == (200, b"hello")
    host = peer.url.split("/")[2].encode()
    assert peer.requests == [
        b"POST /v1/x?y=1 HTTP/1.1\r\nhost: " + host + b"\r\naccept: */*\r\naccept-encoding: identity\r\n"
        b"user-agent: qlaud-actors\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n"
        b'{"a":1}'
    ]


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([bytes([byte]) for byte in OK], b"hello"),
        ([CHUNKED, b"3\r\nhel\r\n", b"2\r\nl", b"o\r\n0\r\n\r\n"], b"hello"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK], b"hello"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([PACKED % 0], b""),
    ],
    ids=["byte by byte", "chunked", "announced", "empty", "nothing packed"],
)
async def test_an_answer_in_any_pieces_keeps_its_connection(parts: list[bytes], body: bytes) -> None:
    """However it comes, the whole answer is read and the next request takes the same connection."""
    async with talking(says(*parts)) as (peer, client):
        for _ in range(2):
            assert (await ask(peer, client))[1] == body
    assert peer.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"more than was asked for",
        OK + OK,
    ],
    ids=["close", "old", "rubbish behind it", "two answers"],
)
async def test_a_connection_that_may_not_be_kept_is_not(answer: bytes) -> None:
    """The answer counts, and the next request has a connection of its own."""
    async with talking(says(answer)) as (peer, client):
        for _ in range(2):
            assert await ask(peer, client) == (200, b"hello")
    assert peer.connections == 2


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    """HTTP/1.0 style: all that came before the end is the body."""
    async with talking(says(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", close=True)) as (peer, client):
        assert await ask(peer, client) == (200, b"hello")


async def test_a_connection_closed_while_idle_is_not_used() -> None:
    """The peer hung up between two requests: the second has a new connection."""
    async with talking(says(OK, close=True)) as (peer, client):
        assert await ask(peer, client) == (200, b"hello")
        await peer.gone.wait()
        await asyncio.sleep(0.02)
        assert await ask(peer, client) == (200, b"hello")
    assert peer.connections == 2


async def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks again: the peer sees the connection end."""
    monkeypatch.setattr(connections, "KEEP_SECONDS", 0.02)
    async with talking(says(OK)) as (peer, client):
        assert await ask(peer, client) == (200, b"hello")
        await asyncio.wait_for(peer.gone.wait(), 5)


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"],
        [CHUNKED + b"5\r\nhello\r\n"],
        [CHUNKED + b"5\r\nhello\r\n", b"no length\r\n"],
        [CHUNKED[:-2] + b"content-encoding: gzip\r\n\r\n5\r\nhello\r\n"],
        [PACKED % 20 + gzip(b"hello" * 1000)[:20]],
        [PACKED % len(BOMB) + BOMB],
    ],
    ids=["short", "no last chunk", "bad chunk", "bad gzip", "half of a gzip", "a bomb"],
)
async def test_an_answer_that_breaks_off_is_an_error(parts: list[bytes]) -> None:
    """What was read stands, but its end is never taken for a good one."""
    async with talking(says(*parts, close=True)) as (peer, client):
        with pytest.raises(OutboundError):
            await ask(peer, client)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\n" + b"x: %b\r\n" % (b"y" * 1000) * (MAX_HEAD_BYTES // 900),
    ],
    ids=["nothing", "not HTTP", "upgrade", "two lengths", "unknown encoding", "endless headers"],
)
async def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    """The peer hangs up, speaks something else, or says more than is read."""
    async with talking(says(answer, close=True)) as (peer, client):
        with pytest.raises(OutboundError) as caught:
            await ask(peer, client)
    assert not isinstance(caught.value, OutboundTimeoutError)


async def test_a_packed_answer_is_unpacked() -> None:
    """Some peers compress although they were asked not to."""
    packed, rest = gzip(b"hello" * 1000), asyncio.Event()

    async def in_two(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(PACKED % len(packed) + packed[:10])  # the head of a gzip, and nothing that it holds
        await rest.wait()
        writer.write(packed[10:])

    async with talking(in_two) as (peer, client):
        with await client.post(peer.url, {}, b"") as response:
            reading = asyncio.create_task(response.read_limited(10_000))
            await asyncio.wait([reading], timeout=0.05)
            rest.set()
            assert await reading == b"hello" * 1000


async def test_trailers_are_not_headers() -> None:
    """What comes behind a body changes nothing that was read from the head."""
    answer = CHUNKED[:-2] + b"x-kind: head\r\n\r\n5\r\nhello\r\n0\r\nx-kind: trailer\r\n\r\n"
    async with talking(says(answer)) as (peer, client):
        with await client.post(peer.url, {}, b"") as response:
            assert await response.read_limited(100) == b"hello"
            assert response.headers["x-kind"] == "head"
        await ask(peer, client)
    assert peer.connections == 1


async def test_silence_is_a_timeout_before_and_within_an_answer() -> None:
    """Told apart from a peer that breaks off: it may be at work still. The connection is closed."""
    hurried = Timeouts(connect=5.0, first_byte=0.05, between_bytes=0.05)
    async with talking(says(b""), says(CHUNKED + b"5\r\nhello\r\n"), timeouts=hurried) as (peer, client):
        for _ in range(2):
            peer.gone.clear()
            with pytest.raises(OutboundTimeoutError):
                await ask(peer, client)
            await asyncio.wait_for(peer.gone.wait(), 5)


async def test_nobody_listens() -> None:
    """A refused connection is an error of the kind that another host may not have."""
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(OutboundError, match="ConnectionRefusedError"):
        await open_client().post(f"http://127.0.0.1:{port}/", {}, b"")


async def test_who_leaves_in_the_middle_closes_the_connection() -> None:
    """An answer whose rest is not wanted is not read on."""
    async with talking(says(CHUNKED + b"5\r\nhello\r\n")) as (peer, client):
        with await client.post(peer.url, {}, b"") as response:
            assert await anext(response) == b"hello"
        await asyncio.wait_for(peer.gone.wait(), 5)


async def test_cancelling_before_the_answer_closes_the_connection() -> None:
    """Who is cancelled while he waits leaves no request behind on a connection that others would get."""
    async with talking(says(b"")) as (peer, client):
        task = asyncio.create_task(client.post(peer.url, {}, b""))
        while not peer.requests:  # noqa: ASYNC110 - the peer has no event for it
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(peer.gone.wait(), 5)


async def test_a_slow_reader_holds_its_peer_up() -> None:
    """Of an endless answer only so much waits here; all of it comes in the end."""
    size, waiting = 64 * MAX_WAITING_BYTES, asyncio.Event()

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * size)
        asyncio.get_running_loop().call_later(0.1, waiting.set)
        await writer.drain()

    async with talking(endless) as (peer, client):
        with await client.post(peer.url, {}, b"") as response:
            await waiting.wait()
            first = await anext(response)
            assert len(first) < 2 * MAX_WAITING_BYTES
            assert len(first) + len(await response.read_limited(size)) == size


async def test_a_header_cannot_become_two() -> None:
    """A line break in a value would be another header, or another request."""
    for value in ("a\r\nb: c", "a\nb", "a\rb", "a\0"):
        with pytest.raises(ValueError, match="line break"):
            await open_client().post("http://127.0.0.1:1/", {"x": value}, b"")


async def test_a_url_may_have_user_and_password() -> None:
    """A self-hosted server behind a web server's own login; a key of its own goes before."""
    async with talking(says(OK)) as (peer, client):
        url = peer.url.replace("//", "//user:p%20w@")
        for headers in ({}, {"authorization": "Bearer k"}):
            with await client.post(url, headers, b""):
                pass
    assert b"\r\nauthorization: Basic dXNlcjpwIHc=\r\n" in peer.requests[0]
    assert peer.requests[1].count(b"authorization") == 1


async def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody known has signed is refused; one of a trusted authority is taken."""
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(self_signed())
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    connections._tls.cache_clear()
    async with talking(says(OK), tls=served) as (peer, client):
        with pytest.raises(OutboundError, match="SSLCertVerificationError"):
            await ask(peer, client)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        connections._tls.cache_clear()
        for _ in range(2):
            assert await ask(peer, client) == (200, b"hello")
    connections._tls.cache_clear()
    assert len(peer.requests) == 2


def self_signed() -> bytes:
    """A certificate for 127.0.0.1 and its key, in PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return built.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
