"""Binds what HAProxy connects to. A socket somebody still answers on is never taken away."""

import errno
import grp
import os
import pwd
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from spoa.config.endpoint import Endpoint, TcpEndpoint, UnixEndpoint

# A cold burst opens one SPOP connection for each waiting request: 1,000 must fit. The kernel cuts
# it to net.core.somaxconn (4096 since Linux 5.4). asyncio calls listen() once more with its own
# default of 100, so whoever serves these sockets passes this on.
BACKLOG = 4096

# HAProxy's user gets in by the group. Whoever can connect can consume tokens: nobody else may.
SOCKET_MODE = 0o660


class ListenError(Exception):
    """An address cannot be bound. The message is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, and the file it is found by when it is a unix socket."""

    endpoint: Endpoint
    socket: socket.socket
    file: tuple[int, int] | None = None

    def fault(self) -> str | None:
        """Say why nobody can connect any more although we listen, or None."""
        if not isinstance(self.endpoint, UnixEndpoint) or _file(self.endpoint.path) == self.file:
            return None
        return f"{self.endpoint} was removed or replaced: restart to bind it again"

    def close(self) -> None:
        """Close, and remove the file unless somebody has put another there meanwhile."""
        if self.socket.fileno() < 0:
            return
        if isinstance(self.endpoint, UnixEndpoint) and not self.fault():
            Path(self.endpoint.path).unlink(missing_ok=True)
        self.socket.close()


def bind(endpoint: Endpoint, group: str | None = None) -> Listener:
    """Listen at `endpoint`. Raises ListenError."""
    try:
        if isinstance(endpoint, TcpEndpoint):
            return _bind_tcp(endpoint)
        return _bind_unix(endpoint, group)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "another process listens there"
        raise ListenError(f"{endpoint} cannot be bound: {reason}") from None


def _bind_tcp(endpoint: TcpEndpoint) -> Listener:
    (family, _, _, _, address), *_ = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM
    )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return Listener(endpoint, listener)


def _bind_unix(endpoint: UnixEndpoint, group: str | None) -> Listener:
    _remove_stale(endpoint.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(endpoint.path)
    except OSError:
        listener.close()
        raise
    bound = Listener(endpoint, listener, _file(endpoint.path))
    try:
        # Nobody can connect before listen(): the file has its owner and mode by then.
        admit(group, Path(endpoint.path), SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def admit(group: str | None, path: Path, mode: int) -> None:
    """Give what we made to `group`, with this mode. Raises OSError."""
    if group is not None:
        _give(path, group)
    path.chmod(mode)


def _give(path: Path, group: str) -> None:
    gid = grp.getgrnam(group).gr_gid
    try:
        os.chown(path, -1, gid)
    except PermissionError as error:
        if gid in {os.getegid(), *os.getgroups()}:
            raise
        user = _user()
        reason = (
            f"user {user} is no member of group {group!r} (listen.group): "
            f"`usermod -aG {group} {user}`, then log in again"
        )
        raise PermissionError(error.errno, reason) from None


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def find_closed_door(path: Path, group: str) -> Path | None:
    """Return the outermost directory on the way to `path` that `group` cannot pass, by its mode."""
    gid = grp.getgrnam(group).gr_gid
    for directory in reversed(path.resolve().parents):
        try:
            found = directory.stat()
        except OSError:
            return directory
        # The first class that fits decides: a member of its group is never one of the others.
        if not found.st_mode & (stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH):
            return directory
    return None


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone. Raises OSError when it is not gone."""
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is no socket is in the way")
    if is_answered(path):
        raise OSError(errno.EADDRINUSE, "in use")
    Path(path).unlink(missing_ok=True)


def is_answered(path: str) -> bool:
    """Tell whether a process listens on this unix socket. A full backlog is an answer too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        return client.connect_ex(path) not in {errno.ECONNREFUSED, errno.ENOENT}


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
