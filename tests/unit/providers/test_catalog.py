"""The catalogue of providers and models, and what is refused in it."""

import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from qlaud_actors.errors import UnknownModel
from qlaud_actors.providers.catalog import Catalog, CatalogError, packaged, parse
from qlaud_actors.usage import Rates, Usage, WorstCase

GOOD = """
slug = "acme"
display_name = "Acme"
wire = "openai"
base_url = "https://api.acme.test/v1"
auth_header = "authorization"
api_key_env = "ACME_API_KEY"
base_url_env = "ACME_BASE_URL"

[[models]]
slug = "acme-1"
aliases = ["acme-latest"]
display_name = "Acme 1"
context_window = 100_000
max_output_tokens = 8_000
capabilities = ["streaming"]
price = { input = 1_000_000, output = 5_000_000 }
source = "https://acme.test/prices"
checked = 2026-11-01
"""

TIER = "{ above_input_tokens = 9, input = 1, output = 1 }"

SERVED = [
    *("claude-opus-4-7", "claude-sonnet-4-6", "claude-haiku-4-5", "gpt-5.4", "gpt-5.4-mini", "gpt-5"),
    *("gpt-4o-mini", "gpt-4.1-mini", "grok-4.20-0309-reasoning", "deepseek-chat", "deepseek-reasoner"),
    *("kimi-k2.6", "qwen-coder-plus", "gemini-3-pro-preview", "gemini-2.5-flash", "mistral-medium-3"),
    "MiniMax-M2",
]


@pytest.mark.parametrize("name", packaged())
def test_every_file_is_valid_and_plausible(name: str) -> None:
    """Each packaged file parses; reading costs no more than writing, and cached input no more than fresh."""
    file = parse(name, packaged()[name])
    assert file.slug == name.removesuffix(".toml")
    for row in file.models:
        assert row.source
        if row.task != "text-generation":
            assert row.price.input or row.units
            continue
        for rates in (row.price.rates(), *(tier.rates() for tier in row.tiers)):
            assert 0 < rates.cache_read <= rates.input <= rates.output
            assert rates.input <= rates.cache_write_5m <= rates.cache_write_1h
        dearest = [rates.rates().input for rates in (row.price, *row.tiers)]
        assert dearest == sorted(dearest), "a longer input is never cheaper"


def test_anthropic_cache_writes_follow_its_rule() -> None:
    """Anthropic bills five-minute cache writes at 1.25 and one-hour writes at 2 times fresh input."""
    for row in parse("anthropic.toml", packaged()["anthropic.toml"]).models:
        for rates in (row.price.rates(), *(tier.rates() for tier in row.tiers)):
            assert rates.cache_write_5m * 4 == rates.input * 5
            assert rates.cache_write_1h == rates.input * 2


@pytest.mark.parametrize("slug", SERVED)
def test_models_that_clients_name_are_served(slug: str) -> None:
    """Every text model of the hosted product's clients resolves, spelled in any case."""
    catalog = Catalog.load({})
    assert catalog.resolve(slug).slug == slug
    assert catalog.resolve(slug.upper()) is catalog.resolve(slug)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('slug = "acme"', 'slug = "acme"\ncolour = "red"', "unknown field `colour`"),
        ('source = "https', 'sauce = "https', "unknown field `sauce`"),
        ("output = 5_000_000", "output = 5_000_000, per = 1", "unknown field `per`"),
        ("input = 1_000_000", "input = 1_000_000.0", "got `float`"),
        ("input = 1_000_000", "input = true", "got `bool`"),
        ("input = 1_000_000", "input = -1", ">= 0"),
        ("input = 1_000_000", "input = 1_000_000_001", "<= 1000000000"),
        ("input = 1_000_000, ", "", "missing required field `input`"),
        ('source = "https://acme.test/prices"', "", "missing required field `source`"),
        ('source = "https://acme.test/prices"', 'source = ""', "length >= 1"),
        ("checked = 2026-11-01", "", "missing required field `checked`"),
        ("checked = 2026-11-01", 'checked = "lately"', "Expected `date`"),
        ('wire = "openai"', 'wire = "telepathy"', "unknown wire `telepathy`"),
        ("https://api.acme.test/v1", "http://api.acme.test/v1", "https URL"),
        ("https://api.acme.test/v1", "https:///v1", "https URL"),
        ("https://api.acme.test/v1", "", "https URL"),
        ('auth_header = "authorization"', 'auth_header = "cookie"', "auth_header"),
        ('"ACME_API_KEY"', '"ACME_SECRET"', "api_key_env"),
        ("max_output_tokens = 8_000", "max_output_tokens = 100_001", "larger than the context window"),
        ("context_window = 100_000", "context_window = 0", ">= 1"),
        ('["streaming"]', '["juggling"]', "juggling"),
        ('slug = "acme-1"', 'slug = "acme 1"', "slug"),
        ("source =", f"tiers = [{TIER}, {TIER}]\nsource =", "ascend"),
        ("[[models]]", "[models]", "models"),
        ('display_name = "Acme"', "display_name =", "Invalid value"),
    ],
)
def test_a_bad_file_is_refused_in_words(old: str, new: str, words: str) -> None:
    """A mistake in a file stops the start with the file's name and what is wrong."""
    assert old in GOOD
    with pytest.raises(CatalogError, match=rf"^acme\.toml: .*{re.escape(words)}"):
        parse("acme.toml", GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (GOOD.replace("acme-1", "other").replace("acme-latest", "other-2"), "provider acme is already in a"),
        (GOOD.replace('"acme"', '"else"').replace("acme-1", "ACME-1"), "model ACME-1 is already in a"),
        (
            GOOD.replace('"acme"', '"else"').replace("acme-1", "ACME-LATEST"),
            "model ACME-LATEST is already in a",
        ),
    ],
)
def test_names_are_unique_across_files(second: str, words: str) -> None:
    """Two files may not share a provider, nor may one name stand for two models, in any case of letters."""
    with pytest.raises(CatalogError, match=rf"^b\.toml: {re.escape(words)}"):
        Catalog.load({}, {"a.toml": GOOD, "b.toml": second})


def hosts(directory: Path, own: str, *also: str) -> Catalog:
    """The catalogue of GOOD and of an operator's folder with these files."""
    for number, text in enumerate((own, *also)):
        (directory / f"{number}.toml").write_text(text)
    return Catalog.load({"ACME_API_KEY": "k"}, {"acme.toml": GOOD}, directory)


RIVAL = (
    GOOD.replace('"acme"', '"rival"')
    .replace('"Acme"', '"Rival"')
    .replace("ACME_", "RIVAL_")
    .replace("acme-latest", "rival/acme-1")
)


def test_a_model_in_two_files_has_two_hosts() -> None:
    """The configured host comes first, then the cheaper, then the author's own; each keeps its price."""
    cheap = RIVAL.replace("output = 5_000_000", "output = 4_000_000")
    sources = {"acme.toml": GOOD, "rival.toml": cheap}
    catalog = Catalog.load({"ACME_API_KEY": "k", "RIVAL_API_KEY": "k"}, sources)
    assert [m.provider.slug for m in catalog.hosts("rival/acme-1")] == ["rival", "acme"]
    assert catalog.resolve("acme-latest").price.version.startswith("rival/acme-1@2026-11-01#")
    assert Catalog.load({"ACME_API_KEY": "k"}, sources).resolve("acme-1").provider.slug == "acme"
    (offered,) = catalog.models()
    assert offered.provider.slug == "rival"
    equal = RIVAL.replace("source", 'author = "Acme"\nsource')
    first = Catalog.load({}, {"a.toml": equal, "b.toml": GOOD}).resolve("acme-1")
    assert first.provider.slug == "acme"


def test_a_file_of_the_operator_changes_what_it_names(tmp_path: Path) -> None:
    """Fields and models that it leaves out stay; what it changes is logged; http is its right."""
    own = """
        slug = "acme"
        base_url = "http://10.0.0.5/v1"
        [[models]]
        slug = "acme-1"
        price = { input = 7, output = 8 }
        source = "our contract"
        checked = 2026-11-24
        """
    new = RIVAL.replace("acme-1", "rival-1").replace("https", "http", 1).replace("rival/rival-1", "r-1")
    with capture_logs() as logs:
        catalog = hosts(tmp_path, own, new)
    model = catalog.resolve("acme-latest")
    assert (model.price.rates.input, model.price.version) == (7, "acme/acme-1@2026-11-24#bf53fb79")
    assert (model.context_window, model.display_name) == (100_000, "Acme 1")
    assert model.provider.base_url == "http://10.0.0.5/v1"
    assert catalog.resolve("rival-1").provider.slug == "rival"
    told = [(line["provider"], line["over"], line["models"]) for line in logs]
    assert told == [("acme", "acme.toml", ["acme-1"]), ("rival", None, ["rival-1"])]


def test_surfaces_are_the_providers_or_the_models_own(tmp_path: Path) -> None:
    """A dialect beside the wire is said once for a provider, or otherwise for one of its models."""
    offering = GOOD.replace('wire = "openai"', 'wire = "openai"\nsurfaces = ["responses"]')
    assert Catalog.load({}, {"acme.toml": GOOD}).resolve("acme-1").surfaces == ()
    assert Catalog.load({}, {"acme.toml": offering}).resolve("acme-1").surfaces == ("responses",)
    (tmp_path / "own.toml").write_text('slug = "acme"\n[[models]]\nslug = "acme-1"\nsurfaces = []')
    assert Catalog.load({}, {"acme.toml": offering}, tmp_path).resolve("acme-1").surfaces == ()
    with pytest.raises(CatalogError, match="surfaces"):
        parse("acme.toml", offering.replace("responses", "telepathy"))


def test_a_self_hosted_server_is_a_url_and_a_file(tmp_path: Path) -> None:
    """Whoever names models for it gets them, without a key, where the file or the environment says."""
    row = GOOD[GOOD.index("[[models]]") :].replace("acme-1", "llama").replace("1_000_000", "0")
    (tmp_path / "mine.toml").write_text(f'slug = "selfhosted"\n{row}')
    url = "http://127.0.0.1:11434/v1"
    model = Catalog.load({"SELFHOSTED_BASE_URL": url}, None, tmp_path).resolve("llama")
    assert (model.provider.base_url, model.price.rates.input) == (url, 0)
    assert "llama" not in {m.slug for m in Catalog.load({}, None, tmp_path).models()}
    (tmp_path / "mine.toml").write_text(f'slug = "selfhosted"\nbase_url = "{url}"\n{row}')
    catalog = Catalog.load({}, None, tmp_path)
    assert catalog.configured(catalog.resolve("llama").provider)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("slug =", "Invalid value"),
        ('slug = "new"', "missing required field"),
        ('slug = "acme"\ncolour = 1', "unknown field `colour`"),
        ('slug = "acme"\n[[models]]\nslug = "acme-1"\nprice = {input = 1, output = 1}', "`source`"),
        ('slug = "acme"\n[[models]]\nslug = "acme-1"\nfallbacks = ["nope"]', "no model nope"),
        ('slug = "acme"\nmodels = 3', "models"),
    ],
)
def test_a_bad_file_of_the_operator_is_named(tmp_path: Path, own: str, words: str) -> None:
    """A mistake there stops the start as well, with its path; a price without its source is one."""
    with pytest.raises(CatalogError, match=f"0.toml: .*{re.escape(words)}"):
        hosts(tmp_path, own)


def test_a_call_may_have_a_price_of_its_own() -> None:
    """A fee per call is in the hold, in the charge, and in what the money affords."""
    fee = Catalog.load({}, {"a.toml": GOOD.replace("source =", "per_call = 1_000_000_000\nsource =")})
    price = fee.resolve("acme-1").price
    assert price.cost_picos(Usage(input=1, output=1)) == 1_006_000_000
    worst = WorstCase(price, 1, 1, 0)
    assert worst.nanos() == 1_006_000
    assert worst.with_max_tokens(9).affordable_tokens(1_006_000) == 1
    assert worst.affordable_tokens(1_000_000) == 0


def test_azure_costs_what_openai_costs() -> None:
    """Both have the same models at the same price; whoever names a resource of theirs gets them there."""
    catalog = Catalog.load({"AZURE_OPENAI_BASE_URL": "https://r.openai.azure.com/openai/v1"})
    for model in catalog.models():
        by = {host.provider.slug: host for host in catalog.hosts(model.slug)}
        if "azure" in by:
            assert (by["azure"].price.rates, by["azure"].price.tiers) == (
                by["openai"].price.rates,
                by["openai"].price.tiers,
            )
    assert catalog.resolve("gpt-5.4").provider.slug == "azure"
    assert "azure" not in {host.provider.slug for host in Catalog.load({}).hosts("gpt-5.4")}


def test_omitted_buckets_cost_what_the_next_dearer_one_costs() -> None:
    """Cached input and cache writes without a price of their own are billed like fresh input."""
    model = Catalog.load({}, {"acme.toml": GOOD}).resolve("acme-latest")
    assert model.price.rates == Rates(1_000_000, 5_000_000, 1_000_000, 1_000_000, 1_000_000)
    assert (model.upstream, model.author) == ("acme-1", "Acme")
    assert model.price.version == "acme/acme-1@2026-11-01#5a0d0ccd"


def test_an_unknown_model_is_named_and_cut() -> None:
    """Asking for what is not there answers 404 with the name, however long it was."""
    with pytest.raises(UnknownModel, match=r"no model 'nope'") as short:
        Catalog.load({}).resolve("nope")
    assert short.value.status == 404
    with pytest.raises(UnknownModel) as long:
        Catalog.load({}).resolve("x" * 100_000)
    assert len(long.value.message) < 150


def test_keys_and_addresses_come_from_the_environment() -> None:
    """A key configures its provider, and so does an address of the operator's own; keys stay hidden."""
    sources = {"acme.toml": GOOD}
    bare = Catalog.load({"ACME_API_KEY": " ", "ACME_BASE_URL": ""}, sources)
    acme = bare.providers()[0]
    assert not bare.configured(acme)
    assert bare.credentials(acme) is None

    keyed = Catalog.load({"ACME_API_KEY": "sk-very-secret"}, sources)
    key = keyed.credentials(acme)
    assert key is not None
    assert key.reveal() == "sk-very-secret"
    assert keyed.configured(acme)
    assert "sk-very-secret" not in repr(keyed)

    moved = Catalog.load({"ACME_BASE_URL": "http://127.0.0.1:9/v1/"}, sources)
    assert moved.resolve("acme-1").provider.base_url == "http://127.0.0.1:9/v1"
    assert moved.configured(moved.providers()[0])


@pytest.mark.parametrize(
    "environ",
    [
        {"ACME_BASE_URL": "ftp://acme.test"},
        {"ACME_BASE_URL": "acme.test"},
        {"ACME_BASE_URL": "http://acme.test:port"},
        {"ACME_API_KEY": "sk-first\nsk-second"},
        {"ACME_API_KEY": "sk-ключ"},
    ],
)
def test_a_bad_variable_is_named_without_its_value(environ: dict[str, str]) -> None:
    """An address or key that cannot be used stops the start with the variable's name alone."""
    ((name, value),) = environ.items()
    with pytest.raises(CatalogError, match=name) as refused:
        Catalog.load(environ, {"acme.toml": GOOD})
    assert value not in str(refused.value)


def test_the_scripted_models_are_offered_only_on_request() -> None:
    """Nobody gets a scripted answer by accident: those models exist only where their address is set."""
    offered = {model.slug for model in Catalog.load({}).models()}
    assert "claude-haiku-4-5" in offered
    assert not {"scripted-claude", "scripted-gpt"} & offered
    with pytest.raises(UnknownModel):
        Catalog.load({}).resolve("scripted-claude")

    catalog = Catalog.load(
        {"SCRIPTED_BASE_URL": "http://127.0.0.1:1", "SCRIPTED_OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    )
    for slug, like in (("scripted-claude", "claude-haiku-4-5"), ("scripted-gpt", "gpt-5.4-mini")):
        model = catalog.resolve(slug)
        assert catalog.configured(model.provider)
        assert model.price.rates == catalog.resolve(like).price.rates
