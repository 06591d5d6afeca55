"""Which signals the supervisor hears, and how they reach its one place of waiting."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})

# Elsewhere they mean "read your configuration again" or "open your log again", and whoever sends
# them means no harm. Their default would end us at once, with connections and sockets left behind.
IGNORED_SIGNALS = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})

# A terminal sends these to every process in it, and `pkill` to every process of a name. Only the
# supervisor heeds them; it tells its workers with SIGTERM.
SUPERVISORS_SIGNALS = (STOP_SIGNALS - {signal.SIGTERM}) | IGNORED_SIGNALS


@contextmanager
def withheld() -> Iterator[None]:
    """Start processes that get none of SUPERVISORS_SIGNALS until they let them in themselves.

    A new process inherits what is blocked, while our handlers are not its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISORS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def heard() -> Iterator[socket.socket]:
    """Turn signals into bytes on a socket, so that they end a wait instead of a system call."""
    receiver, sender = socket.socketpair()
    for end in (receiver, sender):
        end.setblocking(False)  # noqa: FBT003 - the socket module's way
    # SIGCHLD: the private Redis is no multiprocessing.Process, this is how its death is seen.
    numbers = {*STOP_SIGNALS, *IGNORED_SIGNALS, signal.SIGCHLD}
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()
