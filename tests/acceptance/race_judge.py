"""The judge of a race: holds the upstream's own bill against our books, call by call."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from race_clients import Purse
from race_stack import HOSTS, RaceStack

from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Model
from qlaud_actors.usage import Usage

MARKUP_BPS = 700
KEYS = {
    "ANTHROPIC_API_KEY": HOSTS["anthropic"],
    "OPENAI_API_KEY": HOSTS["openai"],
    "AZURE_OPENAI_API_KEY": HOSTS["azure"],
    "AZURE_OPENAI_BASE_URL": "http://scripted.example/v1",
}


REDONE = """
    SELECT s.call FROM seen_holds s JOIN turns t ON t.id = s.turn_id WHERE t.epoch > 1
    UNION SELECT s.call FROM seen_holds s
     WHERE s.turn_id IS NULL AND s.key_id IN (SELECT key_id FROM jobs)
       AND s.owner NOT IN (SELECT owner FROM doors) AND s.call NOT IN (SELECT call_id FROM jobs)
"""
"""A job names its last call; the calls that it made before are those of workers which it does not name."""


@dataclass(frozen=True)
class Account:
    """What one purse was limited to, and what was spent of it by whose reckoning."""

    limit: int
    spent: int
    """By our books."""
    exact: int
    """By the upstream's bill, for calls that it finished."""
    upstream: int
    """By the upstream's bill for whatever it did, also where it broke off or nobody heard of it."""

    @property
    def share(self) -> float:
        """How much of the money was of use."""
        return self.spent / self.limit


@dataclass
class Verdict:
    """What was found; a race is won when there is no complaint."""

    complaints: list[str] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    exact_calls: int = 0
    exact_nanos: int = 0
    """Charged for calls whose figures the upstream told, and what its own bill says of them."""
    billed_nanos: int = 0
    estimated_calls: int = 0
    estimated_off_nanos: int = 0
    """How much more (or less) was charged than the upstream billed, where it did not tell its figures."""
    lost_calls: int = 0
    """Billed by the upstream and by nobody else."""
    lost_nanos: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)


@dataclass
class Books:
    """All rows that tell of money."""

    events: dict[str, Any]
    ledger: dict[str, int]
    held: dict[str, int]
    """The most that was ever held for a call."""
    payers: dict[str, uuid.UUID]
    """Whose money that was."""
    redone: set[str]
    """Calls of turns and jobs that were made again, by another worker or after a lost connection."""
    budgets: dict[str, Any]

    def since(self, earlier: "Books") -> "Books":
        """Without what was in the books before."""
        return Books(
            {call: row for call, row in self.events.items() if call not in earlier.events},
            {call: amount for call, amount in self.ledger.items() if call not in earlier.ledger},
            self.held,
            self.payers,
            self.redone,
            {key: row for key, row in self.budgets.items() if key not in earlier.budgets},
        )

    @classmethod
    async def of(cls, stack: RaceStack) -> "Books":
        """As they stand."""
        events = await stack.query("SELECT * FROM usage_events")
        ledger = await stack.query("SELECT id, amount_nanos FROM ledger_entries WHERE kind = 'usage'")
        seen = await stack.query("SELECT call, key_id, max(amount) AS most FROM seen_holds GROUP BY 1, 2")
        redone = await stack.query(REDONE)
        budgets = await stack.query("SELECT * FROM budgets")
        return cls(
            {str(row["id"]): row for row in events},
            {str(row["id"]): row["amount_nanos"] for row in ledger},
            {str(row["call"]): row["most"] for row in seen},
            {str(row["call"]): row["key_id"] for row in seen},
            {str(row["call"]) for row in redone},
            {str(row["key_id"]): row for row in budgets},
        )


class Prices:
    """What a row of the upstream's bill costs our callers."""

    def __init__(self) -> None:
        catalog = Catalog.load(KEYS)
        self._models: dict[tuple[str, str], Model] = {
            (HOSTS[host.provider.slug][-4:], host.upstream): host
            for model in catalog.models()
            for host in catalog.hosts(model.slug)
            if host.provider.slug in HOSTS
        }

    def nanos(self, row: dict[str, Any]) -> int:
        """In nano-USD, markup included."""
        used = Usage(
            row["input"], row["output"], row["cache_read"], row["cache_write"], row["cache_write_1h"]
        )
        model = self._models[row["key_suffix"], row["model"]]
        return charge_nanos(model.price.cost_picos(used), MARKUP_BPS)


def judge(bill: dict[str, Any], books: Books, purses: list[Purse], victims: set[str]) -> Verdict:
    """Compare everything with everything."""
    verdict, prices, calls = Verdict(), Prices(), _by_call(bill["rows"])
    verdict.endings.update(row["ended"] for row in bill["rows"])
    verdict.refusals.update(row["status"] for row in bill["refusals"])
    verdict.complaints += [
        f"a call reached the provider without money: {row}"
        for row in [*bill["rows"], *bill["refusals"]]
        if row["call"] not in books.held
    ]
    verdict.complaints += [
        f"charged, but never billed: {dict(books.events[call])}" for call in set(books.events) - set(calls)
    ]
    for billed in calls.items():
        _judge_call(verdict, books, prices, billed, victims)
    verdict.complaints += _ledger(books)
    if verdict.exact_nanos != verdict.billed_nanos:
        verdict.complaints.append(f"{verdict.exact_nanos} charged in all, {verdict.billed_nanos} billed")
    verdict.accounts += [_account(purse, books, bill, prices) for purse in purses]
    verdict.complaints += [
        f"more than there is: {account}"
        for account in verdict.accounts
        if max(account.spent, account.exact) > account.limit
    ]
    return verdict


def _by_call(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in rows:
        found[row["call"]].append(row)
    return found


def _judge_call(
    verdict: Verdict,
    books: Books,
    prices: Prices,
    billed: tuple[str, list[dict[str, Any]]],
    victims: set[str],
) -> None:
    """One call: all that the upstream did for it, beside our one usage event."""
    call, rows = billed
    nanos = sum(map(prices.nanos, rows))
    last = rows[-1]
    event = books.events.get(call)
    for row in rows:
        if prices.nanos(row) > books.held.get(call, 0):
            verdict.complaints.append(f"{prices.nanos(row)} billed, {books.held.get(call)} held: {row}")
    if any(row["ended"] != "cut" for row in rows[:-1]):
        verdict.complaints.append(f"asked again after an answer had begun: {rows}")
    if event and event["overrun_nanos"]:
        verdict.complaints.append(f"{event['overrun_nanos']} charged to nobody: {dict(event)}")
    if event is None:
        verdict.lost_calls += 1
        verdict.lost_nanos += nanos
        killed = call in victims or call in books.redone
        # What the upstream itself broke off may never have reached us: then it never began.
        if not killed and any(row["ended"] != "cut" for row in rows):
            verdict.complaints.append(f"billed, but never charged: {rows}")
    elif event["estimated"]:
        verdict.estimated_calls += 1
        verdict.estimated_off_nanos += event["cost_nanos"] - nanos
    else:
        verdict.exact_calls += 1
        verdict.exact_nanos += event["cost_nanos"]
        verdict.billed_nanos += prices.nanos(last)
        if event["cost_nanos"] != prices.nanos(last):
            verdict.complaints.append(f"{event['cost_nanos']} charged, {prices.nanos(last)} billed: {rows}")
        if last["ended"] != "complete":
            verdict.complaints.append(f"charged as told, but never told: {last}")


def _ledger(books: Books) -> Iterator[str]:
    """Ledger, usage and budgets say the same, to the nano-USD, and nothing is held."""
    if set(books.ledger) != set(books.events):
        yield "ledger and usage tell of different calls"
    for call, event in books.events.items():
        if books.ledger.get(call) != -event["cost_nanos"]:
            yield f"the ledger says {books.ledger.get(call)} of {dict(event)}"
    spent: Counter[str] = Counter()
    for event in books.events.values():
        spent[str(event["key_id"])] += event["cost_nanos"]
    for key_id, budget in books.budgets.items():
        if budget["held_nanos"] or budget["spent_nanos"] != spent[key_id]:
            yield f"the budget is {dict(budget)}, its usage sums to {spent[key_id]}"


def _account(purse: Purse, books: Books, bill: dict[str, Any], prices: Prices) -> Account:
    keys = {uuid.UUID(key_id) for _, key_id in purse.keys}
    mine = {call: event for call, event in books.events.items() if event["key_id"] in keys}
    exact = sum(
        prices.nanos(row) for row in bill["rows"] if row["call"] in mine and row["ended"] == "complete"
    )
    spent = sum(event["cost_nanos"] for event in mine.values())
    upstream = sum(prices.nanos(row) for row in bill["rows"] if books.payers.get(row["call"]) in keys)
    return Account(purse.limit_nanos, spent, exact, upstream)
