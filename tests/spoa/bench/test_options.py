import os
from pathlib import Path

import pytest

from spoa.bench.options import parse_options
from spoa.bench.scenario import Scenario


def test_defaults_measure_everything() -> None:
    """Without options all scenarios are measured, in five rounds, as HAProxy would ask."""
    options = parse_options([])
    assert options.scenarios == tuple(Scenario)
    assert (options.connections, options.in_flight, options.rounds) == (16, 20, 5)
    assert list(options.rates) == [5_000, 20_000]
    assert (options.workers, options.generators) == (1, 1)
    assert not options.pin
    assert options.json is None


def test_given_rates_and_scenarios_replace_the_defaults() -> None:
    """Who asks for one rate and one scenario gets no other."""
    options = parse_options(["--rate", "100", "--scenario", "open", "--json", "out.json"])
    assert (options.rates, options.scenarios) == ((100,), (Scenario.OPEN,))
    assert options.json == Path("out.json")


def test_quick_is_short_but_yields_to_what_is_given() -> None:
    """--quick changes defaults, not what stands beside it."""
    assert (parse_options(["--quick"]).rounds, parse_options(["--quick"]).seconds) == (1, 0.3)
    options = parse_options(["--rounds", "2", "--quick", "--rate", "7"])
    assert (options.rounds, options.rates) == (2, (7,))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--connections", "0"], "0 is not 1 or more"),
        (["--rounds", "many"], "invalid _count value: 'many'"),
        (["--rate", "-1"], "-1 is not above 0"),
        (["--seconds", "nan"], "nan is not above 0"),
        (["--scenario", "everything"], "invalid"),
        (["--connections", "2", "--generators", "3"], "3 generators need as many connections"),
    ],
)
def test_nonsense_ends_with_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake on the command line is named, and nothing is started."""
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_pin_needs_two_cores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent cannot have a core to itself when there is one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(SystemExit):
        parse_options(["--pin"])
    assert "--pin needs a second core" in capsys.readouterr().err
