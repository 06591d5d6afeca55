from pathlib import Path

import pytest

from bench.peers.options import parse_options


def test_the_defaults_are_three_rounds_of_everybody() -> None:
    """Who asks for nothing gets alternated rounds of all, and no file."""
    options = parse_options([])
    assert (options.rounds, options.only, options.against, options.json) == (3, (), None, None)


def test_names_come_once() -> None:
    """To name somebody twice measures him once."""
    options = parse_options(["--only", "asyncio", "--only", "echo agent", "--only", "asyncio"])
    assert options.only == ("asyncio", "echo agent")


def test_quick_is_short_but_yields_to_what_is_given() -> None:
    """--quick changes defaults, not what stands beside it."""
    quick = parse_options(["--quick"])
    assert (quick.rounds, quick.seconds) == (1, 0.3)
    given = parse_options(["--rounds", "2", "--quick"])
    assert (given.rounds, given.seconds) == (2, 0.3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rounds", "0"], "0 is not 1 or more"),
        (["--rounds", "1001"], "1001 is above 1,000"),
        (["--seconds", "inf"], "inf is not a finite number above 0"),
        (["--seconds", "3601"], "3601 is above 3,600"),
        (["--rate", "-1"], "-1 is not a finite number above 0"),
        (["--rate", "0.5"], "0.5 is not 1 or more"),
        (["--rate", "1000001"], "1000001 is above 1,000,000"),
        (["--against", ""], "--against '': must be a directory"),
        (["--against", "a:b"], "--against a:b: has a : in its path"),
        (["--json", "no/out.json"], "--json no/out.json: there is no directory no"),
        (["--json", "out", "--html", "./out"], "--html out: is the file of --json, too"),
        (["--against", "nowhere"], "nowhere holds no folder `spoa`"),
    ],
)
def test_nonsense_is_told(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence names the value and what is allowed."""
    with pytest.raises(SystemExit):
        parse_options(arguments)
    assert sentence in capsys.readouterr().err


def test_a_build_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent runs in another directory: what it is given is absolute."""
    (tmp_path / "build" / "spoa").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_options(["--against", "build"]).against == tmp_path.resolve() / "build"
