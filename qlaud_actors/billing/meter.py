"""The meter: hold the worst case, settle what was used, release what was not.

Authorise, then capture, as card payments do. Each function is one statement or part of the caller's
transaction; nothing here remembers anything, so a crash between any two lines leaves a hold in
Postgres that belongs to a turn, and is settled or released with it, or to a process, and is given back
once that is dead (`presence.py`). A call has one id: of its hold, its usage event and its ledger entry.
"""

import uuid
from collections.abc import Sequence

import msgspec

from qlaud_actors import metrics
from qlaud_actors.billing.model import (
    Attempted,
    Charge,
    Hold,
    KeyChanged,
    Refused,
    Remembered,
    Settlement,
    Wanted,
)
from qlaud_actors.db.pool import Connection, Record, Rows, array
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import BudgetRefused, SpendCapReached, TurnBudgetReached, WalletEmpty
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import charge_nanos, format_usd, nanos_to_micros, nanos_to_usd
from qlaud_actors.usage import WorstCase

QUERIES = load_queries("qlaud_actors.billing")
REFUSED = ("scope", "limit_nanos", "spent_nanos", "held_nanos", "resets_at_ms")


async def hold(
    rows: Rows,
    key_id: uuid.UUID,
    turn_id: uuid.UUID | None,
    worst: WorstCase,
    floor_tokens: int,
    *,
    call_id: uuid.UUID | None = None,
    owner: uuid.UUID | None = None,
) -> Hold:
    """Set the worst case of a call aside, or as much as is left, down to `floor_tokens` of output.

    The answer's `max_tokens` is what key and wallet afford. `owner` is the process that makes the call,
    where no turn does. Raises SpendCapReached, WalletEmpty.
    """
    wanted = wanting(call_id or new_uuid(), key_id, worst, floor_tokens, turn_id)
    (row,) = await place_holds(rows, owner, [wanted])
    return granted(wanted, row)


async def place_holds(rows: Rows, owner: uuid.UUID | None, wanted: Sequence[Wanted]) -> list[Record]:
    """Set money aside for several calls at once; what came of each is told by `granted`."""
    remembered = [one.remembered for one in wanted]
    placed: list[Record] = await rows.fetch(
        QUERIES.place_holds,
        array([one.call_id for one in wanted]),
        array([one.key_id for one in wanted]),
        array([one.turn_id for one in wanted]),
        owner,
        array([one.nanos for one in wanted]),
        array([one.least_nanos for one in wanted]),
        [known.secret_hash if known else None for known in remembered],
        array([known.version if known else None for known in remembered]),
    )
    return placed


async def change_hold(
    rows: Rows,
    call_id: uuid.UUID,
    key_id: uuid.UUID,
    turn_id: uuid.UUID | None,
    worst: WorstCase,
    floor_tokens: int,
    *,
    owner: uuid.UUID | None = None,
) -> Hold:
    """As `hold`, instead of what the call holds for another candidate; when refused it holds nothing."""
    wanted = wanting(call_id, key_id, worst, floor_tokens, turn_id)
    nanos = wanted.nanos, wanted.least_nanos
    row = await rows.fetchrow(QUERIES.change_hold, call_id, key_id, turn_id, owner, *nanos)
    assert row is not None
    return granted(wanted, row)


def wanting(
    call_id: uuid.UUID,
    key_id: uuid.UUID,
    worst: WorstCase,
    floor_tokens: int,
    turn_id: uuid.UUID | None = None,
    remembered: Remembered | None = None,
) -> Wanted:
    """What a call wants held, and the least: what the shortest answer costs that is worth paying for."""
    least = worst.nanos_for(min(floor_tokens, worst.max_tokens))
    return Wanted(call_id, key_id, worst, worst.nanos(), least, turn_id, remembered)


def granted(wanted: Wanted, row: Record) -> Hold:
    """What came of a hold. Raises SpendCapReached, WalletEmpty, KeyChanged."""
    amount: int | None = row["granted"]
    if amount is None:
        if row["scope"] == "changed":
            raise KeyChanged
        figures = {name: row[name] for name in REFUSED}
        raise refusal(Refused(needed_nanos=wanted.least_nanos, **figures))
    limit: int | None = row["limit_nanos"]
    left = None if limit is None else limit - row["spent_nanos"] - row["held_nanos"]
    worst = wanted.worst
    afforded = worst.max_tokens if amount == wanted.nanos else worst.affordable_tokens(amount)
    return Hold(wanted.call_id, amount, afforded, left)


async def settle(connection: Connection, call_id: uuid.UUID, charge: Charge) -> Settlement | None:
    """Charge a call and write its ledger entry and usage event, in the caller's transaction.

    A call that was settled before is not charged again. None when its step was, by another call.
    """
    (settled,) = await settle_calls(connection, [(call_id, charge)])
    return settled


async def settle_calls(rows: Rows, charges: Sequence[tuple[uuid.UUID, Charge]]) -> list[Settlement | None]:
    """As `settle`, for several calls in one statement."""
    plain = zip(*(_plain(call_id, charge) for call_id, charge in charges), strict=True)
    texts = zip(*(_texts(charge) for _, charge in charges), strict=True)
    found = await rows.fetch(QUERIES.settle_calls, *map(array, plain), *map(list, texts))
    return [None if row["charged"] is None else Settlement(row["charged"], row["overrun"]) for row in found]


async def release(rows: Rows, hold_ids: Sequence[uuid.UUID]) -> int:
    """Give holds back; returns how many there still were."""
    return int(await rows.fetchval(QUERIES.release_holds, list(hold_ids)))


async def note_attempts(
    rows: Rows,
    call_id: uuid.UUID,
    key_id: uuid.UUID,
    attempts: Sequence[Attempted],
    turn_id: uuid.UUID | None = None,
    step: int | None = None,
) -> None:
    """Write down who was asked for a call and did not answer; who answered is in its usage event."""
    failed = [(number, one) for number, one in enumerate(attempts, 1) if one.error]
    if failed:
        columns = zip(*((n, a.provider, a.model, a.status, a.error, a.ms) for n, a in failed), strict=True)
        await rows.execute(QUERIES.insert_attempts, call_id, key_id, turn_id, step, *map(list, columns))


def count(charge: Charge, settled: Settlement | None) -> None:
    """Tell Prometheus of a metered call."""
    metrics.steps(charge.model_slug).inc()
    metrics.TOKENS_IN.inc(charge.usage.input_total)
    metrics.TOKENS_OUT.inc(charge.usage.output)
    if settled:
        metrics.COST.inc(nanos_to_usd(settled.charged_nanos))
        if settled.overrun_nanos:
            metrics.OVERRUN.inc(nanos_to_usd(settled.overrun_nanos))


def precheck(
    limit_nanos: int | None,
    spent_nanos: int,
    held_nanos: int,
    *,
    resets_at_ms: int | None = None,
    wallet_nanos: int | None = None,
) -> None:
    """Refuse at once what cannot succeed: the cap is spent, or the wallet (None: postpaid) is empty.

    Raises SpendCapReached, WalletEmpty.
    """
    if limit_nanos is not None and spent_nanos >= limit_nanos:
        raise refusal(Refused("key", limit_nanos, spent_nanos, held_nanos, resets_at_ms, needed_nanos=1))
    if wallet_nanos is not None and wallet_nanos <= 0:
        raise refusal(Refused("wallet", wallet_nanos, 0, 0, None, needed_nanos=1))


def refusal(refused: Refused) -> BudgetRefused:
    """The 402 with its figures. It is worth a retry when only other calls' holds are in the way."""
    limit, spent, held, needed = (
        format_usd(nanos)
        for nanos in (refused.limit_nanos, refused.spent_nanos, refused.held_nanos, refused.needed_nanos)
    )
    kind, said = {
        "key": (SpendCapReached, f"this key may spend {limit}; {spent} is spent"),
        "wallet": (WalletEmpty, f"the wallet has {limit}"),
        "turn": (TurnBudgetReached, f"this turn may spend {limit}; {spent} is spent"),
    }[refused.scope]
    return kind(
        f"{kind.code}: {said}; {held} is held for requests in flight, and this one needs {needed}.",
        scope=refused.scope,
        limit_micros=nanos_to_micros(refused.limit_nanos),
        spent_micros=nanos_to_micros(refused.spent_nanos),
        held_micros=nanos_to_micros(refused.held_nanos),
        needed_micros=nanos_to_micros(refused.needed_nanos),
        resets_at=refused.resets_at_ms,
        retryable=refused.held_nanos > 0
        and refused.spent_nanos + refused.needed_nanos <= refused.limit_nanos,
    )


def _plain(call_id: uuid.UUID, charge: Charge) -> tuple[object, ...]:
    """The arguments of `settle_calls` that are no texts, in its order."""
    usage, picos = charge.usage, charge.price.cost_picos(charge.usage)
    return (
        call_id,
        charge.key_id,
        charge.turn_id,
        charge.step,
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        picos,
        charge_nanos(picos, charge.markup_bps),
        charge.markup_bps,
        usage.estimated,
        charge.latency_ms,
        charge.status,
    )


def _texts(charge: Charge) -> tuple[str | None, ...]:
    """Those that are texts."""
    return (
        charge.end_user_id,
        charge.model_slug,
        charge.provider_slug,
        charge.price.version,
        msgspec.json.encode(charge.usage.units).decode() if charge.usage.units else None,
    )
