"""Providers' usage exports, read into our buckets."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from qlaud_actors.reconcile import anthropic_export, openai_export
from qlaud_actors.reconcile.exports import Export, ExportError, Line, picos, read_with
from qlaud_actors.reconcile.generic_export import parse_mapping, reader

DATA = Path(__file__).parents[2] / "data" / "exports"
DAY = date(2026, 11, 20)
GPT, HAIKU = "gpt-5.4-2026-03-05", "claude-haiku-4-5-20251001"
HAIKU_TOKENS = {
    "input": 2_000,
    "output": 900,
    "cache_read": 700,
    "cache_write_5m": 300,
    "cache_write_1h": 40,
}


def said(read: Callable[[Any], Export], *names: str) -> Export:
    """What files of the data folder say."""
    return read_with(read, [DATA / name for name in names])


def test_openai_usage_of_the_api() -> None:
    """Input comes apart into fresh, read and written; embeddings have no output; empty days count."""
    export = said(openai_export.read, "openai_usage.json")
    tokens = {"input": 4_000, "cache_read": 4_000, "cache_write_5m": 1_000, "output": 1_200, "requests": 7}
    embedded = {"input": 500, "cache_read": 0, "cache_write_5m": 0, "output": 0, "requests": 2}
    assert export.lines == [Line(DAY, GPT, tokens), Line(DAY, "text-embedding-3-large", embedded)]
    assert (export.since, export.until) == (DAY, date(2026, 11, 22))


def test_openai_costs_of_the_api() -> None:
    """A line item names its model in front of the comma; other items keep their own words."""
    export = said(openai_export.read, "openai_costs.json")
    assert export.lines == [
        Line(DAY, GPT, {"cost_picos": 12_500_000_000}),
        Line(DAY, GPT, {"cost_picos": 1_000_000_001}),
        Line(DAY, "web search tool calls", {"cost_picos": 30_000_000_000}),
    ]


def test_openai_files_of_the_dashboard() -> None:
    """With commas or tabs; a row of nothing but times says that nothing was used."""
    usage = said(openai_export.read, "openai_usage.csv")
    tokens = {"input": 5_000, "cache_read": 4_000, "cache_write_5m": 0, "output": 1_200, "requests": 7}
    assert usage.lines == [Line(DAY, GPT, tokens)]
    costs = said(openai_export.read, "openai_costs.csv")
    assert costs.lines == [Line(DAY, None, {"cost_picos": 43_500_000_000})]
    assert usage.until == costs.until == date(2026, 11, 22)


def test_anthropic_of_the_api() -> None:
    """Buckets are ours already; amounts are cents; what is not tokens is named by its kind."""
    usage = said(anthropic_export.read, "anthropic_usage.json")
    assert usage.lines == [Line(DAY, HAIKU, HAIKU_TOKENS)]
    assert (usage.since, usage.until) == (DAY, date(2026, 11, 22))
    costs = said(anthropic_export.read, "anthropic_costs.json")
    assert [(line.model, line.figures["cost_picos"]) for line in costs.lines] == [
        (HAIKU, 2_000_000_000),
        (HAIKU, 4_500_000_000),
        ("web_search", 10_000_000_000),
    ]


def test_anthropic_files_of_the_console() -> None:
    """Usage by exact names, costs in dollars by display names; several files are one export."""
    export = said(anthropic_export.read, "anthropic_usage.csv", "anthropic_costs.csv")
    assert export.lines == [
        Line(DAY, HAIKU, HAIKU_TOKENS),
        Line(DAY, "Claude Haiku 4.5", {"cost_picos": 10_000_000_000}),
        Line(DAY, "Claude Haiku 4.5", {"cost_picos": 20_000_000_000}),
    ]


def test_any_other_csv() -> None:
    """Columns by the caller's names; what a cell leaves empty is not said; times become UTC days."""
    names = parse_mapping(
        "day=date,model=model name,input_total=prompt_tokens,cache_read=cached,output=completion_tokens,"
        "cost_usd=spend"
    )
    export = said(reader(names), "generic.csv")
    assert export.lines == [
        Line(
            DAY,
            "mistral-medium-3",
            {"input": 1_000, "cache_read": 500, "output": 250, "cost_picos": 1_100_000_000},
        ),
        Line(DAY, "mistral-medium-3", {"input": 10}),
    ]


WRONG: list[tuple[str, Callable[[Any], Export], str]] = [
    ("{", openai_export.read, "not valid JSON"),
    ("[" * 100_000, openai_export.read, "not valid JSON"),
    ('{"data": 5}', openai_export.read, "has a list `data`"),
    ('{"data": [{}]}', openai_export.read, "KeyError"),
    ('{"data": [], "has_more": true}', openai_export.read, "has_more"),
    ("a,b\n1,2\n", openai_export.read, "no column start_time"),
    ("start_time,end_time,input_tokens\n1,2,-5\n", openai_export.read, "not a count"),
    ("start_time,end_time,input_tokens\n1,2,1.5\n", openai_export.read, "not a count"),
    ("start_time,end_time,amount_value,amount_currency\n1,2,5,eur\n", openai_export.read, "not in usd"),
    ("start_time,end_time,amount_value,amount_currency\n1,2,NaN,usd\n", openai_export.read, "not an amount"),
    ("a,b\n1,2\n", anthropic_export.read, "KeyError"),
    ("usage_date_utc,model,cost_usd\nyesterday,m,1\n", anthropic_export.read, "ValueError"),
    ("a,b\n1,2\n", reader(parse_mapping("")), "no column 'day'"),
    ("day,model\n2026-11-20,m\n", reader(parse_mapping("")), "without any figure"),
    ("\xff", openai_export.read, "cannot be read"),
]


@pytest.mark.parametrize(("text", "read", "reason"), WRONG)
def test_what_is_no_export_is_refused_by_name(
    text: str, read: Callable[[Any], Export], reason: str, tmp_path: Path
) -> None:
    """One sentence that names the file or says what is missing."""
    path = tmp_path / "export"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ExportError, match=reason):
        read_with(read, [path])


@pytest.mark.parametrize("mapping", ["x=y", "day", "day=", "=date"])
def test_a_mapping_names_columns(mapping: str) -> None:
    """Only known meanings, each with a column."""
    with pytest.raises(ExportError, match="the mapping"):
        parse_mapping(mapping)


def test_money_is_exact() -> None:
    """No binary fraction on the way from the file to pico-USD."""
    assert picos("0.1") + picos("0.2") == picos("0.3") == 300_000_000_000
