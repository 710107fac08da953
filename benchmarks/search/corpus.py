"""Writes conversations into a database, as finished turns, and judges what a search finds of them."""

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence

from benchmarks.search.messages import KINDS, Message, Query
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid

PER_THREAD = 20
TOP = 10

Place = tuple[str, int]


async def write(pool: Pool, key_id: uuid.UUID, texts: Sequence[Message]) -> dict[Place, Message]:
    """Threads of one key with these messages, twenty in each, a turn for each pair; where each one is."""
    account_id = await pool.fetchval("SELECT account_id FROM keys WHERE id = $1", key_id)
    threads, turns, rows = [], [], []
    for start in range(0, len(texts), PER_THREAD):
        part = texts[start : start + PER_THREAD]
        thread_id = new_uuid()
        threads.append((thread_id, account_id, key_id, len(part), len(part) // 2))
        for at, message in enumerate(part):
            if at % 2 == 0:
                turns.append((new_uuid(), thread_id, account_id, key_id, at // 2 + 1, at + 1, at + 2))
            rows.append((thread_id, at + 1, message.role, message.text, turns[-1][0]))
    async with pool.acquire() as connection, connection.transaction():
        await connection.executemany(
            "INSERT INTO threads (id, account_id, key_id, last_seq, last_turn) VALUES ($1, $2, $3, $4, $5)",
            threads,
        )
        await connection.executemany(
            "INSERT INTO turns (id, thread_id, account_id, key_id, number, user_seq, final_seq, status,"
            " request, content, request_id, fingerprint)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, 'completed', '{}', 'null', 'r', '')",
            turns,
        )
        await connection.executemany(
            "INSERT INTO messages (thread_id, seq, role, content, turn_id, request_id)"
            " VALUES ($1, $2, $3, $4, $5, 'r')",
            rows,
        )
    return {(str(row[0]), row[1]): text for row, text in zip(rows, texts, strict=True)}


async def recall(
    queries: Iterable[Query],
    messages: dict[Place, Message],
    find: Callable[[str], Awaitable[list[Place]]],
) -> dict[str, float]:
    """How much of what belongs to a query is among its first ten, by kind of query and in all."""
    scores: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for query in queries:
        wanted = {place for place, one in messages.items() if one.situation == query.situation}
        found = await find(query.text)
        scores[query.kind].append(len(wanted.intersection(found[:TOP])) / len(wanted))
    every = [score for kind in scores.values() for score in kind]
    return {
        **{kind: sum(found) / len(found) for kind, found in scores.items()},
        "all": sum(every) / len(every),
    }


def table(figures: dict[str, dict[str, float]]) -> str:
    """Recall by mode and kind, as text."""
    columns = (*KINDS, "all")
    lines = [f"{'recall@10':<10}" + "".join(f"{name:>16}" for name in columns)]
    lines += [
        f"{mode:<10}" + "".join(f"{found[name]:>16.3f}" for name in columns)
        for mode, found in figures.items()
    ]
    return "\n".join(lines)
