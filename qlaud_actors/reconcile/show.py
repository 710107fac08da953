"""Findings in words for people, and as JSON for programs."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from qlaud_actors.reconcile.compare import Difference, Tolerance
from qlaud_actors.reconcile.exports import COST, PICOS_PER_USD
from qlaud_actors.reconcile.model import Check, Pair

HEADER = ("", "day", "model", "figure", "ours", "theirs", "%")


def checks_table(checks: Sequence[Check]) -> str:
    """A line for each rule, and under it the first that break it; nano-USD."""
    width = max(len(str(check.checked)) for check in checks)
    lines = []
    for check in checks:
        verdict = "WRONG" if check.wrong else "ok"
        lines.append(f"{verdict:5}  {check.name:8} {check.checked:>{width}}  {check.says}")
        lines += [f"         {_in_words(pair)}" for pair in check.offenders]
        if check.wrong > len(check.offenders):
            lines.append(f"         … and {check.wrong - len(check.offenders)} more")
    wrong = sum(check.wrong for check in checks)
    lines.append(f"{wrong} wrong" if wrong else "the books agree")
    return "\n".join(lines)


def checks_json(checks: Sequence[Check]) -> str:
    """The same, whole."""
    return msgspec.json.encode({"ok": not any(c.wrong for c in checks), "checks": checks}).decode()


def differences_table(differences: Sequence[Difference], tolerance: Tolerance, estimated: int) -> str:
    """Every figure that differs, those beyond the tolerance marked; then the totals."""
    apart = [one for one in differences if one.ours != one.theirs]
    lines = _aligned([HEADER, *(_row(one, tolerance) for one in apart)]) if apart else []
    beyond = sum(one.beyond(tolerance) for one in apart)
    lines.append(
        f"{len(differences)} figures compared: {len(differences) - len(apart)} equal, "
        f"{len(apart) - beyond} within the tolerance, {beyond} beyond it"
    )
    if estimated:
        lines.append(f"{estimated} of our calls are estimates: the provider never said what they used")
    return "\n".join(lines)


def differences_json(differences: Sequence[Difference], tolerance: Tolerance, estimated: int) -> str:
    """All figures."""
    said = {
        "ok": not any(one.beyond(tolerance) for one in differences),
        "tolerance": {"percent": tolerance.percent, "usd": tolerance.usd},
        "estimated_calls": estimated,
        "figures": [_as_dict(one, tolerance) for one in differences],
    }
    return msgspec.json.encode(said).decode()


def _in_words(pair: Pair) -> str:
    if pair.expected is None:
        return f"{pair.what}: {pair.found} should not be there"
    if pair.found is None:
        return f"{pair.what}: {pair.expected} is missing"
    return f"{pair.what}: {pair.found}, should be {pair.expected}"


def _row(one: Difference, tolerance: Tolerance) -> tuple[str, ...]:
    mark = "!" if one.beyond(tolerance) else ""
    ours, theirs = _figure(one, one.ours), _figure(one, one.theirs)
    return mark, str(one.day), one.model, _name(one), ours, theirs, f"{one.percent:+.2f}"


def _as_dict(one: Difference, tolerance: Tolerance) -> dict[str, Any]:
    return {
        "day": one.day,
        "model": one.model,
        "figure": one.figure,
        "ours": one.ours,
        "theirs": one.theirs,
        "percent": round(float(one.percent), 4),
        "beyond": one.beyond(tolerance),
    }


def _name(one: Difference) -> str:
    return "cost (USD)" if one.figure == COST else one.figure


def _figure(one: Difference, value: int) -> str:
    return f"{Decimal(value) / PICOS_PER_USD:.6f}" if one.figure == COST else str(value)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts, numbers = slice(0, 4), slice(4, None)
    return [
        "  ".join(
            [f"{cell:<{width}}" for cell, width in zip(row[texts], widths[texts], strict=True)]
            + [f"{cell:>{width}}" for cell, width in zip(row[numbers], widths[numbers], strict=True)]
        )
        for row in rows
    ]
