"""Binding, and leaving others' sockets alone."""

import errno
import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from spoa.config.endpoint import TcpEndpoint, UnixEndpoint
from spoa.listen import ListenError, bind, find_closed_door, is_answered


def test_only_owner_and_group_can_connect(place: Path) -> None:
    """A socket is 0660, whatever the umask."""
    before = os.umask(0)
    try:
        listener = bind(UnixEndpoint(str(place / "s")))
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "s").stat().st_mode) == 0o660
    listener.close()


def test_a_socket_in_use_is_not_taken(place: Path) -> None:
    """Who still answers keeps his socket."""
    endpoint = UnixEndpoint(str(place / "s"))
    first = bind(endpoint)
    with pytest.raises(ListenError, match=r"unix:.*/s cannot be bound: another process listens"):
        bind(endpoint)
    assert is_answered(endpoint.path)
    first.close()


def test_a_stale_socket_is_replaced(place: Path) -> None:
    """The file of a process that was killed is no obstacle."""
    endpoint = UnixEndpoint(str(place / "s"))
    bind(endpoint).socket.close()
    assert (place / "s").exists()
    assert not is_answered(endpoint.path)
    second = bind(endpoint)
    assert is_answered(endpoint.path)
    second.close()


def test_a_socket_goes_with_its_listener(place: Path) -> None:
    """Closing removes the file, and a second time does nothing."""
    listener = bind(UnixEndpoint(str(place / "s")))
    listener.close()
    assert not (place / "s").exists()
    (place / "s").touch()
    listener.close()
    assert (place / "s").exists()


def test_a_successors_socket_stays(place: Path) -> None:
    """Who has been replaced does not remove the socket of his successor."""
    endpoint = UnixEndpoint(str(place / "s"))
    old = bind(endpoint)
    (place / "s").rename(place / "elsewhere")
    new = bind(endpoint)
    old.close()
    assert is_answered(endpoint.path)
    new.close()


def test_a_file_that_is_no_socket_is_not_removed(place: Path) -> None:
    """Only sockets are ever removed."""
    (place / "s").write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        bind(UnixEndpoint(str(place / "s")))
    assert (place / "s").read_text() == "precious"


def test_a_directory_that_is_not_there_is_named(place: Path) -> None:
    """The sentence holds the path and the reason."""
    with pytest.raises(ListenError, match="none/s cannot be bound: No such file or directory"):
        bind(UnixEndpoint(str(place / "none" / "s")))


def test_a_removed_or_replaced_socket_is_a_fault(place: Path) -> None:
    """A listener knows whether clients still find it by its path."""
    listener = bind(UnixEndpoint(str(place / "s")))
    assert listener.fault() is None
    (place / "s").unlink()
    gone = listener.fault()
    assert gone == f"unix:{place}/s was removed or replaced: restart to bind it again"
    (place / "s").touch()
    assert listener.fault() == gone
    listener.close()
    assert (place / "s").exists()


def test_a_stranger_to_the_group_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not give the socket to the group learns who must join which, and nothing stays."""
    monkeypatch.setattr("os.chown", _refuse)
    monkeypatch.setattr("os.getgroups", list)
    with pytest.raises(ListenError, match=r"user \S+ is no member of group 'daemon'.*usermod -aG"):
        bind(UnixEndpoint(str(place / "s")), "daemon")
    assert not (place / "s").exists()


def test_a_member_of_the_group_is_not_told_to_join(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else forbids it is reported as it is."""
    monkeypatch.setattr("os.chown", _refuse)
    monkeypatch.setattr("os.getgroups", lambda: [grp.getgrnam("daemon").gr_gid])
    with pytest.raises(ListenError, match="cannot be bound: Operation not permitted"):
        bind(UnixEndpoint(str(place / "s")), "daemon")


def _refuse(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize(
    ("mode", "owner", "verdict"),
    [
        (0o700, "other", "closed"),
        (0o710, "other", "closed"),
        (0o701, "other", "open"),
        (0o710, "same", "open"),
        (0o701, "same", "closed"),
    ],
)
def test_a_closed_door_is_found(place: Path, mode: int, owner: str, verdict: str) -> None:
    """A group passes its own directory by the group's bit, any other by the bit of others."""
    inner = place / "inner"
    inner.mkdir()
    place.chmod(0o711)
    mine = inner.stat().st_gid
    group = next(one for one in grp.getgrall() if (one.gr_gid == mine) == (owner == "same"))
    inner.chmod(mode)
    found = find_closed_door(inner / "s", group.gr_name)
    assert found == (inner if verdict == "closed" else None)


def test_tcp_can_be_bound_once() -> None:
    """A port in use is named."""
    first = bind(TcpEndpoint("127.0.0.1", 0))
    port = first.socket.getsockname()[1]
    with pytest.raises(ListenError, match=f"127.0.0.1:{port} cannot be bound: another process"):
        bind(TcpEndpoint("127.0.0.1", port))
    first.close()


def test_a_full_backlog_is_an_answer(place: Path) -> None:
    """A busy agent's socket is not taken for a stale one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "s"))
    listener.listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for peer in waiting:
        peer.settimeout(0)
        peer.connect_ex(str(place / "s"))
    assert is_answered(str(place / "s"))
    for one in (listener, *waiting):
        one.close()
