"""Commands that the kernel ends together with whoever started them, however that one dies."""

import os
import signal
import sys

# Becomes the command, after asking the kernel (PR_SET_PDEATHSIG = 1) to end it with its parent.
# Not preexec_fn: that runs Python between fork and exec while other threads may hold locks.
_EXEC = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[2]))
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[3], sys.argv[3:])
"""


def dying_with_us(command: list[str]) -> list[str]:
    """Write `command`, whose first word is a path, so that it gets SIGTERM when we are gone.

    To be started from the main thread: the kernel ends it with the thread that started it.
    """
    parent, number = str(os.getpid()), str(int(signal.SIGTERM))
    return [sys.executable, "-I", "-S", "-c", _EXEC, parent, number, *command]
