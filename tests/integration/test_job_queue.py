"""Consumers that wait in Redis: woken by a message, idle without one, and never in each other's way."""

import threading
import time

from qlaud_actors.jobs import QUEUES, RunTurn, make_broker, message

MANY = 200


def take(redis_url: str, count: int, found: list[str], timeout_ms: int = 4_000) -> None:
    """Read so many messages of the queue of turns, as a worker's thread does."""
    broker = make_broker(redis_url)
    consumer = broker.consume(RunTurn.queue, prefetch=4, timeout=timeout_ms)
    while len(found) < count:
        if (got := next(consumer)) is not None:
            found.append(got.kwargs["turn_id"])
            consumer.ack(got)
    broker.close()


def test_a_waiting_consumer_is_woken(redis_url: str) -> None:
    """It waits for seconds if need be, and has the message as soon as there is one."""
    found: list[str] = []
    reader = threading.Thread(target=take, args=(redis_url, 1, found))
    reader.start()
    broker = make_broker(redis_url)
    while not any("b" in one["flags"] for one in broker.client.client_list()):
        time.sleep(0.001)  # until it waits
    start = time.monotonic()
    broker.enqueue(message(RunTurn("a")))
    reader.join(15)
    assert found == ["a"]
    assert time.monotonic() - start < 2
    broker.close()


def test_consumers_share_a_queue(redis_url: str) -> None:
    """Each message goes to one of them, in order, also while all wait for the same one."""
    broker, found = make_broker(redis_url), list[str]()
    readers = [threading.Thread(target=take, args=(redis_url, MANY, found, 50)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(MANY):
        broker.enqueue(message(RunTurn(str(number))))
    for reader in readers:
        reader.join(15)
    assert sorted(found, key=int) == [str(number) for number in range(MANY)]
    assert broker.do_qsize(RunTurn.queue) == 0
    broker.close()


def test_nobody_looks_for_delayed_jobs() -> None:
    """None is ever delayed, so no thread polls for them."""
    broker = make_broker("redis://127.0.0.1:1")
    assert broker.get_declared_queues() == set(QUEUES)
    assert broker.get_declared_delay_queues() == set()
