"""The bus: numbered events through a real Valkey, in order, whatever is lost on the way."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from qlaud_actors.conversation import log
from qlaud_actors.conversation.bus import Bus, LogGap, Subscription
from qlaud_actors.conversation.log import Entry
from qlaud_actors.conversation.publisher import Publisher, TurnLog
from qlaud_actors.ids import new_uuid


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test's own database."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def bus(redis: Redis) -> AsyncIterator[Bus]:
    """A front door's side."""
    bus = Bus(redis)
    await bus.start()
    yield bus
    await bus.close()


@pytest.fixture
async def publisher(redis: Redis) -> AsyncIterator[Publisher]:
    """A worker's side."""
    publisher = Publisher(redis)
    await publisher.start()
    yield publisher
    await publisher.close()


def delta(text: str, index: int = 0) -> dict:
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}


async def collect(reader: Subscription, count: int) -> list[Entry]:
    entries: list[Entry] = []
    async with asyncio.timeout(5):
        while len(entries) < count:
            entries += await reader.next(1)
    return entries


async def opened(publisher: Publisher, turn_id: uuid.UUID, epoch: int = 1) -> TurnLog:
    return await publisher.open(turn_id, epoch, 0, lambda: None)


async def test_live_events_arrive_in_order(bus: Bus, publisher: Publisher) -> None:
    """What is published is read, numbered from 1 without a hole."""
    turn_id = new_uuid()
    turn_log = await opened(publisher, turn_id)
    async with bus.follow(turn_id) as reader:
        for number in range(50):
            turn_log.publish({"type": "x", "n": number})
        entries = await collect(reader, 50)
    assert [entry.seq for entry in entries] == list(range(1, 51))
    assert entries[-1].data == b'{"type":"x","n":49}'


async def test_a_late_reader_gets_everything(bus: Bus, publisher: Publisher) -> None:
    """A reader that comes in the middle reads the log, then goes live; one that resumes gets the rest."""
    turn_id = new_uuid()
    turn_log = await opened(publisher, turn_id)
    for number in range(5):
        turn_log.publish({"type": "x", "n": number})
    await publisher.flush()
    async with bus.follow(turn_id) as reader, bus.follow(turn_id, after=3) as resumed:
        assert [e.seq for e in await collect(reader, 5)] == [1, 2, 3, 4, 5]
        turn_log.publish({"type": "x", "n": 5})
        assert [e.seq for e in await collect(reader, 1)] == [6]
        assert [e.seq for e in await collect(resumed, 3)] == [4, 5, 6]


async def test_consecutive_text_becomes_one_event(bus: Bus, publisher: Publisher) -> None:
    """Tokens that come faster than the flusher are sent together, and no character is lost."""
    turn_id = new_uuid()
    turn_log = await opened(publisher, turn_id)
    async with bus.follow(turn_id) as reader:
        for word in ("a", "b", "c"):
            turn_log.publish(delta(word))
        turn_log.publish(delta("d", index=1))
        turn_log.publish({"type": "end"})
        entries = await collect(reader, 3)
    assert [e.data for e in entries[:2]] == [
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"abc"}}',
        b'{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"d"}}',
    ]


async def test_an_old_epoch_is_refused(publisher: Publisher, redis: Redis) -> None:
    """A worker that was only asleep cannot write into the stream of its successor."""
    turn_id, fenced = new_uuid(), asyncio.Event()
    zombie = await publisher.open(turn_id, 1, 0, fenced.set)
    zombie.publish({"type": "old"})
    await publisher.flush()
    owner = await opened(publisher, turn_id, epoch=2)
    owner.publish({"type": "new"})
    await publisher.flush()
    zombie.publish({"type": "late"})
    await publisher.flush()
    assert fenced.is_set()
    assert [e.data for e in await log.read_log(redis, turn_id, 0)] == [b'{"type":"old"}', b'{"type":"new"}']


async def test_a_slow_reader_reads_the_log(bus: Bus, publisher: Publisher) -> None:
    """Past its bound a queue is dropped, and nothing of the stream is."""
    turn_id = new_uuid()
    turn_log = await opened(publisher, turn_id)
    async with bus.follow(turn_id) as reader:
        turn_log.publish({"type": "first"})
        await collect(reader, 1)
        for number in range(2500):
            turn_log.publish({"type": "x", "n": number})
        await publisher.flush()
        await asyncio.sleep(0.3)
        entries = await collect(reader, 2500)
    assert [e.seq for e in entries] == list(range(2, 2502))


async def test_live_readers_survive_an_emptied_redis(bus: Bus, publisher: Publisher, redis: Redis) -> None:
    """FLUSHALL in the middle: who follows goes on; who comes later is told to look into Postgres."""
    turn_id = new_uuid()
    turn_log = await opened(publisher, turn_id)
    async with bus.follow(turn_id) as reader:
        turn_log.publish({"type": "before"})
        await collect(reader, 1)
        await redis.flushdb()
        await redis.script_flush()
        turn_log.publish({"type": "after"})
        assert [e.seq for e in await collect(reader, 1)] == [2]
        async with bus.follow(turn_id) as late:
            with pytest.raises(LogGap):
                await collect(late, 1)


async def test_a_new_owner_without_a_log_begins_beyond_it(publisher: Publisher) -> None:
    """After the log was lost, a takeover never reuses a number that a client may have seen."""
    turn_log = await publisher.open(new_uuid(), 2, 7, lambda: None)
    assert turn_log.seq == 7 + log.AFTER_LOSS


async def test_a_lost_connection_is_not_noticed(bus: Bus, publisher: Publisher, redis: Redis) -> None:
    """The server drops the subscriber: it subscribes again and fills the hole from the log."""
    turn_id = new_uuid()
    turn_log = await opened(publisher, turn_id)
    async with bus.follow(turn_id) as reader:
        turn_log.publish({"type": "one"})
        await collect(reader, 1)
        with contextlib.suppress(Exception):
            await redis.client_kill_filter(_type="pubsub")
        turn_log.publish({"type": "two"})
        await publisher.flush()
        turn_log.publish({"type": "three"})
        assert [e.seq for e in await collect(reader, 2)] == [2, 3]


async def test_a_batch_may_be_sent_twice(redis: Redis) -> None:
    """When Redis wrote but its answer was lost, sending again repeats nothing and breaks nothing."""
    turn_id = new_uuid()
    appender = log.Appender(redis)
    first = [Entry(1, b'{"type":"a"}'), Entry(2, b'{"type":"b"}')]
    assert await appender.append([(turn_id, 1, first)]) == [True]
    assert await appender.append([(turn_id, 1, [*first, Entry(3, b'{"type":"c"}')])]) == [True]
    assert [e.seq for e in await log.read_log(redis, turn_id, 0)] == [1, 2, 3]


async def test_taking_a_log_over_ends_the_old_owner(publisher: Publisher, redis: Redis) -> None:
    """What the old owner sends after the take-over is refused, so the new one's numbers are its own."""
    turn_id, fenced = new_uuid(), asyncio.Event()
    zombie = await publisher.open(turn_id, 1, 0, fenced.set)
    zombie.publish({"type": "one"})
    await publisher.flush()
    owner = await publisher.open(turn_id, 2, 0, lambda: None)
    zombie.publish({"type": "tail"})
    await publisher.flush()
    owner.publish({"type": "two"})
    await publisher.flush()
    assert fenced.is_set()
    assert [(e.seq, e.data) for e in await log.read_log(redis, turn_id, 0)] == [
        (1, b'{"type":"one"}'),
        (2, b'{"type":"two"}'),
    ]
