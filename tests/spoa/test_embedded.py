"""The private Redis: private, and gone when it should be."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoa.supervisor.embedded import (
    BINARIES,
    MAX_LOG_BYTES,
    Embedded,
    EmbeddedError,
    find_binary,
    ping,
)
from tests.support.eventually import eventually


@pytest.fixture
def make(place: Path) -> Iterator[Callable[[], Embedded]]:
    """Make servers for one directory, with a blank and a quote in its name."""
    made: list[Embedded] = []
    directory = place / 'my "redis'

    def make() -> Embedded:
        made.append(Embedded(directory, directory / "s"))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def redis(make: Callable[[], Embedded]) -> Embedded:
    """Start a server and wait until it answers."""
    redis = make()
    redis.start()
    redis.wait()
    return redis


def _ask(directory: Path, *words: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / "s"))
        client.sendall(" ".join(words).encode() + b"\r\n")
        return client.recv(4096)


def _directory(place: Path) -> Path:
    return place / 'my "redis'


def test_nobody_else_can_look(redis: Embedded, place: Path) -> None:
    """Directory, socket and data are the owner's alone, whatever the umask."""
    assert redis.fault() is None
    directory = _directory(place)
    assert b"+OK" in _ask(directory, "SET", "a", "b")
    paths = [directory, *directory.rglob("*")]
    assert len(paths) > 4
    public = [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert [path for path in public if path.name != "redis.log"] == []


def test_it_evicts_nothing_and_listens_nowhere_else(redis: Embedded, place: Path) -> None:
    """No port, no eviction, every write in the append-only file."""
    assert redis.fault() is None
    for setting, value in (
        ("port", b"\r\n0\r\n"),
        ("maxmemory-policy", b"\r\nnoeviction\r\n"),
        ("appendonly", b"\r\nyes\r\n"),
    ):
        assert value in _ask(_directory(place), "CONFIG", "GET", setting)


def test_nothing_is_told_to_the_process_list(redis: Embedded) -> None:
    """The server's configuration is in no argument."""
    arguments = Path(f"/proc/{redis.pid}/cmdline").read_bytes()
    assert b"appendonly" not in arguments


def test_what_was_written_survives_a_kill(redis: Embedded, place: Path) -> None:
    """A revocation outlives a crash of the server."""
    assert b"+OK" in _ask(_directory(place), "SET", "kat:cut", "x")
    assert redis.pid
    os.kill(redis.pid, signal.SIGKILL)
    eventually(lambda: redis.is_dead, "the server's death")
    assert redis.fault() == "the private Redis does not answer"
    redis.start()
    redis.wait()
    assert b"x" in _ask(_directory(place), "GET", "kat:cut")


def test_one_directory_has_one_server(redis: Embedded, make: Callable[[], Embedded]) -> None:
    """A second `kat serve` leaves the first one's data alone."""
    with pytest.raises(EmbeddedError, match="in use by another `kat serve`"):
        make().start()
    assert redis.fault() is None


def test_stopping_frees_the_directory(redis: Embedded, make: Callable[[], Embedded]) -> None:
    """Who comes after can start at once."""
    redis.stop()
    assert redis.is_dead
    successor = make()
    successor.start()
    successor.wait()
    assert successor.fault() is None


def test_it_dies_with_its_parent(place: Path) -> None:
    """A supervisor killed with SIGKILL leaves no server behind."""
    code = """if True:
        import sys, pathlib, signal
        from spoa.supervisor.embedded import Embedded
        place = pathlib.Path(sys.argv[1])
        redis = Embedded(place / "r", place / "r" / "s")
        redis.start()
        redis.wait()
        print(redis.pid, flush=True)
        signal.pause()
    """
    parent = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE)
    assert parent.stdout
    with parent.stdout:
        assert int(parent.stdout.readline()) > 0
        assert ping(place / "r" / "s")
        parent.kill()
        parent.wait()
    eventually(lambda: not ping(place / "r" / "s"), "the server's end")


def test_a_server_that_cannot_start_is_quoted(make: Callable[[], Embedded], place: Path) -> None:
    """The reason is the server's own last line."""
    directory = _directory(place)
    (directory / "appendonlydir").mkdir(parents=True)
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_text("rubbish\n")
    redis = make()
    redis.start()
    with pytest.raises(EmbeddedError, match=r"ended at once with exit code 1: .*manifest"):
        redis.wait()


def test_a_silent_end_is_explained(make: Callable[[], Embedded], place: Path) -> None:
    """If nothing is in the log: the exit code, a guess and the path are named."""
    directory = _directory(place)
    directory.mkdir()
    (directory / "redis.log").symlink_to("/dev/null")
    (directory / "appendonlydir").touch()
    redis = make()
    redis.start()
    with pytest.raises(EmbeddedError, match=r"exit code 1: .*is the disk full.*redis\.log"):
        redis.wait()


def test_a_removed_directory_is_made_again(redis: Embedded, place: Path) -> None:
    """A server can be restarted although its directory is gone, and the directory is locked."""
    assert redis.pid
    shutil.rmtree(_directory(place))
    os.kill(redis.pid, signal.SIGKILL)
    eventually(lambda: redis.is_dead, "the server's death")
    redis.start()
    redis.wait()
    with pytest.raises(EmbeddedError, match="in use by another `kat serve`"):
        Embedded(_directory(place), _directory(place) / "s").start()


def test_the_log_outlives_a_restart(redis: Embedded) -> None:
    """What a server wrote before its death stays, and is not taken for its successor's words."""
    assert redis.pid
    os.kill(redis.pid, signal.SIGKILL)
    eventually(lambda: redis.is_dead, "the server's death")
    assert redis.exit_code == -signal.SIGKILL
    assert "eady to accept connections" in redis.last_words()
    before = redis.log.read_text()
    redis.start()
    redis.wait()
    assert redis.log.read_text().startswith(before)
    assert len(redis.log.read_text()) > len(before)


def test_the_log_is_bounded(make: Callable[[], Embedded], place: Path) -> None:
    """A log above its limit is put aside at the next start."""
    directory = _directory(place)
    directory.mkdir()
    (directory / "redis.log").write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    redis = make()
    redis.start()
    redis.wait()
    assert (directory / "redis.log.1").stat().st_size == MAX_LOG_BYTES + 1
    assert redis.log.stat().st_size < MAX_LOG_BYTES


def test_a_log_that_cannot_be_written_is_named(make: Callable[[], Embedded], place: Path) -> None:
    """A directory in the log's place is an operator's mistake."""
    (_directory(place) / "redis.log").mkdir(parents=True)
    with pytest.raises(EmbeddedError, match=r"redis\.log cannot be used: Is a directory"):
        make().start()


def test_a_missing_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a binary the operator is told what to install."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(EmbeddedError, match="apt install redis-server"):
        find_binary()
    monkeypatch.undo()
    assert Path(find_binary()).name in BINARIES


def test_a_directory_that_cannot_be_made_is_named(place: Path) -> None:
    """A file in the way is an operator's mistake."""
    (place / "r").touch()
    with pytest.raises(EmbeddedError, match="/r cannot be used: File exists"):
        Embedded(place / "r", place / "r" / "s").start()
