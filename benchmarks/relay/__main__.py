"""`python -m benchmarks.relay`: what the relay costs, with cap and ledger on, beside others.

Two cores: what is measured, with all of its stores, has one; the load and the upstream have the other.
The subjects take turns, so that what else the machine does falls on all of them.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.relay import load, report
from benchmarks.relay.http import request
from benchmarks.relay.load import Measured, Span
from benchmarks.relay.processes import CpuMeter, memory_mib
from benchmarks.relay.subjects import MODEL, SUBJECTS, Bench, Subject, pinned
from qlaud_actors.program import free_port

CONNECTIONS = (1, 16, 32, 64, 256)
OPEN_RATE = 1_000


@dataclass(slots=True)
class Sample:
    """One run of one subject at one setting."""

    rate: float
    cpu_ms: float
    p50: float
    p99: float
    errors: int
    first_error: str


@dataclass(slots=True)
class Results:
    """All runs, by subject and setting."""

    samples: dict[str, dict[str, list[Sample]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    memory: dict[str, float] = field(default_factory=dict)

    def note(self, subject: Subject, setting: str, measured: Measured, cpu: float) -> None:
        """Keep one run."""
        count = len(measured.latencies)
        self.samples[subject.name][setting].append(
            Sample(
                rate=measured.rate,
                cpu_ms=cpu * 1000 / count if count else float("nan"),
                p50=measured.quantile(0.5),
                p99=measured.quantile(0.99),
                errors=measured.errors,
                first_error=measured.first_error,
            )
        )


def arguments() -> argparse.Namespace:
    """What can be chosen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each subject has its turn")
    parser.add_argument("--only", nargs="*", choices=[*SUBJECTS], help="of the subjects (default: all found)")
    parser.add_argument("--connections", type=int, nargs="*", default=list(CONNECTIONS))
    parser.add_argument("--stream", action="store_true", help="ask for streams")
    parser.add_argument(
        "--peers", type=Path, default=Path("/tmp/peers"), help="folder with hardcap/, portkey/, litellm/"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/relay/results.json"))
    return parser.parse_args()


async def measure(subjects: list[Subject], options: argparse.Namespace) -> Results:
    """All runs, the subjects in turn."""
    results = Results()
    span = Span(warm=0.3, seconds=options.seconds)
    body = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Say something."}]}
    if options.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    sent = {s.name: request(s.path, s.headers, json.dumps(body).encode()) for s in subjects}
    for _ in range(options.rounds):
        for connections in options.connections:
            for subject in subjects:
                meter = CpuMeter(subject.roots)
                measured = await load.closed_loop(subject.port, sent[subject.name], connections, span, meter)
                results.note(subject, str(connections), measured, meter.seconds)
        for subject in subjects:
            best = max((s.rate for runs in results.samples[subject.name].values() for s in runs), default=0)
            if best < OPEN_RATE:
                continue  # it cannot keep up, and its queue says nothing
            meter = CpuMeter(subject.roots)
            measured = await load.open_loop(subject.port, sent[subject.name], OPEN_RATE, span, meter)
            results.note(subject, "open", measured, meter.seconds)
    for subject in subjects:
        results.memory[subject.name] = memory_mib(subject.roots)
    return results


def main() -> None:
    """Start all, measure all, print a table, write JSON."""
    options = arguments()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for what is measured, one for the load")
    os.sched_setaffinity(0, {cores[-1]})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(free_port(), Path(folder), cores[0])
        with bench.stack, pinned(cores[-1]):
            Bench(0, Path(folder), cores[-1], bench.stack).run(
                "upstream", sys.executable, "-m", "benchmarks.relay.upstream", str(bench.upstream)
            )
            subjects = []
            for name in options.only or SUBJECTS:
                if (subject := SUBJECTS[name](bench, options.peers)) is None:
                    print(f"{name} is not installed in {options.peers}: skipped")
                else:
                    subjects.append(subject)
            results = uvloop.run(measure(subjects, options))
    text = report.table(results.samples, results.memory)
    print(text)
    options.out.write_text(json.dumps(report.as_json(results.samples, results.memory), indent=1) + "\n")


if __name__ == "__main__":
    main()
