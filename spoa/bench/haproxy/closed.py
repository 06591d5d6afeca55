"""The maximum: wrk keeps all connections busy for some seconds (closed loop)."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Final

from spoa.bench.fault import Fault
from spoa.bench.haproxy.front import TARGET, Front
from spoa.bench.haproxy.seen import Seen
from spoa.bench.haproxy.visitors import Visitors
from spoa.bench.load.corpus import HOST

_SCRIPT: Final = Path(__file__).with_name("requests.lua")
_PATIENCE_S: Final = 30.0
"""Beyond the length of a round, and the time that wrk needs to read its file."""


def prepare(
    front: Front, visitors: Visitors, connections: int, seconds: float
) -> Callable[[], Seen]:
    """Return what lets wrk ask as fast as it is answered. That raises Fault."""
    lines = front.directory / "lines"
    lines.write_bytes(b"\n".join(visitors.lines()) + b"\n")
    duration_s = ceil(seconds)
    threads = min(connections, max(len(os.sched_getaffinity(0)) // 2, 1))
    command = ["wrk", "--threads", str(threads), "--connections", str(connections)]
    command += ["--duration", f"{duration_s}s", "--script", str(_SCRIPT)]
    command += [f"http://127.0.0.1:{front.port}{TARGET.decode()}", "--"]
    command += [str(lines), HOST.decode(), str(threads)]
    return lambda: _seen(_output(command, duration_s + _PATIENCE_S), connections)


def _output(command: list[str], timeout_s: float) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        raise Fault("wrk is not installed: `apt install wrk`") from None
    except subprocess.TimeoutExpired:
        raise Fault(f"wrk did not end within {timeout_s:g} s") from None
    if done.returncode:
        raise Fault(f"wrk ended with code {done.returncode}\n{(done.stdout + done.stderr)[-1000:]}")
    return done.stdout


def _seen(said: str, connections: int) -> Seen:
    """Read the JSON object that requests.lua has written into the last line."""
    told: Mapping[str, float] = json.loads(said.strip().rpartition("\n")[2])
    refused = {name: int(count) for name, count in told.items() if name.startswith("status ")}
    right = int(told["requests"]) - sum(refused.values())
    broken = int(told["broken"])
    wrong = Counter(refused) + Counter({"broken connections": broken})
    figures: dict[str, float] = {"elapsed_s": told["elapsed_us"] / 1e6}
    if right:
        figures["requests_per_s"] = right / figures["elapsed_s"]
        figures["generator_us"] = told["cpu_us"] / right
        figures |= {f"{name}_ms": told[f"{name}_us"] / 1e3 for name in ("p50", "p90", "p99", "max")}
    # wrk ends in the middle: each connection has a request on its way, and so had each that broke.
    return Seen(right, connections + broken, wrong, figures)
