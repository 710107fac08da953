"""Waiting for a Postgres that is away."""

import asyncpg
import pytest

from qlaud_actors.db.persist import persistently


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        # What the driver says when a session ends just as a statement begins.
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        ConnectionRefusedError(),
    ],
)
async def test_a_lost_connection_is_tried_again(error: Exception) -> None:
    """Whatever the driver calls it, a write whose connection went away is made again; others are not."""
    tries: list[Exception] = []

    async def write() -> str:
        tries.append(error)
        if len(tries) == 1:
            raise error
        return "written"

    assert await persistently(write) == "written"
    assert len(tries) == 2


async def test_other_errors_are_not_waited_for() -> None:
    """A mistake of ours is told at once; a database that stays away, once patience ends."""

    async def wrong() -> None:
        raise ValueError("wrong")

    async def away() -> None:
        raise ConnectionRefusedError

    with pytest.raises(ValueError, match="wrong"):
        await persistently(wrong)
    with pytest.raises(ConnectionRefusedError):
        await persistently(away, 0.05)
