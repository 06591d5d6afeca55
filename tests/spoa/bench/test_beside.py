import pickle
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from spoa.bench.beside import beside
from spoa.bench.crowd import Crowd
from spoa.bench.fault import Fault
from spoa.bench.result import Round
from spoa.bench.stage import Stage


def test_it_goes_on_until_it_is_stopped(on: Stage) -> None:
    """What it did is told when it is told to stop, and then it is over."""
    with beside(Crowd(on.agent.socket, 3, 0.001)) as companion:
        told = companion.stop()
        with pytest.raises(Fault, match="died"):
            companion.stop()
    assert told.wrong == {}


def test_what_breaks_it_is_ours(tmp_path: Path) -> None:
    """A crowd before a closed door ends the block with its own exception."""
    with beside(Crowd(str(tmp_path / "nobody.sock"), 3, 0)) as companion:  # noqa: SIM117
        with pytest.raises(FileNotFoundError):
            companion.stop()


class Unable:
    """Dies without a word before it begins."""

    def __call__(self, _control: Connection) -> Round:
        raise AssertionError("it has never arrived")

    def __reduce__(self) -> tuple[object, ...]:
        return pickle.loads, (b"",)


def test_its_death_is_told() -> None:
    """A process that cannot even begin is not waited for."""
    with pytest.raises(Fault, match="the process beside the round died"), beside(Unable()):
        pass
