"""HAProxy with ACLs to be kept, and `kat allowlist`, which keeps them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.haproxy import read_answer, tell

CONFIGURATION = Path(__file__).parents[1] / "haproxy" / "allowlist" / "kept.cfg"
ANSWER_TIMEOUT_S = 10
STOP_DEADLINE_S = 10

_DOORS = ("KEPT_HTTP", "KEPT_TCP", "KEPT_OTHER", "KEPT_TLS")


class Kept:
    """A HAProxy that may be stopped and started again, at the same ports and the same socket."""

    def __init__(
        self, binary: Path, folder: Path, service: str, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.runtime = folder / "admin.sock"
        self.file = folder / "wiki.acl"
        self.mixed = folder / "wiki.acl.mixed"
        for file in (self.file, self.mixed):
            file.touch()
        self.log_file = folder / "haproxy.log"
        self._binary = binary
        self._sockets = ExitStack()
        self._doors = {name: self._bind() for name in _DOORS}
        self._settings = {
            "KEPT_RUNTIME": str(self.runtime),
            "KEPT_FILE": str(self.file),
            "KEPT_SERVICE": service,
            **{name: f"fd@{door.fileno()}" for name, door in self._doors.items()},
            **(settings or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Run it; `-W` among the options makes a master that can be reloaded."""
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [self._binary, *(options or ("-db",)), "-f", CONFIGURATION],
                env={"PATH": os.environ["PATH"], **self._settings},
                pass_fds=[door.fileno() for door in self._doors.values()],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._answers, f"HAProxy answers at {self.runtime}: {self.log_file.read_text()}")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(STOP_DEADLINE_S)
            self.process = None

    def close(self) -> None:
        self.stop()
        self._sockets.close()

    def tell(self, command: str) -> str:
        """Say a command to the Runtime API, as socat would; return the whole answer."""
        return tell(self.runtime, command)

    def entries(self, acl: str = "#500") -> list[str]:
        """Return what an ACL holds."""
        lines = self.tell(f"show acl {acl}").splitlines()
        return [line.partition(" ")[2] for line in lines if line.startswith("0x")]

    def status(self, source: str) -> int:
        """Ask at the web's door from this loopback address."""
        with self.connect("KEPT_HTTP", source) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return read_answer(client).status

    def connect(self, door: str, source: str) -> socket.socket:
        place = ("127.0.0.1", self.port(door))
        return socket.create_connection(place, ANSWER_TIMEOUT_S, (source, 0))

    def pid(self) -> int:
        """Tell which process answers."""
        lines = self.tell("show info").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))

    def port(self, door: str) -> int:
        return int(self._doors[door].getsockname()[1])

    def _bind(self) -> socket.socket:
        return self._sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))

    def _answers(self) -> bool:
        with suppress(OSError):
            return "Pid:" in self.tell("show info")
        return False


@contextmanager
def kept(
    binary: Path, folder: Path, service: str = "127.0.0.1:1", **settings: str
) -> Iterator[Kept]:
    """Run one until the block ends."""
    folder.mkdir(exist_ok=True)
    haproxy = Kept(binary, folder, service, settings)
    try:
        haproxy.start()
        yield haproxy
    finally:
        haproxy.close()


class Allowlist:
    """`kat allowlist` with a configuration of its own."""

    def __init__(
        self, folder: Path, store: str, targets: Mapping[str, Mapping[str, object]]
    ) -> None:
        self.config = folder / "allowlist.toml"
        self.log_file = folder / "allowlist.log"
        self.config.write_text(_toml(folder, store, targets))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [*_KAT, "allowlist", "-c", self.config],
                env=_environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> int:
        """End it as systemd does; return its exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_DEADLINE_S)
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(STOP_DEADLINE_S)
            self.process = None

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def told(self, words: str, times: int = 1) -> None:
        """Wait until its log has these words so many times."""
        eventually(lambda: self.log().count(words) >= times, f"{words!r} in {self.log()}")

    def show(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run `kat allowlist --show`."""
        return subprocess.run(
            [*_KAT, "allowlist", "--show", *options, "-c", self.config],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@contextmanager
def keeping(
    folder: Path, store: str, targets: Mapping[str, Mapping[str, object]]
) -> Iterator[Allowlist]:
    """Run `kat allowlist` until the block ends."""
    allowlist = Allowlist(folder, store, targets)
    try:
        allowlist.start()
        yield allowlist
    finally:
        allowlist.kill()


def target(haproxy: Kept, **changes: object) -> dict[str, object]:
    """Configure one HAProxy: the grants of `wiki` into `#500`."""
    return {"runtime": f"unix:{haproxy.runtime}", "acl": {"wiki": ["#500"]}, **changes}


_KAT: Sequence[str] = (sys.executable, "-m", "spoa.cli")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}


def _toml(folder: Path, store: str, targets: Mapping[str, Mapping[str, object]]) -> str:
    lines = [f"state_dir = {json.dumps(str(folder))}", "[store]", f"url = {json.dumps(store)}"]
    for name, keys in targets.items():
        lines.append(f"[allowlist.{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """Write a value as TOML; JSON is the same, but for tables."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{json.dumps(key)} = {_value(it)}" for key, it in value.items())
        return f"{{ {inside} }}"
    return json.dumps(value)
