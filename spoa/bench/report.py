"""What is printed and what is written: figures, and everything needed to read them."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from spoa.bench.corpus import MANY_USERS
from spoa.bench.options import Options
from spoa.bench.result import Figures, Result, median_of
from spoa.bench.scenario import Scenario
from spoa.bench.servers import limits

_ROOT = Path(__file__).parents[2]
_NOT_MEASURED = """\
Not measured: HAProxy and its clients, a network (all sockets are unix sockets), TLS, more than
one Redis, replicas, persistence, refusals other than replayed and malformed, revocations and
blocks in force, connection set-up, reconnects, memory. Generator, Redis and agent share the
machine's cores."""

_CLOSED = (
    ("requests/s", "requests_per_s", "{:,.0f}"),
    ("per agent core", "per_agent_core", "{:,.0f}"),
    ("agent us", "agent_us", "{:.2f}"),
    ("redis us", "redis_us", "{:.2f}"),
    ("generator us", "generator_us", "{:.2f}"),
    ("p50 ms", "p50_ms", "{:.2f}"),
    ("p99 ms", "p99_ms", "{:.2f}"),
    ("wrong", "wrong", "{:.0f}"),
)
_OPEN = (
    ("achieved/s", "requests_per_s", "{:,.0f}"),
    ("agent us", "agent_us", "{:.2f}"),
    ("redis us", "redis_us", "{:.2f}"),
    ("generator us", "generator_us", "{:.2f}"),
    ("p50 ms", "p50_ms", "{:.2f}"),
    ("p99 ms", "p99_ms", "{:.2f}"),
    ("p99.9 ms", "p99.9_ms", "{:.2f}"),
    ("late p50", "late_p50_ms", "{:.2f}"),
    ("late p99", "late_p99_ms", "{:.2f}"),
    ("wrong", "wrong", "{:.0f}"),
)
_COMPARED = (
    ("requests/s", "requests_per_s", "{:.2f}"),
    ("per agent core", "per_agent_core", "{:.2f}"),
    ("per redis core", "per_redis_core", "{:.2f}"),
)
_RATIOS = (
    (Scenario.BOUND, Scenario.CONSUME),
    (Scenario.IP_TOKEN, Scenario.CONSUME),
    (Scenario.GRANT, Scenario.CONSUME),
    (Scenario.SESSION, Scenario.CONSUME),
    (Scenario.SESSION_COLD, Scenario.CONSUME),
    (Scenario.SESSION_IDLE, Scenario.CONSUME),
    (Scenario.SESSION_OPEN, Scenario.CONSUME),
    (Scenario.CONSUME, Scenario.UNAUDITED),
)


def environment() -> dict[str, str]:
    """Say what was measured, on what."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        "busy": f"{os.getloadavg()[0]:.2f} processes on average in the last minute",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "redis": _said(["redis-server", "--version"]),
        "limits": " ".join(f"{name}={value}" for name, value in limits().items()) or "defaults",
        "packages": ", ".join(f"{name} {_version(name)}" for name in ("hiredis", "uvloop")),
    }


def header(facts: Mapping[str, str], options: Options) -> str:
    """Head the tables with the circumstances, without which their numbers mean nothing."""
    users = "a user per token" if options.users >= MANY_USERS else f"{options.users} users"
    load = (
        f"{options.connections} connections x {options.in_flight} in flight, {users}, "
        f"{options.generators} generator, {options.workers} worker, "
        f"{options.rounds} x {options.seconds:g} s, {'pinned' if options.pin else 'not pinned'}"
    )
    return "\n".join(f"{name:<9} {text}" for name, text in {**facts, "load": load}.items())


def tables(results: Sequence[Result]) -> str:
    """Lay out medians: the closed loop, then the open one, then whatever was wrong."""
    closed = [one for one in results if one.part == "capacity"]
    opened = [one for one in results if one.part == "latency"]
    parts = []
    if closed:
        parts += ["Closed loop. CPU in us per request; a core's worth is 1,000,000 / agent us."]
        parts += [_table(_CLOSED, [(one.name, _complete(one.median)) for one in closed])]
    if opened:
        parts += ["Open loop, consuming. Latency counts from the scheduled moment; `late` of it"]
        parts += ["is the generator's own."]
        parts += [_table(_OPEN, [(f"{one.at['rate']:,.0f}/s", one.median) for one in opened])]
    if compared := [pair for pair in map(partial(_compare, results), _RATIOS) if pair]:
        parts += ["Ratios: the median of those of each round."]
        parts += [_table(_COMPARED, compared)]
    faults = [f"  {one.name}: {n} x {what}" for one in results for what, n in one.wrong.items()]
    if faults:
        parts += ["Wrong:", *faults]
    return "\n".join([*parts, "", _NOT_MEASURED])


def write_json(
    path: Path, facts: Mapping[str, str], options: Options, results: Iterable[Result]
) -> None:
    """Write every figure of every round."""
    report = {
        "environment": dict(facts),
        "options": {**asdict(options), "json": str(path)},
        "results": [
            {
                "part": one.part,
                "name": one.name,
                "at": dict(one.at),
                "median": _complete(one.median),
                "rounds": [round_.figures for round_ in one.rounds],
                "wrong": one.wrong,
            }
            for one in results
        ],
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="ascii")


def _complete(figures: Figures) -> Figures:
    per_core = {f"per_{name}_core": figures.get(f"{name}_us") for name in ("agent", "redis")}
    return figures | {name: 1e6 / spent_us for name, spent_us in per_core.items() if spent_us}


def _compare(
    results: Sequence[Result], pair: tuple[Scenario, Scenario]
) -> tuple[str, Figures] | None:
    """Compare two scenarios, round by round. None if one of them was not measured."""
    of = {one.name: [_complete(round_.figures) for round_ in one.rounds] for one in results}
    if not all(scenario in of for scenario in pair):
        return None
    columns = zip(*(of[scenario] for scenario in pair), strict=True)
    ratios = [
        {key: one[key] / other[key] for _, key, _ in _COMPARED if one.get(key) and other.get(key)}
        for one, other in columns
    ]
    return " / ".join(pair), median_of(ratios)


def _table(columns: Sequence[tuple[str, str, str]], rows: Sequence[tuple[str, Figures]]) -> str:
    lines = [["", *(title for title, _, _ in columns)]]
    for name, figures in rows:
        cells = [form.format(figures[key]) if key in figures else "-" for _, key, form in columns]
        lines.append([name, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def _commit() -> str:
    described = _said(["git", "-C", str(_ROOT), "describe", "--always", "--dirty"])
    return described or "unknown"


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
