"""What Prometheus sees. Labels are few and closed; ids and names of people never become labels."""

from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families

WORKER_KEY = "qlaud:metrics:"
"""Prefix of the Redis keys under which workers leave their figures."""

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

TURNS = Counter("qlaud_turns", "Turns that ended, by status.", ["status"], registry=REGISTRY)
STEPS = Counter("qlaud_steps", "Model calls that were metered, by model.", ["model"], registry=REGISTRY)
steps = cache(STEPS.labels)
"""The counter of a model: looked up once, for it runs on every call."""

TOOL_CALLS = Counter(
    "qlaud_tool_calls", "Tool calls, by kind and result.", ["kind", "result"], registry=REGISTRY
)
TOKENS = Counter("qlaud_tokens", "Tokens metered, by direction.", ["direction"], registry=REGISTRY)
TOKENS_IN, TOKENS_OUT = TOKENS.labels("input"), TOKENS.labels("output")
COST = Counter("qlaud_cost_usd", "Charged, markup included, in USD.", registry=REGISTRY)
OVERRUN = Counter(
    "qlaud_overrun_usd", "Billed by providers beyond the worst case, in USD.", registry=REGISTRY
)
TAKEOVERS = Counter("qlaud_takeovers", "Turns carried on after their worker was lost.", registry=REGISTRY)
JOBS = Counter("qlaud_jobs", "Jobs that ended, by status.", ["status"], registry=REGISTRY)
DELIVERIES = Counter(
    "qlaud_deliveries",
    "Attempts to deliver webhooks, by result: delivered, failed, dead.",
    ["result"],
    registry=REGISTRY,
)
TURNS_RUNNING = Gauge("qlaud_turns_running", "Turns that this worker carries now.", registry=REGISTRY)
STREAMS_OPEN = Gauge("qlaud_streams_open", "SSE responses open at this front door.", registry=REGISTRY)
REQUESTS = Counter(
    "qlaud_http_requests", "Requests, by route and status.", ["route", "status"], registry=REGISTRY
)
requests = cache(REQUESTS.labels)
"""The counter of a route and a status: looked up once, for it runs on every request."""

QUEUE_TURNS = Gauge("qlaud_queue_turns", "Turns in the mailboxes, by status.", ["status"], registry=REGISTRY)
QUEUE_AGE = Gauge("qlaud_queue_age_seconds", "Age of the oldest queued turn.", registry=REGISTRY)


def render() -> bytes:
    """This process's figures in the text format."""
    return generate_latest(REGISTRY)


def merge(own: bytes, workers: dict[str, bytes]) -> bytes:
    """One page: our own figures, and each worker's with a `worker` label. Families stay together."""
    pages = {"": own, **workers}
    families: dict[str, list[str]] = {}
    for worker, page in sorted(pages.items()):
        for family in text_string_to_metric_families(page.decode()):
            if family.name not in families:
                name = family.name + ("_total" if family.type == "counter" else "")
                families[family.name] = [
                    f"# HELP {name} {family.documentation}",
                    f"# TYPE {name} {family.type}",
                ]
            for sample in family.samples:
                labels = {**sample.labels, **({"worker": worker} if worker else {})}
                shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
                series = f"{sample.name}{{{shown}}}" if shown else sample.name
                families[family.name].append(f"{series} {sample.value}")
    return "\n".join(line for lines in families.values() for line in lines).encode() + b"\n"
