"""The Postgres pool. The only package that imports the driver."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Record: TypeAlias = asyncpg.Record
Rows: TypeAlias = "Pool | Connection"
"""Anything that can run a single statement."""

UniqueViolation = asyncpg.UniqueViolationError
DatabaseError = asyncpg.PostgresError
"""Whatever the server itself reports."""

ConnectionLost = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the session was ended just as a statement began
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
    TimeoutError,
)
"""What a database that is away, restarting or stuck raises: nobody's mistake, and it passes."""

Contended = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
"""The part of it that is about the rows of one statement, not about the database."""


def array(values: Sequence[object]) -> str:
    """Ids, numbers and booleans as the text of an array, for a parameter like `$1::text::bigint[]`: over a
    list the driver takes ten times as long. Not for texts, whose escapes differ from JSON's.
    """
    return "{" + msgspec.json.encode(values)[1:-1].decode() + "}"


async def open_pool(url: str, *, min_size: int = 1, max_size: int = 16) -> Pool:
    """Open a pool whose connections speak JSON as Python values."""
    return await asyncpg.create_pool(
        url,
        min_size=min_size,
        max_size=max_size,
        init=_prepare,
        reset=_leave_as_it_is,
        command_timeout=30,
        server_settings={"application_name": "qlaud", "lock_timeout": "5s"},
    )


async def connect(url: str) -> Connection:
    """One connection outside any pool, for migrations and checks."""
    connection = await asyncpg.connect(url, timeout=10)
    await _prepare(connection)
    return connection


def in_transaction(rows: Rows) -> bool:
    """Whether what is read through `rows` may yet be undone."""
    return not isinstance(rows, asyncpg.Pool) and rows.is_in_transaction()


async def _leave_as_it_is(_connection: Connection) -> None:
    """An open transaction was rolled back already. We keep nothing else in a session (no listeners, no
    settings, no session locks), so the driver's usual round trip that clears it all is saved.
    """


async def _prepare(connection: Any) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind, schema="pg_catalog", encoder=_encode, decoder=msgspec.json.decode
        )


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()
