import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from spoa.bench.delay import Lane, delay_line
from spoa.bench.load.channel import dial
from spoa.bench.servers import Child

CORES = tuple(os.sched_getaffinity(0))
DEADLINE_S = 20.0


def test_what_goes_in_comes_out_later_and_in_order() -> None:
    """Nothing arrives before its time, everything arrives at it, and nothing overtakes."""
    lane = Lane(0.5)
    lane.put(b"a", 10.0)
    lane.put(b"b", 10.25)
    assert (lane.take(10.49), lane.due) == ([], 10.5)
    assert (lane.take(10.5), lane.due) == ([b"a"], 10.75)
    lane.put(b"c", 10.6)
    assert lane.take(99) == [b"b", b"c"]
    assert lane.take(99) == []


@contextmanager
def through(round_trip_s: float) -> Iterator[tuple[Child, socket.socket, socket.socket]]:
    """Give a line, and both ends of a connection over it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        delay_line(f"127.0.0.1:{target.getsockname()[1]}", round_trip_s, CORES) as line,
        dial(line.address) as near,
    ):
        target.settimeout(DEADLINE_S)
        far, _ = target.accept()
        with far:
            near.settimeout(DEADLINE_S)
            far.settimeout(DEADLINE_S)
            yield line, near, far


def test_each_direction_takes_half_of_the_round_trip() -> None:
    """A word needs half of the time there, and its answer the other half back, at least."""
    with through(0.2) as (line, near, far):
        start = time.perf_counter()
        near.sendall(b"there")
        assert far.recv(100) == b"there"
        half_way = time.perf_counter()
        far.sendall(b"back")
        assert near.recv(100) == b"back"
        assert half_way - start >= 0.1
        assert time.perf_counter() - half_way >= 0.1
        assert line.cpu_s() > 0


def test_nothing_waits_for_what_went_before() -> None:
    """What is sent while the first is on its way arrives with it: one delay, not one each."""
    with through(0.5) as (_, near, far):
        start = time.perf_counter()
        for _ in range(200):
            near.sendall(b"x" * 1000)
            time.sleep(0)  # let it go by itself
        arrived = 0
        while arrived < 200_000:
            arrived += len(far.recv(200_000))
        # 200 chunks that waited for one another would take 50 s; the deadline is less than that.
        assert 0.25 <= time.perf_counter() - start < DEADLINE_S


@pytest.mark.parametrize("closing", ["near", "far"])
def test_the_end_of_a_connection_comes_last(closing: str) -> None:
    """Who closes is read to the end, and then the other one hears it."""
    with through(0.02) as (_, near, far):
        first, other = (near, far) if closing == "near" else (far, near)
        first.sendall(b"x" * 100_000)
        first.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := other.recv(65536):
            got += chunk
        assert len(got) == 100_000


def test_a_line_to_nobody_refuses() -> None:
    """Where nothing listens the connection is closed, and the line stands for the next one."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with delay_line(f"127.0.0.1:{port}", 0.001, CORES) as line:
        for _ in range(2):
            with dial(line.address) as near:
                near.settimeout(DEADLINE_S)
                assert near.recv(1) == b""
