"""A stdout that says what is wrong with it.

Elsewhere a full disk is blamed on whatever was read meanwhile, or ends in a traceback; and a closed
stdout swallows a token without a word, and its number goes to the next socket that is opened.
"""

import errno
import io
import os
import select
import sys

_FD = 1


class NotWritten(Exception):
    """What was to be printed was not. Holds the system's own error.

    No OSError: who catches those means the files that it reads.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to stdout: {error.strerror}")
        self.errno = error.errno


class _Stdout(io.FileIO):
    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            raise NotWritten(error) from None


def replace_stdout() -> None:
    """Let every failure to write to stdout be a NotWritten, be it closed from the beginning."""
    old = sys.stdout
    if old is None:
        # Opened for reading, so that whoever writes to it learns.
        os.dup2(os.open(os.devnull, os.O_RDONLY), _FD)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(_FD, "w", closefd=False)),
        encoding=old.encoding if old else "utf-8",
        errors=old.errors if old else "strict",
        line_buffering=old is not None and old.isatty(),
    )


def expect_reader() -> None:
    """Raise NotWritten, if stdout is a pipe that nobody reads any more.

    Else only the next write would find out, and who waits for something to write may wait for ever.
    """
    end = select.poll()
    end.register(_FD, 0)  # POLLERR and POLLHUP need no asking
    if end.poll(0):
        raise NotWritten(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))


def discard_stdout() -> None:
    """Let what is still buffered go nowhere, instead of failing once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _FD)
