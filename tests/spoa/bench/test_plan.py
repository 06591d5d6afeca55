import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from spoa.bench import plan
from spoa.bench.fault import Fault
from spoa.bench.lines import Line
from spoa.bench.load.channel import Transport
from spoa.bench.options import Options, Part
from spoa.bench.progress import Progress
from spoa.bench.result import Result
from spoa.bench.scenario import ACLS, Scenario

SILENT = Progress(io.StringIO())


@dataclass
class Standing:
    """A server that is said to run, and with what."""

    socket: str
    tcp: str = ""
    settings: Mapping[str, str] | None = None
    packages: Path | None = None
    transport: Transport | None = None
    store: str = ""

    def cpu_s(self) -> float:
        return 0.0

    def pin(self, cores: object) -> None:
        """Stay where we are."""


@contextmanager
def standing_redis(directory: Path, *, is_tcp: bool) -> Iterator[Standing]:
    yield Standing(str(directory / "redis.sock"), "127.0.0.1:1" if is_tcp else "")


@contextmanager
def standing_agent(
    directory: Path,
    store: str,
    _workers: int,
    settings: Mapping[str, str],
    *,
    transport: Transport,
    packages: Path | None,
) -> Iterator[Standing]:
    yield Standing(directory.name, "", settings, packages, transport, store)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """Start and measure nothing, and note what would have been measured."""
    noted: list[Line] = []

    def measure(lines: Iterator[Line], _options: Options, _progress: Progress) -> list[Result]:
        noted.extend(lines)
        return [line.result for line in noted]

    monkeypatch.setattr(plan, "private_redis", standing_redis)
    monkeypatch.setattr(plan, "real_agent", standing_agent)
    monkeypatch.setattr(plan, "measure", measure)
    return noted


def agent_of(line: Line) -> Standing:
    agent = line.measured["agent"]
    assert isinstance(agent, Standing)
    return agent


def test_agents_differ_in_the_audit_alone(place: Path, lines: list[Line]) -> None:
    """One agent answers all, another one what is measured without audit; they share a Redis."""
    list(plan.run(Options(), place, SILENT))
    asked = {line.job.scenario: agent_of(line) for line in lines if line.measured}
    without = asked.pop(Scenario.UNAUDITED)
    (with_audit,) = {id(agent): agent for agent in asked.values()}.values()
    assert with_audit.settings == ACLS
    assert without.settings == {**ACLS, "KAT_AUDIT__STREAM": "false"}
    assert len({id(line.measured["redis"]) for line in lines if line.measured}) == 1


def test_builds_are_measured_side_by_side(place: Path, lines: list[Line]) -> None:
    """Each line comes once for each build, one behind the other, and says whose it is."""
    other = place / "other"
    (other / "spoa").mkdir(parents=True)
    (other / "tokens").mkdir()
    wanted = (Scenario.CEILING, Scenario.CONSUME, Scenario.OPEN)
    options = Options(against=(other,), scenarios=wanted, rates=(7.0,))
    results = list(plan.run(options, place, SILENT))
    assert [(result.part, result.name, result.at) for result in results] == [
        ("capacity", "ceiling", {}),
        ("capacity", "consume", {"build": "this"}),
        ("capacity", "consume", {"build": "other"}),
        ("latency", "open", {"rate": 7.0, "build": "this"}),
        ("latency", "open", {"rate": 7.0, "build": "other"}),
    ]
    assert [agent_of(line).packages for line in lines[1:]] == [None, other] * 2


@pytest.mark.parametrize("way", Transport)
def test_the_ways_are_those_that_were_asked_for(
    place: Path, lines: list[Line], way: Transport
) -> None:
    """The agent listens and reaches Redis as told; what we do there goes over a unix socket."""
    options = Options(transport=way, redis=way, scenarios=(Scenario.CONSUME,))
    list(plan.run(options, place, SILENT))
    (line,) = lines
    agent = agent_of(line)
    assert agent.transport is way
    assert (agent.store == "127.0.0.1:1") is (way is Transport.TCP)
    assert line.job.redis_socket == str(place / "agent" / "redis.sock")


def test_each_part_has_a_place_and_is_loaded_by_its_name(
    place: Path, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts come in the report's order; one that does not load breaks only itself."""
    seen: list[Path] = []

    def run(_options: Options, directory: Path, _progress: Progress) -> list[Result]:
        seen.append(directory)
        return [Result(directory.name, "x")]

    for part in ("growth", "placement"):
        monkeypatch.setitem(sys.modules, f"spoa.bench.{part}", SimpleNamespace(run=run))
    parts = (Part.GROWTH, Part.LATENCY, Part.PLACEMENT)
    results = list(plan.run(Options(parts=parts), place, SILENT))
    assert [result.part for result in results] == ["latency"] * 4 + ["placement", "growth"]
    assert seen == [place / "placement", place / "growth"]
    assert all(place.is_dir() for place in seen)
    assert lines


def test_what_breaks_a_part_is_a_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system names the part that it ended."""

    def run(*_: object) -> list[Result]:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setitem(sys.modules, "spoa.bench.growth", SimpleNamespace(run=run))
    with pytest.raises(Fault, match=r"^growth: .*Connection refused"):
        next(plan.run(Options(parts=(Part.GROWTH,)), place, SILENT))


def test_what_went_before_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that breaks takes nothing away from those that were measured before it."""

    def run(_options: Options, directory: Path, _progress: Progress) -> list[Result]:
        if directory.name == "growth":
            raise RuntimeError("broken")
        return [Result(directory.name, "x")]

    for part in ("growth", "placement"):
        monkeypatch.setitem(sys.modules, f"spoa.bench.{part}", SimpleNamespace(run=run))
    running = plan.run(Options(parts=(Part.PLACEMENT, Part.GROWTH)), place, SILENT)
    assert next(running).part == "placement"
    with pytest.raises(Fault, match="growth: broken"):
        next(running)


def test_a_directory_too_deep_is_refused(place: Path) -> None:
    """No server is started where its socket could not have a name."""
    with pytest.raises(Fault, match="107 are allowed: set TMPDIR"):
        next(plan.run(Options(), place / ("x" * 90), SILENT))
