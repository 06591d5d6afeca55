"""Something that goes on beside a round, in a process of its own, until it is told to stop."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from spoa.bench.fault import Fault
from spoa.bench.result import Round

REPLY_TIMEOUT_S = 60.0

Doing = Callable[[Connection], Round]
"""Says `ready` when it has begun, goes on until there is anything to hear, and returns what came of
it. It travels to its process: a frozen dataclass with `__call__`."""


@dataclass(frozen=True, slots=True)
class Companion:
    """What goes on."""

    control: Connection

    def stop(self) -> Round:
        """Tell it to stop, and take what came of it. Raises what broke it."""
        with suppress(BrokenPipeError):  # it has ended: what it said last is still to be heard
            self.control.send("stop")
        said = _hear(self.control)
        assert isinstance(said, Round)
        return said


@contextmanager
def beside(doing: Doing) -> Iterator[Companion]:
    """Have it done as long as the block runs. No process is left, however the block ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(doing, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        _hear(ours)
        yield Companion(ours)
    finally:
        process.terminate()
        process.join()
        ours.close()


def _run(doing: Doing, control: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, it ends us
    try:
        control.send(doing(control))
    except Exception as error:  # noqa: BLE001 - a process of its own: the parent raises it
        control.send(error)


def _hear(control: Connection) -> object:
    if not control.poll(REPLY_TIMEOUT_S):
        raise Fault(f"what goes on beside said nothing for {REPLY_TIMEOUT_S:g} s")
    try:
        said: object = control.recv()
    except (EOFError, ConnectionError):
        raise Fault("the process beside the round died") from None
    if isinstance(said, Exception):
        raise said
    return said
