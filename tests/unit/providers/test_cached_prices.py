"""Usage objects as vendors publish them, and what they cost: each token in one bucket, at its price.

The figures are read off the pages that each row names; the costs are worked out by hand beside them, in
micro-USD (tokens x dollars per million tokens).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from qlaud_actors.providers import anthropic, openai_stream
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.usage import Usage


class Golden(NamedTuple):
    """A published usage object, the model whose published price applies, and what comes of both."""

    source: str
    read: Callable[[dict[str, Any]], Usage]
    model: str
    figures: dict[str, Any]
    usage: Usage
    micros: float


PUBLISHED = [
    Golden(
        "platform.claude.com, Prompt caching, 'Tracking cache performance' with 1-hour writes; Sonnet 4.6 at"
        " 3 / 15, read 0.30, written 3.75 and 6: 2048*3 + 1800*0.3 + 148*3.75 + 100*6 + 503*15",
        anthropic.read_usage,
        "claude-sonnet-4-6",
        {
            "input_tokens": 2_048,
            "cache_read_input_tokens": 1_800,
            "cache_creation_input_tokens": 248,
            "output_tokens": 503,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        },
        Usage(2_048, 503, cache_read=1_800, cache_write_5m=148, cache_write_1h=100),
        15_384,
    ),
    Golden(
        "tokenmiser.uk/blog/prompt-caching-basics, one real call ('approximately $0.010'), older servers"
        " without the split: 1*3 + 30433*0.3 + 287*3.75 + 67*15",
        anthropic.read_usage,
        "claude-sonnet-4-6",
        {
            "input_tokens": 1,
            "output_tokens": 67,
            "cache_creation_input_tokens": 287,
            "cache_read_input_tokens": 30_433,
        },
        Usage(1, 67, cache_read=30_433, cache_write_5m=287),
        11_214.15,
    ),
    Golden(
        "the same page's rates on a call over the long-context threshold: Sonnet 4.5 above 200k tokens of"
        " input, cached ones counted, is 6 / 22.50, read 0.60: 1000*6 + 199001*0.6 + 10*22.5",
        anthropic.read_usage,
        "claude-sonnet-4-5",
        {"input_tokens": 1_000, "cache_read_input_tokens": 199_001, "output_tokens": 10},
        Usage(1_000, 10, cache_read=199_001),
        125_625.6,
    ),
    Golden(
        "platform.openai.com/docs/guides/prompt-caching, the guide's usage object; GPT-4o at 2.50 / 10,"
        " cached 1.25: (2006-1920)*2.5 + 1920*1.25 + 300*10",
        openai_stream.read_usage,
        "gpt-4o",
        {
            "prompt_tokens": 2_006,
            "completion_tokens": 300,
            "total_tokens": 2_306,
            "prompt_tokens_details": {"cached_tokens": 1_920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(86, 300, cache_read=1_920),
        5_615,
    ),
    Golden(
        "platform.openai.com/docs/guides/reasoning: reasoning tokens are part of the completion's, and are"
        " not added; GPT-5.4 mini at 0.75 / 4.50: 75*0.75 + 1186*4.5",
        openai_stream.read_usage,
        "gpt-5.4-mini",
        {
            "prompt_tokens": 75,
            "completion_tokens": 1_186,
            "total_tokens": 1_261,
            "completion_tokens_details": {"reasoning_tokens": 1_024},
        },
        Usage(75, 1_186, reasoning=1_024),
        5_393.25,
    ),
    Golden(
        "developers.openai.com, CompletionUsage since GPT-5.6: cache writes are reported and cost 1.25 x"
        " input; GPT-5.6 luna at 0.20 / 1.20, cached 0.02: 100*0.2 + 1024*0.02 + 2048*0.25 + 50*1.2",
        openai_stream.read_usage,
        "gpt-5.6-luna",
        {
            "prompt_tokens": 3_172,
            "completion_tokens": 50,
            "total_tokens": 3_222,
            "prompt_tokens_details": {"cached_tokens": 1_024, "cache_write_tokens": 2_048},
        },
        Usage(100, 50, cache_read=1_024, cache_write_5m=2_048),
        612.48,
    ),
    Golden(
        "docs.x.ai, Prompt caching, 'Usage & Pricing'; Grok 4.7 at 2 / 6, cached 0.50:"
        " (125-98)*2 + 98*0.5 + 48*6",
        openai_stream.read_usage,
        "grok-4.7",
        {
            "prompt_tokens": 125,
            "completion_tokens": 48,
            "total_tokens": 173,
            "prompt_tokens_details": {
                "text_tokens": 125,
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": 98,
            },
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        Usage(27, 48, cache_read=98),
        391,
    ),
    Golden(
        "api-docs.deepseek.com/guides/kv_cache: `prompt_cache_hit_tokens` and `_miss_tokens` sum to the"
        " prompt's; DeepSeek chat at 0.30 / 1.20, hit 0.006: 100*0.3 + 900*0.006 + 50*1.2",
        openai_stream.read_usage,
        "deepseek-chat",
        {
            "prompt_tokens": 1_000,
            "completion_tokens": 50,
            "total_tokens": 1_050,
            "prompt_cache_hit_tokens": 900,
            "prompt_cache_miss_tokens": 100,
        },
        Usage(100, 50, cache_read=900),
        95.4,
    ),
    Golden(
        "platform.kimi.ai, Chat: `usage.cached_tokens` beside the sums; Kimi K2.6 at 0.95 / 4, cached 0.16:"
        " 232*0.95 + 768*0.16 + 20*4",
        openai_stream.read_usage,
        "kimi-k2.6",
        {"prompt_tokens": 1_000, "completion_tokens": 20, "total_tokens": 1_020, "cached_tokens": 768},
        Usage(232, 20, cache_read=768),
        423.28,
    ),
    Golden(
        "github.com/openai/openai-python/issues/2544, Google's endpoint: what the model thought is in"
        " `total_tokens` alone (2496-1469 = 1027 of output); Gemini 3.5 Flash at 1.50 / 9: 1469*1.5 + 1027*9",
        openai_stream.read_usage,
        "gemini-3.5-flash",
        {
            "prompt_tokens": 1_469,
            "completion_tokens": 744,
            "total_tokens": 2_496,
            "completion_tokens_details": {"audio_tokens": None, "reasoning_tokens": None},
        },
        Usage(1_469, 1_027),
        11_446.5,
    ),
]


@pytest.mark.parametrize("golden", PUBLISHED, ids=lambda golden: golden.source.partition(",")[0])
def test_published_usage_costs_what_its_vendor_says(golden: Golden) -> None:
    """Buckets are disjoint, no token is lost or counted twice, and the sum is the vendor's to a pico-USD."""
    usage = golden.read(golden.figures)
    assert usage == golden.usage
    figures = golden.figures
    prompt = figures.get("prompt_tokens") or sum(
        figures.get(name) or 0
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    assert usage.input_total == prompt
    price = Catalog.load({}).resolve(golden.model).price
    assert price.cost_picos(usage) == round(golden.micros * 1_000_000)
