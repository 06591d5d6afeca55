import io

import pytest

from spoa.bench import disturbed
from spoa.bench.disturbed import minutes, watched
from spoa.bench.fault import Fault
from spoa.bench.options import Options
from spoa.bench.progress import Progress
from spoa.bench.result import Result
from spoa.bench.scenario import Scenario
from spoa.bench.stage import Stage

SILENT = Progress(io.StringIO())
QUICK = Options(seconds=0.3, rounds=1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Disturb once in each way, for a moment, and watch the memory for a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disturbed, "CROWD_PAUSE_S", 0.05)
        patch.setattr(disturbed, "CROWD", 100)
        patch.setattr(disturbed, "ALL_KINDS", (Scenario.SESSION,))
        patch.setenv("KAT_BENCH_MINUTES", "0.01")
        patch.setenv("KAT_LIMITS__DEADLINE_MS", "10000")
        options = Options(seconds=0.05, rounds=1, connections=4)
        return disturbed.run(options, tmp_path_factory.mktemp("disturbed"), SILENT)


def test_no_honest_request_fails(results: list[Result]) -> None:
    """Beside every disturbance each token is consumed, and every guess is refused."""
    assert {result.name: result.wrong for result in results if result.wrong} == {}


def test_each_disturbance_has_its_calm(results: list[Result]) -> None:
    """What is compared bears one name, and differs in the phase alone."""
    phases = [(result.name, result.at["phase"]) for result in results[:-1]]
    names = [
        "flood, half of capacity",
        "flood, saturating",
        "malformed flood, half of capacity",
        "malformed flood, saturating",
        "connection burst",
    ]
    assert phases == [(name, phase) for name in names for phase in ("calm", "disturbed")]
    told = ("requests_per_s", "p50_ms", "p99_ms", "p99.9_ms")
    assert all(result.median[name] > 0 for result in results[:-1] for name in told)
    assert not any("agent_us" in result.median for result in results)


def test_a_malformed_token_costs_redis_nothing(results: list[Result]) -> None:
    """An unknown one is looked for; one with a wrong checksum is refused before."""
    asked = {
        result.name.split(",")[0]: result.median["redis_commands_per_guess"]
        for result in results
        if "redis_commands_per_guess" in result.median
    }
    assert asked["flood"] >= 1
    assert asked["malformed flood"] < 0.05


def test_disturbances_did_disturb(results: list[Result]) -> None:
    """Guesses were answered, and connections greeted, while honest requests were."""
    by_name = {result.name: result.median for result in results if result.at.get("phase") != "calm"}
    assert all(figures["flood"] > 0 for name, figures in by_name.items() if "flood" in name)
    burst = by_name["connection burst"]
    assert burst["connections"] == 100 * burst["bursts"] > 0


def test_memory_is_watched_as_long_as_asked(results: list[Result]) -> None:
    """The last result tells for how many minutes, and how memory went."""
    last = results[-1]
    assert (last.name, last.at) == ("memory", {"minutes": 0.01})
    assert last.median["requests"] > 0
    assert last.median["first_mb"] > 5
    assert "per_minute_mb" in last.median


def test_a_watched_run_counts_what_was_wrong(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd that is not greeted is seen as well as a wrong answer."""
    monkeypatch.setattr(disturbed, "ALL_KINDS", (Scenario.MALFORMED,))
    monkeypatch.setattr(disturbed, "_crowd_once", lambda _: {"not greeted": 3})
    found = watched(on, 0.001, SILENT)
    assert found.wrong["not greeted"] >= 3
    assert found.wrong["not greeted"] % 3 == 0


def test_minutes_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no number above 0 is refused in a sentence; unset, a run is short."""
    monkeypatch.delenv("KAT_BENCH_MINUTES", raising=False)
    assert minutes(QUICK) < minutes(Options()) == 1
    monkeypatch.setenv("KAT_BENCH_MINUTES", "10")
    assert minutes(QUICK) == 10
    for wrong in ("0", "-1", "inf", "nan", "ten", ""):
        monkeypatch.setenv("KAT_BENCH_MINUTES", wrong)
        with pytest.raises(
            Fault, match=f"KAT_BENCH_MINUTES is '{wrong}': must be a number above 0"
        ):
            minutes(Options())
