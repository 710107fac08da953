"""Which price is in force at a moment, what it is called, and how the book keeps it at hand."""

from dataclasses import replace

import pytest

from qlaud_actors.providers.catalog import Catalog, CatalogError
from qlaud_actors.providers.pricing import (
    UNPRICED,
    Dated,
    Override,
    Timeline,
    content_hash,
    in_force,
    named,
    overlaid,
)
from qlaud_actors.usage import Price, Rates, Tier

FILE = """
slug = "acme"
display_name = "Acme"
wire = "openai"
base_url = "https://api.acme.test/v1"
auth_header = "authorization"
api_key_env = "ACME_API_KEY"
base_url_env = "ACME_BASE_URL"

[[models]]
slug = "acme-1"
display_name = "Acme 1"
context_window = 100_000
max_output_tokens = 8_000
capabilities = ["streaming"]
price = { input = 1_000_000, output = 5_000_000 }
source = "https://acme.test/prices"
checked = 2026-11-01
scheduled = [
    {from = 2026-12-01, price = {input = 2_000_000, output = 6_000_000}, source = "n", checked = 2026-11-20},
    {from = 2027-01-01, price = {input = 3_000_000, output = 7_000_000}, source = "n", checked = 2026-11-20},
]
"""
DECEMBER, JANUARY = 1_796_083_200_000, 1_798_761_600_000


def price(input_picos: int) -> Price:
    return Price(Rates(input_picos, 5, 5, 5, 5), (), f"v{input_picos}")


def line(*entries: tuple[int, int]) -> Timeline:
    return tuple(Dated(begins, price(picos), "file", "2026-11-24") for begins, picos in entries)


def override(begins: int, picos: int | None) -> Override:
    return Override("p", "m", begins, price(picos) if picos else None, "api", "2026-11-24")


def told(timeline: Timeline) -> list[tuple[int, int, bool]]:
    return [(dated.begins_ms, dated.price.rates.input, dated.overridden) for dated in timeline]


class Clock:
    """A clock that stands where it is put."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        """Where it stands."""
        return self.now_ms


def test_the_price_that_began_last_counts() -> None:
    """From its first millisecond on, and the first price before any of them."""
    timeline = line((0, 1), (100, 2), (200, 3))
    moments = (-5, 0, 99, 100, 199, 200, 9_999)
    assert [in_force(timeline, at).price.rates.input for at in moments] == [1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [(0, 1, False), (100, 2, False)]),
        ([(50, 7)], [(0, 1, False), (50, 7, True)]),
        ([(150, 7)], [(0, 1, False), (100, 2, False), (150, 7, True)]),
        ([(150, 7), (50, 8)], [(0, 1, False), (50, 8, True), (150, 7, True)]),
        ([(50, 7), (50, 8)], [(0, 1, False), (50, 8, True)]),
        ([(50, 7), (60, None)], [(0, 1, False), (50, 7, True), (60, 1, False), (100, 2, False)]),
        ([(50, 7), (120, None)], [(0, 1, False), (50, 7, True), (120, 2, False)]),
        ([(50, 7), (150, 8), (60, None)], [(0, 1, False), (50, 7, True), (60, 1, False), (100, 2, False)]),
        ([(50, 7), (60, None), (80, 9)], [(0, 1, False), (50, 7, True), (60, 1, False), (80, 9, True)]),
    ],
)
def test_overrides_lie_over_the_files(
    overrides: list[tuple[int, int | None]], expected: list[tuple[int, int, bool]]
) -> None:
    """An override counts until another one; its end takes back later ones and lets the files speak again."""
    laid = overlaid(line((0, 1), (100, 2)), [override(*one) for one in overrides])
    assert told(laid) == expected


def test_a_name_has_a_hash_of_every_figure() -> None:
    """Whatever number is edited, the name is another one; what is empty does not count."""
    tier = Tier(9, Rates(1, 1, 1, 1, 1))
    base = Price(Rates(1, 2, 3, 4, 5), (tier,), "", per_call=6)
    edited = [
        replace(base, rates=Rates(*(n + (i == j) for j, n in enumerate((1, 2, 3, 4, 5))))) for i in range(5)
    ]
    edited += [
        replace(base, per_call=7),
        replace(base, tiers=()),
        replace(base, tiers=(replace(tier, above_input_tokens=10),)),
        replace(base, tiers=(replace(tier, rates=Rates(1, 1, 1, 1, 2)),)),
    ]
    assert len({content_hash(one) for one in (base, *edited)}) == len(edited) + 1
    assert content_hash(replace(base, version="x")) == content_hash(base)
    assert named(base, "acme", "a/b", "2026-11-24").version == f"acme/a/b@2026-11-24#{content_hash(base)}"


def test_a_catalogue_changes_over_by_itself() -> None:
    """At the announced moment every look-up gives the next price, and the order of hosts follows it."""
    rival = FILE.replace('"acme"', '"rival"').replace('"Acme"', '"Rival"').replace("ACME_", "RIVAL_")
    rival = rival[: rival.index("scheduled")].replace("output = 5_000_000", "output = 5_500_000")
    clock = Clock(DECEMBER - 1)
    catalog = Catalog.load({}, {"acme.toml": FILE, "rival.toml": rival}, clock=clock)
    before = catalog.resolve("acme-1")
    assert (before.provider.slug, before.price.rates.input, before.checked) == (
        "acme",
        1_000_000,
        "2026-11-01",
    )
    clock.now_ms = DECEMBER
    assert [(m.provider.slug, m.price.rates.input) for m in catalog.hosts("acme-1")] == [
        ("rival", 1_000_000),
        ("acme", 2_000_000),
    ]
    acme = catalog.hosts("acme-1")[1]
    assert (acme.source, acme.price.version.partition("#")[0]) == ("n", "acme/acme-1@2026-12-01")
    clock.now_ms = JANUARY + 5
    assert catalog.hosts("acme-1")[1].price.rates.output == 7_000_000
    assert before.price.rates.input == 1_000_000, "who looked earlier keeps what was held for"


def test_a_book_takes_overrides_of_what_it_has() -> None:
    """The model changes at its provider alone; overrides of models that are gone are passed over."""
    clock = Clock(1_000)
    catalog = Catalog.load({}, {"acme.toml": FILE}, clock=clock)
    catalog.prices.take([Override("acme", "acme-1", 2_000, price(9), "api", "d"), override(2_000, 8)])
    assert catalog.resolve("acme-1").price.rates.input == 1_000_000
    clock.now_ms = 2_000
    assert catalog.resolve("ACME-1").price == price(9)
    assert catalog.models()[0].price == price(9)
    assert catalog.prices.timeline("p", "m") is None
    clock.now_ms = JANUARY
    assert catalog.resolve("acme-1").price == price(9), "an override is not ended by what files announce"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("from = 2027-01-01", "from = 2026-12-01", "ascend by `from`"),
        ("from = 2027-01-01", "from = 2026-11-30", "ascend by `from`"),
        ("from = 2027-01-01, ", "", "missing required field `from`"),
        ("from = 2027-01-01", 'from = "soon"', "date"),
        ("price = {input = 3_000_000, output = 7_000_000}, ", "", "needs a price"),
        ("price = { input = 1_000_000, output = 5_000_000 }", "per_call = 1", "need a price"),
    ],
)
def test_a_bad_schedule_is_refused_in_words(old: str, new: str, words: str) -> None:
    """Announced prices are whole, and in order."""
    assert old in FILE
    with pytest.raises(CatalogError, match=words):
        Catalog.load({}, {"acme.toml": FILE.replace(old, new)})


def test_a_row_without_a_price_is_unpriced() -> None:
    """It is offered and says so; a price that is announced for it counts from its day on."""
    clock = Clock(DECEMBER - 1)
    bare = FILE.replace("price = { input = 1_000_000, output = 5_000_000 }\n", "")
    catalog = Catalog.load({}, {"acme.toml": bare}, clock=clock)
    model = catalog.resolve("acme-1")
    assert (model.priced, model.price) == (False, UNPRICED)
    clock.now_ms = DECEMBER
    assert catalog.resolve("acme-1").priced
