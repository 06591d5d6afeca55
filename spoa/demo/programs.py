"""Starts and ends the demo's child processes. Each writes into a log file of its own."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from spoa.deathsig import dying_with_us

# Above the agent's own limits.drain_s (10 s) and the time its Redis takes to end.
STOP_TIMEOUT_S = 25.0
READY_TIMEOUT_S = 30.0
LOOPBACK = "127.0.0.1"
_POLL_S = 0.03
_QUOTED_LINES = 8


class DemoError(Exception):
    """The demo cannot go on. The message is for a human."""


class Ended(Exception):
    """Whoever started the demo has had enough."""


class Program:
    """A child process, ended at the end of its `with` block.

    It gets no Ctrl-C of its own, so that things end in order; `ended` tells those who wait. The
    kernel ends it if the demo itself dies. KAT_ variables are those of `settings` and no others:
    what the operator set means a real agent, or a real HAProxy.
    """

    def __init__(
        self,
        command: list[str],
        log: Path,
        settings: Mapping[str, str],
        ended: Event,
        pass_fds: Sequence[int] = (),
    ) -> None:
        others = {key: value for key, value in os.environ.items() if not key.startswith("KAT_")}
        self._log = log
        self._ended = ended
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                dying_with_us(command),
                env={**others, **settings},
                cwd=log.parent,  # the one we were called in may be gone
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and wait; by force, with all it started, if it does not listen."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait_until(self, is_true: Callable[[], bool], wish: str) -> None:
        """Wait for something that the program does; `wish` words it for the error.

        Raises DemoError when the program ends or takes too long, Ended when the user does.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_true():
            if self._process.poll() is not None:
                raise DemoError(f"{wish}, but it ended:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{wish}, in vain for {READY_TIMEOUT_S:.0f} s:\n{self._last_words()}"
                )
            if self._ended.wait(_POLL_S):
                raise Ended

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_QUOTED_LINES:]
        return "\n".join([*(f"  {line}" for line in lines), f"All of its log: {self._log}"])


def listen(preferred: int = 0) -> socket.socket:
    """Listen on loopback, on the preferred port unless it is taken. Raises DemoError."""
    for port in (preferred, 0):
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, port))
            listener.listen()  # before it, SO_REUSEADDR lets another process bind the same port
        except OSError:
            listener.close()
        else:
            return listener
    raise DemoError("no loopback port is free")


def address_of(listener: socket.socket) -> str:
    """Write where it listens as host:port."""
    host, port = listener.getsockname()
    return f"{host}:{port}"
