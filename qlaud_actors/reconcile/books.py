"""The checks of `qlaud reconcile`, each a stream of pairs from one snapshot of the database.

Nothing is taken over from the code that wrote the rows but `charge_nanos`, the rule of the charge itself.
"""

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from qlaud_actors.db.pool import Connection, Record
from qlaud_actors.db.queries import load_queries
from qlaud_actors.money import charge_nanos
from qlaud_actors.reconcile.model import Check, Pair, nearest

QUERIES = load_queries("qlaud_actors.reconcile")

SHOWN = 10
PREFETCH = 2_000

ORPHAN_SECONDS = 300.0
"""A process is taken for dead after half a minute, and its holds are swept every few seconds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One check: the query that gives its rows, and what a row's figure should be."""

    name: str
    says: str
    query: str
    expected: Callable[[Record], int | None] = lambda row: row["expected"]


def _charge(row: Record) -> int:
    overrun: int = row["overrun"]
    return charge_nanos(row["picos"], row["markup_bps"]) - overrun


def _spent(row: Record) -> int:
    return nearest(row["found"], row["sure"] + row["less"], row["sure"] + row["more"])


RULES = (
    Rule("balance", "an account's ledger adds up to its balance", QUERIES.balances),
    Rule("charged", "a key was charged what its usage rows cost", QUERIES.charged),
    Rule("spent", "a key has spent what its usage rows of the present window cost", QUERIES.spent, _spent),
    Rule("held", "what keys and wallets hold is the sum of the holds", QUERIES.held),
    Rule("ledger", "usage rows and ledger entries match one to one, to the nano", QUERIES.entries),
    Rule("opening", "spend from before the ledger equals the rows of that time", QUERIES.openings),
    Rule("cost", "a call costs the provider's price and markup, rounded up once", QUERIES.costs, _charge),
    Rule("owner", "a usage row is on the account of its key", QUERIES.owners),
    Rule("turn", "a turn cost what its usage rows cost", QUERIES.turn_costs),
    Rule("step", "a step cost what its usage row cost", QUERIES.step_costs),
)
ORPHANS = Rule("orphan", "no hold is left behind", QUERIES.orphans)


async def check_books(
    connection: Connection,
    account_id: uuid.UUID | None = None,
    *,
    orphan_seconds: float = ORPHAN_SECONDS,
    shown: int = SHOWN,
) -> AsyncIterator[Check]:
    """Hold the books of an account (or of all) against every rule, in one snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for rule in RULES:
            yield await _check(connection, rule, shown, account_id)
        yield await _check(connection, ORPHANS, shown, account_id, orphan_seconds)


async def account_exists(connection: Connection, account_id: uuid.UUID) -> bool:
    """Whether there is anything to check."""
    return bool(await connection.fetchval(QUERIES.account_exists, account_id))


async def _check(connection: Connection, rule: Rule, shown: int, *arguments: object) -> Check:
    check = Check(rule.name, rule.says)
    async for row in connection.cursor(rule.query, *arguments, prefetch=PREFETCH):
        check.hold(Pair(row["what"], row["account_id"], rule.expected(row), row["found"]), shown)
    return check
