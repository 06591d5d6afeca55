"""A private redis-server (or valkey-server): enough for one machine, and for trying it out.

It listens on a unix socket in a directory of its own, 0700, and dies with the supervisor.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import BinaryIO

from spoa.deathsig import dying_with_us

BINARIES = ("valkey-server", "redis-server")

# An append-only file of a day's work on a slow disk is loaded in seconds; HAProxy answers 503
# meanwhile. A store that is not there after this long needs a human.
BOOT_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 1.0
_POLL_S = 0.02

# Room for many crash reports. A server that dies again and again must not fill the disk, and not
# bury the report of its first death either.
MAX_LOG_BYTES = 1024 * 1024
_LAST_WORDS_BYTES = 1024

# Append-only, not snapshots: a revocation must survive a crash of Redis although the sessions it
# ended survive too, and a snapshot forgets the last minute. Flushed every second: flushing each
# write would cost a disk write per batch, and what a power cut may take back is one second.
# noeviction: an evicted token is gone before its time, a replay of it looks like a guess.
# 128: a list of what a user has names sessions in 66 bytes; above 64 it would take 1,090 bytes, not
# 244. Redis 7 and Valkey know the option by this name, too, and 6.2 knows no other.
_CONFIG = """\
port 0
protected-mode yes
unixsocket {socket}
unixsocketperm 700
dir {directory}
daemonize no
loglevel notice
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
zset-max-ziplist-value 128
"""


class EmbeddedError(Exception):
    """The private Redis cannot run. The message is a sentence for the operator."""


class Embedded:
    """One server process at a time, in one directory.

    To be started from the main thread: the kernel ends the server with the thread that started it.
    """

    def __init__(self, directory: Path, unix_socket: Path) -> None:
        self._directory = directory
        self._socket = unix_socket
        self.log = directory / "redis.log"
        self._log_start = 0
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server; it answers a little later. Raises EmbeddedError."""
        binary = find_binary()
        # Anew at each start: somebody may have removed the directory, and the lock with it.
        self._release()
        try:
            self._lock = self._take_directory()
            self._process = self._spawn(binary, self._lock)
        except OSError as error:
            what = f"{error.filename} cannot be used" if error.filename else "no process for it"
            raise EmbeddedError(
                f"the private Redis cannot start: {what}: {error.strerror}"
            ) from None

    def wait(self) -> None:
        """Wait until the server answers. Raises EmbeddedError when it does not."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while not ping(self._socket):
            if self.is_dead:
                raise EmbeddedError(
                    f"the private Redis ended at once with exit code {self.exit_code}: "
                    f"{self.last_words() or 'it wrote nothing, is the disk full?'} "
                    f"(see {self.log})"
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"the private Redis did not answer within {BOOT_TIMEOUT_S:.0f} s; "
                    f"see {self.log}"
                )
            time.sleep(_POLL_S)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_dead(self) -> bool:
        """Tell whether a server was started and has ended. Reaps it."""
        return self._process is not None and self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """How the last server ended: its status, negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None

    def last_words(self) -> str:
        """Return the last line that the last server wrote to its log; "" if there is none."""
        try:
            with self.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - _LAST_WORDS_BYTES))
                words = log.read(_LAST_WORDS_BYTES).decode(errors="replace")
        except OSError:
            return ""
        return words.strip().rpartition("\n")[2]

    def fault(self) -> str | None:
        """Say what is wrong with the server, or None when it answers."""
        return None if ping(self._socket) else "the private Redis does not answer"

    def stop(self) -> None:
        """End the server, and wait for it: it flushes its append-only file."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_directory(self) -> int:
        """Lock the directory: two servers would write to one append-only file.

        The server inherits the lock, so it is held until the last of both has ended.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + PING_TIMEOUT_S
        while not _is_locked(lock):
            if time.monotonic() > deadline:
                os.close(lock)
                raise EmbeddedError(f"{self._directory} is in use by another `kat serve`")
            time.sleep(_POLL_S)
        return lock

    def _spawn(self, binary: str, lock: int) -> "subprocess.Popen[bytes]":
        config = _CONFIG.format(socket=_quoted(self._socket), directory=_quoted(self._directory))
        with self._open_log() as log:
            self._log_start = log.tell()
            process = subprocess.Popen(  # noqa: S603 - the binary comes from PATH, no shell
                dying_with_us([binary, "-"]),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for the supervisor: the store goes last
                umask=0o077,
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(config.encode())
        return process

    def _open_log(self) -> BinaryIO:
        """Go on with the log: the report of a crash must outlive the restart after it."""
        log = self.log.open("ab")
        if log.tell() <= MAX_LOG_BYTES:
            return log
        log.close()
        self.log.replace(self.log.with_name("redis.log.1"))
        return self.log.open("ab")


def ping(unix_socket: Path, timeout_s: float = PING_TIMEOUT_S) -> bool:
    """Tell whether a Redis at this socket answers and has loaded its data."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(str(unix_socket))
            client.sendall(b"PING\r\n")
            return client.recv(16) == b"+PONG\r\n"
        except OSError:
            return False


def find_binary() -> str:
    for name in BINARIES:
        if found := shutil.which(
            name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        ):
            return found
    raise EmbeddedError(
        'store.url is "embedded" and no redis-server or valkey-server is installed: '
        "`apt install redis-server` or `dnf install valkey`, or set store.url"
    )


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _quoted(path: Path) -> str:
    """Write a path as redis.conf reads it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
