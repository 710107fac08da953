"""Our prices beside those of other tables, and taking them over."""

import datetime as dt
import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qlaud_actors.prices import compare, genai
from qlaud_actors.prices.apply import write_files
from qlaud_actors.prices.compare import SOURCE, Difference
from qlaud_actors.prices.genai import Listed, UnreadableTable
from qlaud_actors.prices.spelling import Theirs, operator_file, price_lines
from qlaud_actors.providers.catalog import Catalog, CatalogError, packaged, parse
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.price_rows import PriceRow, ScheduledRow

EXTRACT = Path(__file__).parents[2] / "data" / "genai_prices.json"
TABLE = genai.from_json(EXTRACT)
TODAY = dt.date(2026, 11, 24)
"""When the extract was made."""


def all_models() -> list[Model]:
    """Every packaged model at every provider, as the files have it."""
    files = [parse(name, text) for name, text in packaged().items()]
    return [row.model(file.provider()) for file in files for row in file.models]


def listed(folder: Path, *entries: dict[str, Any]) -> Listed:
    """A model with these entries, as it is read."""
    path = folder / "data.json"
    path.write_text(json.dumps([{"id": "p", "models": [{"id": "m", "prices": list(entries)}]}]))
    return genai.from_json(path).models["p", "m"]


def test_every_packaged_price_is_that_of_its_source() -> None:
    """What a row names as its source says the same, announced prices included, to the pico-dollar."""
    models = [model for model in all_models() if SOURCE.fullmatch(model.source)]
    reference = compare.from_genai(models, TABLE, TODAY)
    assert len(reference) == len(models) > 100, "each of them is in the extract"
    assert compare.table(compare.differences(models, reference)) == ""


def test_batch_prices_are_those_of_the_source() -> None:
    """They are kept for the record, where the source has them."""
    with_batch = 0
    for name, text in packaged().items():
        for row in parse(name, text).models:
            found = SOURCE.fullmatch(row.source)
            if found and row.batch:
                assert TABLE.models[found[2], found[3]].row(TODAY).batch == row.batch
                with_batch += 1
    assert with_batch >= 40


def test_reasoning_is_billed_like_other_output() -> None:
    """No model of ours has a price of its own for thoughts: they are a part of the output."""
    named = [found for model in all_models() if (found := SOURCE.fullmatch(model.source))]
    entries = [entry for found in named for entry in TABLE.models[found[2], found[3]].entries]
    assert [entry for entry in entries if "output_reasoning_mtok" in entry.figures] == []


def test_an_hourly_price_is_taken_at_its_dearest(tmp_path: Path) -> None:
    """A cap must hold at any hour; an interval may cross midnight."""
    night = {"start_time": "16:30:00Z", "end_time": "00:30:00Z"}
    cheap = {"constraint": night, "prices": {"input_mtok": 0.5, "output_mtok": 1}}
    dear = {"prices": {"input_mtok": 1, "output_mtok": 2}}
    row = listed(tmp_path, dear, cheap).row(TODAY)
    assert row.price is not None
    assert (row.price.input, row.price.output) == (1_000_000, 2_000_000)


def test_a_tier_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    """Longer inputs may be dearer while the output, or the cache, costs the same."""
    tiers = [{"start": 9, "price": 2}, {"start": 99, "price": 3}]
    output = {"base": 5, "tiers": [{"start": 99, "price": 6}]}
    figures = {"input_mtok": {"base": 1, "tiers": tiers}, "output_mtok": output, "cache_read_mtok": 0.5}
    row = listed(tmp_path, {"prices": figures}).row(TODAY)
    assert [(tier.above_input_tokens, tier.input, tier.output, tier.cache_read) for tier in row.tiers] == [
        (9, 2_000_000, 5_000_000, 500_000),
        (99, 3_000_000, 6_000_000, 500_000),
    ]


def test_announced_prices_are_scheduled(tmp_path: Path) -> None:
    """Those that begin later, by their day; the one of the day itself is in force."""
    days = ("2026-11-24", "2026-12-01", "2027-01-01")
    entries: list[dict[str, Any]] = [
        {"constraint": {"start_date": day}, "prices": {"input_mtok": number, "output_mtok": 9}}
        for number, day in enumerate(days, start=2)
    ]
    found = listed(tmp_path, {"prices": {"input_mtok": 1, "output_mtok": 2}}, *entries)
    price = found.row(TODAY).price
    assert price is not None
    assert price.input == 2_000_000
    announced = found.scheduled(TODAY, "s")
    assert [(row.begins.isoformat(), row.price and row.price.input) for row in announced] == [
        ("2026-12-01", 3_000_000),
        ("2027-01-01", 4_000_000),
    ]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"id": "p"}]', '[{"id": "p", "models": [{"id": "m"}]}]'])
def test_another_form_is_refused_in_words(tmp_path: Path, text: str) -> None:
    """Whatever is no table of genai-prices is named."""
    path = tmp_path / "data.json"
    path.write_text(text)
    if text == "{}":
        assert genai.from_json(path).models == {}
        return
    with pytest.raises(UnreadableTable, match=r"data\.json is not in the form"):
        genai.from_json(path)


def test_figures_must_be_whole_and_in_range(tmp_path: Path) -> None:
    """A part of a pico-dollar, or a thousand dollars, is no price."""
    for usd in (0.0000001, 1_001):
        with pytest.raises(UnreadableTable):
            listed(tmp_path, {"prices": {"input_mtok": usd, "output_mtok": 1}}).row(TODAY)


def edited(model: Model, **price: int) -> Difference:
    """What a table says of a model that has these rates there."""
    row = msgspec.convert({"price": {"input": 1, "output": 1, **price}}, PriceRow)
    theirs = Theirs(row, "the other table", TODAY)
    (found,) = compare.differences([model], {(model.provider.slug, model.slug): theirs})
    return found


def test_differences_are_told_figure_by_figure() -> None:
    """People get a line for each that differs, with doubts; programs get both tables."""
    haiku = next(m for m in all_models() if (m.provider.slug, m.slug) == ("anthropic", "claude-haiku-4-5"))
    one = edited(haiku, input=1_000_000, output=6_000_000, cache_read=2_000_000)
    text = compare.table([one])
    assert text.startswith("anthropic/claude-haiku-4-5  (the other table)\n")
    assert "price.output" in text
    assert "price.input " not in text
    assert "doubtful: reading from the cache costs more than fresh input" in text
    told = compare.difference_object(one)
    assert (told["ours"]["price"]["output"], told["theirs"]["price"]["output"]) == (5_000_000, 6_000_000)


def test_announced_prices_are_taken_over_with_their_day() -> None:
    """Each becomes a step of its own; where only they differ the price in force is not set again."""
    haiku = next(m for m in all_models() if (m.provider.slug, m.slug) == ("anthropic", "claude-haiku-4-5"))
    same = msgspec.convert({"price": msgspec.to_builtins(haiku.price.rates)}, PriceRow)
    dearer = msgspec.convert({"price": {"input": 2_000_000, "output": 9_000_000}}, PriceRow)
    day = dt.date(2027, 1, 1)
    announced = (ScheduledRow(price=dearer.price, begins=day, source="s", checked=TODAY),)
    midnight = 1_798_761_600_000
    for row, moments in ((same, [midnight]), (dearer, [5, midnight])):
        theirs = Theirs(row, "s", TODAY, announced, compare.COVERS)
        (one,) = compare.differences([haiku], {("anthropic", haiku.slug): theirs})
        steps = one.steps(5)
        assert [at for at, _ in steps] == moments
        assert steps[-1][1]["price"]["output"] == 9_000_000
        assert one.steps(midnight)[1:] == []


def test_what_a_table_does_not_know_stays() -> None:
    """A fee per call is no difference to a table that has none."""
    sonar = next(m for m in all_models() if m.provider.slug == "perplexity")
    assert sonar.price.per_call
    row = msgspec.convert({"price": msgspec.to_builtins(sonar.price.rates)}, PriceRow)
    theirs = Theirs(row, "s", TODAY, covers=compare.COVERS)
    assert compare.differences([sonar], {("perplexity", sonar.slug): theirs}) == []


def test_spelled_prices_read_back_the_same() -> None:
    """What is written into a file is what was meant: tiers, batches and announced prices too."""
    for name, text in packaged().items():
        for row in parse(name, text).models:
            fields = {field: getattr(row, field) for field in PriceRow.__struct_fields__}
            theirs = Theirs(PriceRow(**fields), 'a "source"', TODAY, row.scheduled)
            entry = tomllib.loads("\n".join(price_lines(theirs)))
            assert entry.pop("source") == 'a "source"'
            assert entry.pop("checked") == TODAY
            scheduled = msgspec.convert(entry.pop("scheduled", []), tuple[ScheduledRow, ...])
            assert (msgspec.convert(entry, PriceRow), scheduled) == (theirs.row, row.scheduled)


def test_taking_over_writes_files_that_count(tmp_path: Path) -> None:
    """The operator's folder gets a file for each provider; a second time keeps what the first one wrote."""
    models = {(m.provider.slug, m.slug): m for m in all_models()}
    first, second = (models["anthropic", slug] for slug in ("claude-sonnet-4-5", "claude-haiku-4-5"))
    (path,) = write_files([edited(first, input=7_000_000, output=8_000_000)], tmp_path)
    assert path.name == "prices-anthropic.toml"
    write_files([edited(second, input=9_000_000, output=9_000_000)], tmp_path)
    catalog = Catalog.load({}, directory=tmp_path)
    hosts = {(m.provider.slug, m.slug): m for one in catalog.models() for m in catalog.hosts(one.slug)}
    assert hosts["anthropic", "claude-haiku-4-5"].price.rates.input == 9_000_000
    sonnet = hosts["anthropic", "claude-sonnet-4-5"]
    assert (sonnet.price.rates.output, sonnet.price.tiers) == (8_000_000, ())
    assert sonnet.source == "the other table"


def test_taking_over_is_all_or_nothing(tmp_path: Path) -> None:
    """When the folder does not load with the new prices, it is as it was before."""
    models = {(m.provider.slug, m.slug): m for m in all_models()}
    broken = tmp_path / "zz.toml"
    broken.write_text("slug =")
    with pytest.raises(CatalogError, match="nothing was changed"):
        write_files([edited(models["openai", "gpt-5.4"], output=2)], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zz.toml"]


def test_other_rows_of_an_operators_file_stay() -> None:
    """A file that was written before keeps its other fields of rows."""
    present = 'slug = "p"\n[[models]]\nslug = "a"\nfallbacks = ["b"]\nchecked = 2026-11-01\n'
    row = msgspec.convert({"price": {"input": 1, "output": 1}}, PriceRow)
    data = tomllib.loads(operator_file("p", present, {"c": Theirs(row, "s", TODAY)}))
    assert [entry["slug"] for entry in data["models"]] == ["a", "c"]
    assert data["models"][0] == {"slug": "a", "fallbacks": ["b"], "checked": dt.date(2026, 11, 1)}
