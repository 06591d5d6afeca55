import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spoa.bench.beside import beside
from spoa.bench.fault import Fault
from spoa.bench.flood import Flood
from spoa.bench.load.channel import HELLO_TIMEOUT_S, Transport, read_frame
from spoa.bench.load.echo import HELLO, echo_agent
from spoa.bench.load.frames import HEAD_BYTES, IDS_BYTES
from spoa.bench.result import Round
from spoa.bench.scenario import Scenario
from spoa.bench.stage import Stage
from spoa.spop.codec import encode_ack, encode_set_var
from spoa.spop.constants import Scope


def flooded(flood: Flood, seconds: float) -> Round:
    with beside(flood) as companion:
        time.sleep(seconds)
        return companion.stop()


@pytest.mark.parametrize("kind", [Scenario.UNKNOWN, Scenario.MALFORMED])
def test_every_guess_of_a_flood_is_refused(on: Stage, kind: Scenario) -> None:
    """The real agent answers more guesses than fit into flight at once, none of them wrongly."""
    told = flooded(Flood(on.agent.socket, kind, 2, 5), 0.2)
    assert told.figures["flood"] > 10
    assert told.wrong == {}


def test_a_flood_keeps_to_its_rate(on: Stage) -> None:
    """However much the agent could bear, no more comes than was asked for."""
    told = flooded(Flood(on.agent.socket, Scenario.MALFORMED, 2, 20, rate=500), 0.3)
    assert 0 < told.figures["flood_per_s"] <= 500


def test_an_agent_that_answers_something_else_is_not_flooded(tmp_path: Path) -> None:
    """What is measured is a flood of refusals for this reason, or nothing."""
    cores = (0,)
    with (
        echo_agent(tmp_path, cores, Transport.UNIX) as echo,
        pytest.raises(Fault, match="not answered unknown"),
        beside(Flood(echo.address, Scenario.UNKNOWN, 1, 1)),
    ):
        pass


def ack(frame: bytes, reason: bytes) -> bytes:
    ids = frame[HEAD_BYTES : HEAD_BYTES + IDS_BYTES]
    return encode_ack(ids, encode_set_var(Scope.TRANSACTION, b"reason", reason))


@contextmanager
def agent_that_errs(path: Path) -> Iterator[None]:
    """Answer in two pieces each, and every third guess with a longer and wrong reason."""

    def serve() -> None:
        probe, _ = listener.accept()
        with probe:
            read_frame(probe)
            probe.sendall(HELLO)
            probe.sendall(ack(read_frame(probe), b"unknown"))
        peer, _ = listener.accept()
        with peer:
            read_frame(peer)
            peer.sendall(HELLO)
            for number in range(30):
                answer = ack(read_frame(peer), b"unknown" if number % 3 else b"store_unavailable")
                peer.sendall(answer[:9])
                peer.sendall(answer[9:])
            over.wait(HELLO_TIMEOUT_S)

    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def test_a_wrong_answer_is_counted_by_its_reason(tmp_path: Path) -> None:
    """Answers that are cut in two, or of another size, are told apart all the same."""
    path = tmp_path / "errs.sock"
    ours, theirs = multiprocessing.Pipe()
    told: list[Round] = []
    with agent_that_errs(path):
        flood = Flood(str(path), Scenario.UNKNOWN, 1, 1)
        thread = threading.Thread(target=lambda: told.append(flood(theirs)))
        thread.start()
        assert ours.recv() == "ready"
        thread.join(0.3)
        ours.send("stop")
        thread.join()
    assert told[0].figures["flood"] == 30
    assert told[0].wrong == {"a guess: reason b'store_unavailable'": 10}
