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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rounds", "0"], "0 is not 1 or more"),
        (["--seconds", "inf"], "inf is not above 0"),
        (["--rate", "-1"], "-1 is not above 0"),
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
