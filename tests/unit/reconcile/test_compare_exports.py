"""Ours beside theirs: names, sums, percentages, tolerance."""

from datetime import date
from decimal import Decimal

from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.reconcile.compare import ALL_MODELS, Difference, Names, Tolerance, compare
from qlaud_actors.reconcile.exports import COST, Export, Line
from qlaud_actors.reconcile.model import Check, Pair, nearest

DAY, NEXT = date(2026, 11, 20), date(2026, 11, 21)
NONE = Tolerance(Decimal(0), Decimal(0))
CATALOG = Catalog.load({})
HOSTS = [host for model in CATALOG.models() for host in CATALOG.hosts(model.slug)]
NAMES = Names(host for host in HOSTS if host.provider.slug == "anthropic")


def export(*lines: Line) -> Export:
    return Export(list(lines))


def test_a_model_has_one_name() -> None:
    """Slug, upstream name, display name and dated snapshot are one; unknown names stay, without a date."""
    one = {NAMES.of(n) for n in ("claude-haiku-4-5", "claude-haiku-4-5-20251001", "Claude Haiku 4.5")}
    assert len(one) == 1
    assert NAMES.of("claude-99-20991231") == NAMES.of("claude-99-2099-12-31") == "claude-99"
    assert Names([]).of("web search tool calls") == "web search tool calls"


def test_snapshots_of_a_model_are_added_up() -> None:
    """Theirs may split what is one model of ours."""
    ours = [Line(DAY, "claude-haiku-4-5", {"input": 10, "output": 4})]
    theirs = export(
        Line(DAY, "claude-haiku-4-5-20251001", {"input": 6}), Line(DAY, "Claude Haiku 4.5", {"input": 4})
    )
    (only,) = compare(ours, theirs, NAMES)
    assert (only.figure, only.ours, only.theirs) == ("input", 10, 10)


def test_what_only_one_side_has_is_a_difference() -> None:
    """A model or a day that is missing here or there; figures that the export does not have are not."""
    ours = [Line(DAY, "a", {"input": 10, "requests": 1}), Line(NEXT, "b", {"input": 1, "requests": 1})]
    theirs = export(Line(DAY, "a", {"input": 10}), Line(DAY, "c", {"input": 7}))
    found = compare(ours, theirs, Names([]))
    assert [(d.day, d.model, d.figure, d.ours, d.theirs) for d in found] == [
        (DAY, "a", "input", 10, 10),
        (DAY, "c", "input", 0, 7),
        (NEXT, "b", "input", 1, 0),
    ]
    assert [d.beyond(NONE) for d in found] == [False, True, True]


def test_costs_that_name_no_model_are_compared_by_day() -> None:
    """Tokens by model and money in all, side by side; money with and without models is added up."""
    ours = [Line(DAY, model, {"input": 5, COST: 30}) for model in ("a", "b")]
    theirs = export(
        *(Line(DAY, model, {"input": 5}) for model in ("a", "b")),
        Line(DAY, None, {COST: 50}),
        Line(DAY, "web search", {COST: 10}),
    )
    found = compare(ours, theirs, Names([]))
    assert [(d.model, d.figure, d.ours, d.theirs) for d in found] == [
        (ALL_MODELS, COST, 60, 60),
        ("a", "input", 5, 5),
        ("b", "input", 5, 5),
    ]


def test_percentages_are_of_theirs() -> None:
    """Signed; a hundred where they have nothing."""
    assert Difference(DAY, "m", "input", 90, 100).percent == -10
    assert Difference(DAY, "m", "input", 110, 100).percent == 10
    assert Difference(DAY, "m", "input", 1, 0).percent == 100
    assert Difference(DAY, "m", "input", 0, 0).percent == 0


def test_a_tolerance_is_a_share_and_for_money_an_amount() -> None:
    """At the limit is within; a cent of rounding is no difference in money, but a token is one."""
    allowed = Tolerance(Decimal(1), Decimal("0.01"))
    assert not Difference(DAY, "m", "input", 99, 100).beyond(allowed)
    assert Difference(DAY, "m", "input", 98, 100).beyond(allowed)
    cent = 10**10
    assert not Difference(DAY, "m", COST, 0, cent).beyond(allowed)
    assert Difference(DAY, "m", COST, 0, cent + 1).beyond(allowed)
    assert Difference(DAY, "m", COST, 0, 1).beyond(NONE)


def test_a_check_keeps_the_first_offenders() -> None:
    """All are counted, some are named; a missing entry is one."""
    check = Check("x", "says")
    for number in range(5):
        check.hold(Pair(str(number), None, 1, None if number else 1), shown=2)
    assert (check.checked, check.wrong, [pair.what for pair in check.offenders]) == (5, 4, ["1", "2"])


def test_nearest() -> None:
    """A figure within its bounds is what it should be."""
    assert [nearest(found, 3, 5) for found in (2, 3, 4, 5, 6)] == [3, 3, 4, 5, 5]
