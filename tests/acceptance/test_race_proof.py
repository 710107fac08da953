"""The race proof: crowds of every mix, on money for a few, judged by the upstream's own bill.

`scripts/race` runs it for longer. RACE_EXAMPLES is the number of crowds in each test, RACE_SEED what they
are drawn from.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cluster import books_agree
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from race_clients import FAULTS, MODELS, Crowd, Mix, purses_for
from race_judge import Books, Verdict, judge
from race_stack import RaceStack, race_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES = (
    "/v1/messages",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/threads",
    "/v1/jobs",
)
EXAMPLES = int(os.environ.get("RACE_EXAMPLES", "3"))  # noqa: TID251 - the test's own
SEED = int(os.environ.get("RACE_SEED", "20261124"))  # noqa: TID251 - the test's own
USABLE = 0.98


def subsets(things: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """All of them first, which is what hypothesis takes for the simplest, then any."""
    chosen = st.sets(st.sampled_from(things), min_size=1).map(lambda found: tuple(sorted(found)))
    return st.just(things) | chosen


def mixes(*always: str) -> st.SearchStrategy[Mix]:
    """Crowds in which these faults happen, and others."""
    drawn = st.lists(st.sampled_from(tuple(FAULTS)), min_size=6, max_size=9, unique=True)
    return st.builds(
        Mix,
        routes=subsets(ROUTES),
        models=subsets(MODELS),
        faults=drawn.map(lambda found: (*always, *found)),
        streamed=st.sampled_from((0.5, 0.0, 1.0)),
        leaving=st.sampled_from((0.2, 0.0, 0.5)),
        falling_back=st.sampled_from((0.3, 0.0, 1.0)),
        keys=st.integers(1, 3),
        cap_micros=st.integers(100_000, 300_000),
        wallet=st.booleans(),
        seed=st.integers(0, 2**32),
    )


BLOWS = st.permutations((("api", 0), ("worker", 0), ("postgres", 0), ("worker", 1), ("api", 1))).flatmap(
    lambda targets: st.lists(st.floats(0.3, 1.5), min_size=3, max_size=5).map(
        lambda waits: [(wait, *target) for wait, target in zip(waits, targets, strict=False)]
    )
)


def race(examples: int) -> Callable[[Any], Any]:
    """Draws so many crowds from the seed; a crowd that fails is told as it is."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    configured = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=checks,
    )
    return lambda test: seed(SEED)(configured(test))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(servers_folder: Path, fresh_redis: Callable[[], str]) -> AsyncIterator[RaceStack]:
    """One stack for all crowds."""
    async with race_stack(servers_folder / "race", fresh_redis()) as stack:
        yield stack


async def run(stack: RaceStack, mix: Mix, blows: list[tuple[float, str, int]]) -> Verdict:
    """One crowd, what befalls the stack meanwhile, and the verdict."""
    begun, known = time.monotonic(), await Books.of(stack)
    stack.scripted.reset(record=False)
    stack.victims.clear()
    crowd = Crowd(stack, mix, await purses_for(stack, mix))

    async def hurt() -> None:
        for wait, target, number in blows:
            await asyncio.sleep(wait)
            await stack.strike(target, number)

    await asyncio.gather(crowd.run(), hurt())
    await stack.settled()
    await crowd.drain()
    await stack.settled()
    await books_agree(stack.postgres.program.url)
    verdict = judge(stack.scripted.bill(), (await Books.of(stack)).since(known), crowd.purses, stack.victims)
    if crowd.heard.wrongly_refused:
        verdict.complaints.append(f"refused, though there was enough: {crowd.heard.wrongly_refused[:3]}")
    verdict.complaints += [
        f"only {account.share:.4f} of {account.limit} was usable"
        for account in verdict.accounts
        if account.share < USABLE
    ]
    tell(mix, blows, crowd, verdict, time.monotonic() - begun)
    return verdict


def tell(mix: Mix, blows: list[Any], crowd: Crowd, verdict: Verdict, seconds: float) -> None:
    """The figures of a race, on one paragraph of output."""
    v = verdict
    shares = ", ".join(
        f"{a.spent / 1e9:.6f}/{a.limit / 1e9:.6f} = {a.share:.2%} (upstream {a.upstream / a.limit:.2%})"
        for a in v.accounts
    )
    heard, errors = (dict(sorted(found.items())) for found in (crowd.heard.statuses, v.refusals))
    sys.stdout.write(
        f"\nrace (RACE_SEED={SEED}) {mix}\n  blows: {blows}\n"
        f"  clients heard: {heard}, {crowd.heard.left} left;"
        f" upstream: {dict(v.endings)}, errors {errors}, {crowd.stack.scripted.bill()['peak_concurrency']}"
        f" at once\n"
        f"  spent/cap in USD: {shares}\n"
        f"  {v.exact_calls} calls charged {v.exact_nanos} nano-USD, billed {v.billed_nanos};"
        f" {v.estimated_calls} estimated, off by {v.estimated_off_nanos};"
        f" {v.lost_calls} cut off and not charged, {v.lost_nanos};"
        f" {seconds:.1f} s, {len(v.complaints)} complaints\n"
    )
    sys.stdout.writelines(f"    {complaint[:600]}\n" for complaint in verdict.complaints[:5])


@race(EXAMPLES)
@given(mix=mixes())
async def test_no_crowd_spends_more_than_there_is(stack: RaceStack, mix: Mix) -> None:
    """Whatever 300 clients ask at once: what the provider bills, times markup, is what is charged, call by
    call; it stays within the money, the money is usable to the end, and nothing stays held.
    """
    verdict = await run(stack, mix, [])
    assert verdict.complaints == []


@race(max(1, EXAMPLES - 1))
@given(mix=mixes("none", "slow", "slow"), blows=BLOWS)
async def test_neither_does_one_whose_servers_die(
    stack: RaceStack, mix: Mix, blows: list[tuple[float, str, int]]
) -> None:
    """The same while front doors and workers are killed and Postgres restarts: what the provider billed and
    we did not is a call that was in a process when it died.
    """
    verdict = await run(stack, mix, blows)
    assert verdict.complaints == []
