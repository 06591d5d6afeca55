"""`python -m bench.bare`: what Redis itself bears of redeem.lua, without any agent.

A driver that does nothing but send calls prepared beforehand, always some of them ahead, and take
the answers: nobody can consume faster through this script. Printed are medians of five rounds.
"""

import socket
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

import hiredis

from spoa.bench.load.corpus import ACL, HOST, METHOD, PATH, client_address, issue, mint
from spoa.bench.servers import Server, private_redis
from tokens.check import Check
from tokens.policy import redeem
from tokens.policy.redeem import Call, Redeemer, read_answers
from tokens.question import Fence, Reply
from tokens.record import Keys
from tokens.store.resp import pack

_TOKENS: Final = 65_536
_ROUNDS: Final = 5
_SIZES: Final = (128, 32, 4, 1)
_AHEAD_TOKENS: Final = 256
"""So many are on their way: Redis never waits for us."""

_DEADLINE_MS: Final = 60_000
_ROOM_BYTES: Final = 8_000


class _Line:
    """A connection to Redis, as plain as can be."""

    def __init__(self, store: Server) -> None:
        self._store = store
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(store.socket)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)

    def ask(self, *words: bytes) -> Reply:
        self._socket.sendall(pack([words]))
        return self._hear()

    def _hear(self) -> Reply:
        while (reply := self._reader.gets()) is Ellipsis:
            self._reader.feed(self._socket.recv(1 << 18))
        answer: Reply = reply
        return answer

    def play(self, calls: list[Call], fence: Fence, ahead: int) -> tuple[float, float]:
        """Send all calls; return how long it took and the CPU time of Redis, in s."""
        written = [pack([call.question.write(fence)]) for call in calls]
        cpu_s, started = self._store.cpu_s(), time.perf_counter()
        for number in range(len(written) + ahead):
            if number < len(written):
                self._socket.sendall(written[number])
            if number >= ahead:
                call = calls[number - ahead]
                if not all(type(code) is int for _, code, _ in read_answers(call, self._hear())):
                    raise RuntimeError("Redis refused a token")
        return time.perf_counter() - started, self._store.cpu_s() - cpu_s


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="kat-bare-") as directory,
        private_redis(Path(directory)) as store,
    ):
        line = _Line(store)
        line.ask(b"SCRIPT", b"LOAD", redeem.SCRIPT)
        info = line.ask(b"INFO", b"replication")
        assert isinstance(info, bytes)
        fence = Fence(info.partition(b"master_replid:")[2][:40], 0)
        print("tokens per call  consumes/s  Redis us per consume")
        for size in _SIZES:
            rounds = [_round(line, store, fence, size) for _ in range(_ROUNDS)]
            elapsed_s, cpu_s = (median(column) / _TOKENS for column in zip(*rounds, strict=True))
            print(f"{size:15}  {1 / elapsed_s:10,.0f}  {1e6 * cpu_s:20.2f}", flush=True)


def _round(line: _Line, store: Server, fence: Fence, size: int) -> tuple[float, float]:
    tokens = mint(_TOKENS)
    issue(store.socket, tokens)
    checks = [
        Check(ACL, token.text, HOST, METHOD, PATH, b"", client_address(n), _ROOM_BYTES)
        for n, token in enumerate(tokens)
    ]
    calls = Redeemer(Keys(), _DEADLINE_MS, size).calls(checks)
    spent = line.play(calls, fence, _AHEAD_TOKENS // size)
    line.ask(b"FLUSHALL")
    return spent


if __name__ == "__main__":
    main()
