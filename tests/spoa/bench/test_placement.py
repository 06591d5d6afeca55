import io
from dataclasses import replace
from pathlib import Path

import pytest

from spoa.bench import placement
from spoa.bench.lines import Line
from spoa.bench.options import Options, Part
from spoa.bench.progress import Progress
from spoa.bench.result import Result
from spoa.bench.rounds import play_round
from spoa.bench.scenario import Scenario

PLACES = ["unix", "tcp", "+5 ms"]


def test_the_agent_finds_redis_at_each_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over every way each token is consumed, at its distance; only a line of ours costs CPU."""
    monkeypatch.setenv("KAT_LIMITS__DEADLINE_MS", "10000")
    least_ms = {}

    def measure(lines: list[Line], _options: Options, _progress: Progress) -> list[Result]:
        for line in lines:
            played = play_round(replace(line.job, requests=500), 1, line.measured)
            least_ms[line.result.at["redis"]] = played.figures["p50_ms"]
            assert played.wrong == {}
            assert ("delay_us" in played.figures) is ("ms" in str(line.result.at["redis"]))
        return [line.result for line in lines]

    monkeypatch.setattr(placement, "measure", measure)
    monkeypatch.setattr(placement, "ROUND_TRIPS_S", {"+5 ms": 0.005})
    options = Options(parts=(Part.PLACEMENT,), connections=2, scenarios=(Scenario.CONSUME,))
    results = placement.run(options, tmp_path, Progress(io.StringIO()))
    assert [(one.part, one.name, one.at) for one in results] == [
        ("placement", "consume", {"redis": place}) for place in PLACES
    ]
    assert least_ms["+5 ms"] >= 5
