"""Who is asked for a model, in which order."""

import pytest

from qlaud_actors.errors import PriceUnknown, ScopeMissing, UnknownModel
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.routing import candidates

PROVIDER = """
slug = "{slug}"
display_name = "{slug}"
wire = "openai"
base_url = "https://{slug}.test/v1"
auth_header = "authorization"
api_key_env = "{env}_API_KEY"
base_url_env = "{env}_BASE_URL"
"""
ROW = """
[[models]]
slug = "{slug}"
display_name = "{slug}"
context_window = 1_000
max_output_tokens = 100
capabilities = []
price = {{ input = {price}, output = {price} }}
fallbacks = {fallbacks}
source = "s"
checked = 2026-11-24
"""


def provider(slug: str, **models: tuple[int, list[str]]) -> str:
    """A file: models by name with price and fallbacks."""
    rows = [ROW.format(slug=name, price=p, fallbacks=f) for name, (p, f) in models.items()]
    return PROVIDER.format(slug=slug, env=slug.upper()) + "".join(rows)


SOURCES = {
    "a.toml": provider("a", big=(9, ["small"]), small=(1, [])),
    "b.toml": provider("b", big=(5, ["other", "small"])),
    "c.toml": provider("c", big=(7, []), other=(2, [])),
    "s.toml": provider("s", scripted=(1, [])).replace("https://s.test/v1", ""),
}
SOURCES["s.toml"] = SOURCES["s.toml"].replace('slug = "s"\n', 'slug = "s"\non_request = true\n', 1)
KEYS = {f"{name}_API_KEY": "k" for name in "ABC"}


def everyone(model: Model) -> bool:
    """Nobody is ill."""
    return bool(model)


def named(models: tuple[Model, ...]) -> list[str]:
    """`provider/model` of each."""
    return [f"{model.provider.slug}/{model.slug}" for model in models]


@pytest.fixture
def catalog() -> Catalog:
    """Three hosts of one model, and what it may fall back to."""
    return Catalog.load(KEYS, SOURCES)


def test_hosts_by_price_then_fallbacks_in_order(catalog: Catalog) -> None:
    """The catalogue's fallbacks are those of all hosts, each once."""
    assert named(candidates(catalog, "big", everyone)) == ["b/big", "c/big", "a/big", "c/other", "a/small"]


def test_the_ill_come_last_and_are_not_left_out(catalog: Catalog) -> None:
    """Among themselves they keep the order."""
    found = candidates(catalog, "big", lambda model: model.provider.slug == "a")
    assert named(found) == ["a/big", "a/small", "b/big", "c/big", "c/other"]


def test_only_the_configured_are_asked() -> None:
    """When nobody is, the best host is named, so that its missing key can be."""
    assert named(candidates(Catalog.load({"A_API_KEY": "k"}, SOURCES), "big", everyone)) == [
        "a/big",
        "a/small",
    ]
    assert named(candidates(Catalog.load({}, SOURCES), "big", everyone)) == ["b/big"]


def test_a_request_may_bring_its_own_fallbacks(catalog: Catalog) -> None:
    """They replace the catalogue's, also by none; an unknown one is refused, a repeated one asked once."""
    assert named(candidates(catalog, "small", everyone, ["other", "small"])) == ["a/small", "c/other"]
    assert named(candidates(catalog, "big", everyone, [])) == ["b/big", "c/big", "a/big"]
    with pytest.raises(UnknownModel):
        candidates(catalog, "big", everyone, ["nope"])


def test_a_fallback_that_is_not_on_offer_is_passed_over() -> None:
    """A catalogue may name a model that is there only on request."""
    sources = {**SOURCES, "d.toml": provider("d", mine=(1, ["scripted", "small"]))}
    catalog = Catalog.load({**KEYS, "D_API_KEY": "k"}, sources)
    assert named(candidates(catalog, "mine", everyone)) == ["d/mine", "a/small"]


def test_a_key_reaches_only_what_it_may_use(catalog: Catalog) -> None:
    """No fallback leads around an allow-list, and the model that was asked for must be on it."""
    found = candidates(catalog, "big", everyone, allowed=lambda slug: slug in ("big", "small"))
    assert named(found) == ["b/big", "c/big", "a/big", "a/small"]
    with pytest.raises(ScopeMissing):
        candidates(catalog, "big", everyone, allowed=lambda slug: slug == "small")


def test_an_unpriced_host_is_asked_where_no_other_is() -> None:
    """Failing over from a price to none is not possible; a limited key is never led there."""
    row = ROW.format(slug="small", price=0, fallbacks=[]).replace("price = { input = 0, output = 0 }\n", "")
    own = row.replace("small", "mine").replace("fallbacks = []", 'fallbacks = ["other"]')
    sources = {**SOURCES, "d.toml": provider("d") + row + own}
    catalog = Catalog.load({**KEYS, "D_API_KEY": "k"}, sources)
    assert named(candidates(catalog, "small", everyone)) == ["a/small"]
    assert named(candidates(catalog, "mine", everyone)) == ["d/mine", "c/other"]
    alone = Catalog.load({"D_API_KEY": "k"}, sources)
    assert named(candidates(alone, "small", everyone)) == ["d/small"]
    for slug, found in (("mine", catalog), ("small", alone)):
        with pytest.raises(PriceUnknown) as refused:
            candidates(found, slug, everyone, limited=True)
        assert (refused.value.status, refused.value.code) == (400, "price_unknown")
    assert named(candidates(catalog, "other", everyone, ["mine"], limited=True)) == ["c/other"]
    assert named(candidates(catalog, "small", everyone, ["mine"], limited=True)) == ["a/small"]
