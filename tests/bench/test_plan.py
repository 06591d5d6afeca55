from pathlib import Path

import pytest

from bench.peers import plan
from bench.peers.options import Options, parse_options
from bench.peers.plan import chosen, run
from bench.peers.subjects import PEERS, Subject
from spoa.bench.fault import Fault


def options(*names: str) -> Options:
    only = [word for name in names for word in ("--only", name)]
    return parse_options(["--rounds", "2", "--seconds", "0.1", *only])


def test_rounds_alternate(tmp_path: Path) -> None:
    """All play their first round before the second one, which goes backwards."""
    told: list[str] = []
    measured = run(options("echo agent", "asyncio"), tmp_path, told.append)
    order = [text.partition(":")[0] for text in told if "round" in text]
    lines = ["echo agent, 16 x 20", "echo agent, 2000/s", "asyncio, 16 x 20", "asyncio, 2000/s"]
    assert order == lines + lines[::-1]
    assert [(one.name, len(one.rounds), one.wrong) for one in measured.results] == [
        (name, 2, {}) for name in ("echo agent", "echo agent", "asyncio", "asyncio")
    ]
    assert [dict(one.at) for one in measured.results[:2]] == [
        {"connections": 16, "in_flight": 20},
        {"rate": 2000},
    ]


def test_who_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured, and the reason is told."""
    missing = Subject("missing", PEERS[0].start, PEERS[0].task, "no-such-package-of-anybody")
    monkeypatch.setattr(plan, "subjects", lambda _: [missing])
    measured = run(options(), tmp_path, str)
    assert measured.results == []
    assert "no-such-package-of-anybody is not installed" in measured.notes["missing"]


def test_an_unknown_name_is_told() -> None:
    """The sentence has the name, and all that there are."""
    with pytest.raises(Fault, match="'nginx': nobody is called so; there are echo agent, kat"):
        chosen(options("nginx"))
