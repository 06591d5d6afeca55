"""A crowd of connections: opened at once, greeted, closed again; and after a pause the next one.

HAProxy opens one for each request of a cold burst, because no HELLO is answered yet.
"""

import resource
import select
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Final

from spoa.bench.fault import Fault
from spoa.bench.load.channel import dial
from spoa.bench.load.frames import encode_hello
from spoa.bench.result import Round
from spoa.spop.constants import FRAME_LENGTH_BYTES, FrameType

PATIENCE_S: Final = 10.0
"""A crowd that is not greeted by then is given up, and what is missing counts as wrong."""

_ENGINE_ID = b"5a9e6c1e-0000-4000-8000-0000000c40ed"
_OTHER_FILES = 64
_READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who crowds: so many connections at once, and how long until the next ones."""

    agent: str
    connections: int
    pause_s: float

    def __call__(self, control: Connection) -> Round:
        """Crowd once, and until there is anything to hear. Raises OSError, Fault."""
        raise_file_limit(self.connections)
        took: list[float] = []
        greeted = 0
        wrong: Counter[str] = Counter()
        control.send("ready")
        while not took or not control.poll(self.pause_s):
            started = time.perf_counter()
            came = self._burst()
            took.append(time.perf_counter() - started)
            greeted += came
            wrong["connections not greeted"] += self.connections - came
        figures = {"bursts": float(len(took)), "connections": float(greeted)}
        return Round(figures | {"greeted_ms": 1000 * median(took)}, +wrong)

    def _burst(self) -> int:
        """Open all, say HELLO on each, close all when each is greeted; count the greetings."""
        hello = encode_hello(_ENGINE_ID)
        give_up_at = time.perf_counter() + PATIENCE_S
        with ExitStack() as stack:
            poll = stack.enter_context(select.epoll())
            waiting = {}
            for _ in range(self.connections):
                sock = stack.enter_context(dial(self.agent))
                sock.sendall(hello)
                poll.register(sock, select.EPOLLIN)
                waiting[sock.fileno()] = sock
            greeted = 0
            while waiting and (events := poll.poll(give_up_at - time.perf_counter())):
                for fd, _ in events:
                    poll.unregister(fd)
                    greeted += _is_greeting(waiting.pop(fd).recv(_READ_BYTES))
        return greeted


def raise_file_limit(connections: int) -> None:
    """Ask for a file for each connection. Raises Fault when there may not be so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Fault(f"{connections} connections need {wanted} files, `ulimit -Hn` is {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_greeting(data: bytes) -> bool:
    return len(data) > FRAME_LENGTH_BYTES and data[FRAME_LENGTH_BYTES] == FrameType.AGENT_HELLO
