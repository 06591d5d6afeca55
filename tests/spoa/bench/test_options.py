import os
from collections.abc import Callable
from pathlib import Path

import pytest

from spoa.bench.load.channel import Transport
from spoa.bench.options import MOST, PLACED, THIS, BadOption, Options, Part, read_options
from spoa.bench.scenario import Scenario


def test_defaults_measure_the_agent_by_itself() -> None:
    """Without options all scenarios are measured, in five rounds, as HAProxy would ask."""
    options = read_options()
    assert options == Options()
    assert options.parts == (Part.CAPACITY, Part.LATENCY)
    assert options.scenarios == tuple(Scenario)
    assert (options.connections, options.in_flight, options.rounds) == (16, 20, 5)
    assert list(options.rates) == [5_000, 20_000]
    assert (options.workers, options.generators) == (1, 1)
    assert (options.transport, options.redis) == (Transport.UNIX, Transport.UNIX)
    assert (options.pin, options.against, options.json, options.html) == (False, (), None, None)


def test_what_is_given_replaces_the_defaults(tmp_path: Path) -> None:
    """Who asks for one rate, part, scenario and way gets no other, and each once."""
    options = read_options(
        parts=["placement", "latency", "latency"],
        rates=[100, 100],
        scenarios=["open"],
        transport="tcp",
        redis="tcp",
        json=tmp_path / "out.json",
        html=tmp_path / "out.html",
    )
    assert options.parts == (Part.PLACEMENT, Part.LATENCY)
    assert (options.rates, options.scenarios) == ((100,), (Scenario.OPEN,))
    assert (options.transport, options.redis) == (Transport.TCP, Transport.TCP)
    assert (options.json, options.html) == (tmp_path / "out.json", tmp_path / "out.html")


def test_quick_is_short_but_yields_to_what_is_given() -> None:
    """--quick changes defaults, not what stands beside it."""
    assert (read_options(quick=True).rounds, read_options(quick=True).seconds) == (1, 0.3)
    options = read_options(rounds=2, quick=True, rates=[7])
    assert (options.rounds, options.rates) == (2, (7,))


def test_every_scenario_belongs_to_one_loop() -> None:
    """Capacity and latency have each scenario between them once; placement has some of both."""
    options = Options()
    closed, opened = map(options.scenarios_of, (Part.CAPACITY, Part.LATENCY))
    assert sorted(closed + opened) == sorted(Scenario)
    assert options.scenarios_of(Part.PLACEMENT) == PLACED
    assert set(PLACED) & set(closed)
    assert set(PLACED) & set(opened)


def make_build(directory: Path) -> Path:
    for package in ("spoa", "tokens"):
        (directory / package).mkdir(parents=True)
    return directory


def test_builds_have_names(tmp_path: Path) -> None:
    """Our own packages are `this`, another build is named after its directory."""
    other = make_build(tmp_path / "compiled")
    assert Options().builds == {THIS: None}
    assert Options(against=(other / ".." / "compiled",)).builds == {THIS: None, "compiled": other}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (lambda _: read_options(connections=0), "--connections 0: must be 1 or more"),
        (lambda _: read_options(in_flight=-1), "--in-flight -1: must be 1 or more"),
        (lambda _: read_options(rates=[5, -1]), "--rate -1: must be a finite number above 0"),
        (
            lambda _: read_options(seconds=float("nan")),
            "--seconds nan: must be a finite number above 0",
        ),
        (
            lambda _: read_options(seconds=float("inf")),
            "--seconds inf: must be a finite number above 0",
        ),
        (lambda _: read_options(rates=[0.5]), "--rate 0.5: must be 1 or more"),
        (lambda _: read_options(rates=[1_000_001]), "--rate 1000001: must be at most 1,000,000"),
        (lambda _: read_options(seconds=3600.5), "--seconds 3600.5: must be at most 3,600"),
        (lambda _: read_options(workers=513), "--workers 513: must be at most 512"),
        (lambda _: read_options(connections=4001), "--connections 4001: must be at most 4,000"),
        (lambda _: read_options(in_flight=1001), "--in-flight 1001: must be at most 1,000"),
        (lambda _: read_options(users=10_000_001), "--users 10000001: must be at most 10,000,000"),
        (lambda _: read_options(generators=65), "--generators 65: must be at most 64"),
        (lambda _: read_options(rounds=1001), "--rounds 1001: must be at most 1,000"),
        (lambda _: read_options(parts=["all"]), "part 'all': must be one of capacity, latency,"),
        (lambda _: read_options(scenarios=["x"]), "--scenario 'x': must be one of ceiling, cons"),
        (lambda _: read_options(redis="tls"), "--redis 'tls': must be one of unix, tcp"),
        (
            lambda _: read_options(connections=2, generators=3),
            "--generators 3: each needs a connection, and --connections is 2",
        ),
        (
            lambda _: read_options(parts=["latency"], scenarios=["consume"]),
            "--scenario consume: is no scenario of latency",
        ),
        (
            lambda _: read_options(parts=["latency", "growth"], scenarios=["consume"]),
            "--scenario consume: is no scenario of latency",
        ),
        (
            lambda _: read_options(parts=["growth"], scenarios=["consume"]),
            "--scenario consume: only capacity, latency and placement have scenarios to choose",
        ),
        (
            lambda at: read_options(parts=["placement"], against=[make_build(at / "b")]),
            "--against {at}/b: only capacity and latency compare builds",
        ),
        (lambda _: read_options(against=[""]), "--against '': must be a directory"),
        (
            lambda at: read_options(against=[make_build(at / "a:b")]),
            "--against {at}/a:b: has a : in its path",
        ),
        (
            lambda at: read_options(json=at / "out", html=at / ".." / at.name / "out"),
            "--html {at}/../{at.name}/out: is the file of --json, too",
        ),
        (lambda at: read_options(against=[at]), "--against {at}: holds no package spoa"),
        (
            lambda at: read_options(against=[make_build(at / "a" / "b"), make_build(at / "b")]),
            "--against {at}/b: a build named b is measured already",
        ),
        (lambda at: read_options(json=at), "--json {at}: is a directory"),
        (
            lambda at: read_options(html=at / "no" / "page.html"),
            "--html {at}/no/page.html: there is no directory {at}/no",
        ),
    ],
)
def test_nonsense_is_a_sentence(
    options: Callable[[Path], Options], sentence: str, tmp_path: Path
) -> None:
    """A mistake is named with its value, before anything is started."""
    with pytest.raises(BadOption) as refused:
        options(tmp_path)
    assert str(refused.value).startswith(sentence.format(at=tmp_path))


def test_the_limits_themselves_are_allowed() -> None:
    """Who asks for as much as there may be gets it."""
    most = {name: MOST[name] for name in MOST if name != "rate"}
    options = Options(rates=(1, MOST["rate"]), **most)
    assert (options.workers, options.connections, options.users) == (512, 4000, 10_000_000)


def test_pin_needs_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent cannot have a core to itself when there is one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(BadOption, match="--pin: needs a second core"):
        read_options(pin=True)


def test_what_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody measures for minutes to learn that the file cannot be written."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(BadOption, match=r"out\.json: may not be written"):
        read_options(json=tmp_path / "out.json")
