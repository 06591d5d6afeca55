import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from spoa.bench.haproxy import paced
from spoa.bench.haproxy.front import question
from spoa.bench.haproxy.paced import Clients, Tally

OK = b"HTTP/1.1 200 OK\r\nx-kat-user: user%07d\r\ncontent-length: 0\r\n\r\n"
NO = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nsorry"

Answer = Callable[[int], Sequence[bytes]]
"""From the number of a question to the pieces that are written. Nothing: the connection ends."""


@contextmanager
def site(answer: Answer) -> Iterator[tuple[str, int]]:
    """Answer HTTP requests as told, in a thread per connection."""
    threads = []

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(peer, answer)))
            threads[-1].start()

    listener = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join()


def serve(peer: socket.socket, answer: Answer) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with peer:
        while asked := peer.recv(4096):
            number = int(asked.rpartition(b"X-KAT: ")[2])
            pieces = answer(number)
            if not pieces:
                return
            for piece in pieces:
                peer.sendall(piece)


def ask(answer: Answer, count: int = 40, connections: int = 2, rate: float = 4000) -> Tally:
    asks = [question(b"X-KAT: %d" % number) for number in range(count)]
    answers = [OK % number for number in range(count)]
    with site(answer) as address:
        return Clients(address, connections, asks, answers).run(rate)


def test_each_is_asked_once_and_on_schedule() -> None:
    """All questions leave, none before its time, and each right answer has a latency."""
    tally = ask(lambda number: [OK % number], rate=1000)
    assert (tally.right, len(tally.latencies), tally.wrong) == (40, 40, {})
    assert tally.finished - tally.started >= 39 / 1000
    assert min(tally.late) >= 0
    assert all(latency > 0 for latency in tally.latencies)


@pytest.mark.parametrize("cut", [1, 12, 30, len(NO) - 1])
def test_only_the_right_answer_counts(cut: int) -> None:
    """A refusal counts by its status, however it comes; a yes for somebody else is none."""

    def answer(number: int) -> Sequence[bytes]:
        if number == 3:
            return [NO[:cut], NO[cut:]]
        return [OK % (number + (number == 5))]

    tally = ask(answer)
    assert (tally.right, tally.wrong) == (38, {"status 403": 1, "another user": 1})


def test_who_waits_for_a_connection_pays_for_it() -> None:
    """With one connection and a slow first answer all others are late by as much."""
    is_late = threading.Event()

    def answer(number: int) -> Sequence[bytes]:
        if number == 0:
            is_late.wait(0.2)
        return [OK % number]

    tally = ask(answer, connections=1, count=20)
    assert tally.right == 20
    assert min(tally.latencies) > 0.15
    assert tally.late[0] < 0.15 < min(tally.late[1:])


def test_a_connection_that_ends_is_counted() -> None:
    """Its request is lost, and nobody knows what became of it; the others carry on."""
    tally = ask(lambda number: [OK % number] if number != 7 else [])
    assert (tally.right, tally.unknown) == (39, 1)
    assert tally.wrong == {"connection closed": 1}


def test_silence_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never answers is not waited for for ever."""
    monkeypatch.setattr(paced, "PATIENCE_S", 0.2)
    tally = ask(lambda number: [OK[:5]] if number > 9 else [OK % number], connections=1)
    assert (tally.right, tally.unknown) == (10, 1)
    assert tally.wrong == {"unanswered": 1, "never asked": 29}
