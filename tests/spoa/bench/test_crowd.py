import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import redis

from spoa.bench import crowd
from spoa.bench.crowd import Crowd, raise_file_limit
from spoa.bench.fault import Fault
from spoa.bench.stage import Stage

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class Once:
    """Has something to say after one burst."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.polls = [True]

    def send(self, what: object) -> None:
        self.said.append(what)

    def poll(self, _timeout_s: float) -> bool:
        return self.polls.pop(0)


def test_everybody_is_greeted(on: Stage) -> None:
    """The real agent greets 300 connections that were opened at once, and is there afterwards."""
    control = Once()
    told = Crowd(on.agent.socket, 300, 0)(cast("Connection", control))
    assert (told.figures["bursts"], told.figures["connections"], told.wrong) == (1, 300, {})
    assert told.figures["greeted_ms"] > 0
    assert control.said == ["ready"]
    assert on.agent.process.poll() is None
    with redis.Redis(unix_socket_path=on.store.socket) as client:
        assert client.ping()


def test_who_is_not_greeted_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that accepts nobody is given up, and each connection is a wrong one."""
    monkeypatch.setattr(crowd, "PATIENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent.sock"))
        listener.listen(10)
        told = Crowd(str(tmp_path / "silent.sock"), 7, 0)(cast("Connection", Once()))
    assert told.wrong == {"connections not greeted": 7}


def test_too_few_files_are_told_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that nobody may raise is a sentence with both numbers."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    with pytest.raises(Fault, match=r"1000 connections need 1064 files, .* is 1024"):
        raise_file_limit(1000)


def test_a_limit_that_may_be_raised_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most systems start a program with 1,024 files, and allow it more."""
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    raise_file_limit(500)
    assert raised == []
    raise_file_limit(2000)
    assert raised == [(2064, 4096)]
