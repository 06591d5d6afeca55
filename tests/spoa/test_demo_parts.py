"""The parts of the demo that only a bad day would show."""

import io
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from spoa.demo.authority import Certificate, have_certificate
from spoa.demo.gate import find_haproxy, haproxy_version
from spoa.demo.place import Place, find_place, occupied
from spoa.demo.programs import DemoError, Ended, Program, address_of, listen
from spoa.demo.screen import Screen
from spoa.demo.walk import Seen, Step

ALLOWED, REFUSED = Seen(200, is_application_reached=True), Seen(403, is_application_reached=False)


def fake(folder: Path, script: str) -> Path:
    path = folder / "haproxy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def shell() -> str:
    found = shutil.which("sh")
    assert found
    return found


@pytest.fixture
def lonely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine without any agent. Returns its default state directory."""
    monkeypatch.setattr("spoa.demo.place.default_state_dir", lambda: tmp_path / "default")
    monkeypatch.setattr("spoa.demo.place.DEFAULT_PATH", tmp_path / "etc/kat.toml")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return tmp_path / "default"


def test_without_an_agent_the_place_is_the_usual_one(lonely: Path) -> None:
    """Then plain `kat issue` finds the demo's agent, also the second time."""
    for _ in range(2):
        place = find_place({"KAT_HOSTS": "for HAProxy"})
        (kat,) = shlex.split(place.kat)  # and no variables before it
        assert kat.endswith("/bin/kat")
        with occupied(place.config()):
            (lonely / "redis").mkdir(exist_ok=True)


@pytest.mark.parametrize("name", ["KAT_CONFIG", "KAT_STORE__URL", "KAT_RUN_DIR", "file", "data"])
def test_beside_an_agent_the_place_is_another(lonely: Path, name: str) -> None:
    """A variable, /etc/kat, or data in the usual place: each means a real agent."""
    (lonely.parent / "etc" if name == "file" else lonely / "redis").mkdir(parents=True)
    environment = {name: "/x"} if name.startswith("KAT_") else {}
    if environment:
        (lonely / "redis").rmdir()
    place = find_place(environment)
    assert place.folder == lonely.parent / f"kat-demo-{os.geteuid()}"
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert f"KAT_STATE_DIR={place.folder} " in place.kat


@pytest.mark.parametrize("trap", ["link", "open"])
def test_a_prepared_folder_is_refused(lonely: Path, trap: str) -> None:
    """In the temporary directory a folder that others can write to is not used."""
    folder = lonely.parent / f"kat-demo-{os.geteuid()}"
    if trap == "link":
        lonely.mkdir(mode=0o700)
        folder.symlink_to(lonely)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(DemoError, match="not yours alone"):
        find_place({"KAT_CONFIG": "/x"})


def test_a_place_is_given_up_before_it_is_touched(tmp_path: Path) -> None:
    """Where an agent answers, the logs stay, and the sentence says how to find it."""
    config = Place(tmp_path, is_default=False).config()
    (tmp_path / "run").mkdir()
    log = tmp_path / "demo/agent.log"
    log.parent.mkdir()
    log.touch()
    with closing(socket.socket(socket.AF_UNIX)) as agent:
        agent.bind(str(tmp_path / "run/spoa.sock"))
        agent.listen()
        with pytest.raises(DemoError, match=r"ss -xlp src .*/run/spoa.sock"), occupied(config):
            pass
    assert log.exists()
    with occupied(config):
        assert not log.exists()


def test_a_missing_haproxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HAProxy the sentence says what to install."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(DemoError, match="apt install haproxy"):
        find_haproxy(None)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo HA-Proxy version 2.4.22-0ubuntu0.22.04.2 2023/08/14", "2.6 or newer is needed"),
        ("echo nginx version: 1.24", "is not a HAProxy"),
        ("exit 1", "is not a HAProxy"),
    ],
)
def test_a_haproxy_that_cannot_be_used_is_refused(tmp_path: Path, script: str, words: str) -> None:
    """An old HAProxy, or none at all, is refused before anything is started."""
    with pytest.raises(DemoError, match=words):
        find_haproxy(fake(tmp_path, script))


def test_the_version_is_read_as_haproxy_writes_it(tmp_path: Path) -> None:
    """A distribution's suffix is no part of the version."""
    path = fake(tmp_path, "echo HAProxy version 3.2.4-98813a1 2025/08/13 - https://haproxy.org/")
    assert haproxy_version(path) == "3.2.4"


def test_a_program_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    """Waiting for a dead program stops at once, with its last words."""
    command = [shell(), "-c", "echo goodbye; exit 3"]
    with (
        Program(command, tmp_path / "log", {}, Event()) as program,
        pytest.raises(DemoError, match="goodbye"),
    ):
        program.wait_until(lambda: False, "waited for nothing")


def test_a_wait_ends_with_ctrl_c(tmp_path: Path) -> None:
    """Whoever waits for a program hears of Ctrl-C, and the program is ended."""
    ended = Event()
    ended.set()
    begin = time.monotonic()
    with (
        pytest.raises(Ended),
        Program([shell(), "-c", "sleep 60"], tmp_path / "log", {}, ended) as program,
    ):
        program.wait_until(lambda: False, "waited for nothing")
    assert time.monotonic() - begin < 10


def test_a_port_in_use_is_not_taken() -> None:
    """The usual port is used when it is free, else another."""
    with listen() as taken:
        port = taken.getsockname()[1]
        with listen(port) as other:
            assert address_of(other) != address_of(taken)
    with listen(port) as free:
        assert address_of(free) == f"127.0.0.1:{port}"


class Terminal(io.TextIOWrapper):
    """A stream that claims to be a terminal."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        self.seek(0)
        return self.read()


@pytest.mark.parametrize(
    ("encoding", "environment", "got", "shows"),
    [
        ("utf-8", {}, ALLOWED, "\033[32m\u2713\033[0m"),
        ("utf-8", {}, REFUSED, "\033[31m\u2717\033[0m"),
        ("utf-8", {"NO_COLOR": "1"}, ALLOWED, "  \u2713\n"),
        ("utf-8", {"TERM": "dumb"}, REFUSED, "  \u2717\n"),
        ("ascii", {"NO_COLOR": "1"}, ALLOWED, "  ok\n"),
        ("ascii", {"NO_COLOR": "1"}, REFUSED, "  WRONG\n"),
    ],
)
def test_a_step_fits_the_terminal(
    encoding: str, environment: dict[str, str], got: Seen, shows: str
) -> None:
    """Colour and check marks appear where they are wanted and can be shown."""
    terminal = Terminal(encoding)
    Screen(terminal, environment).step(Step("a fresh token", ALLOWED, got))
    assert shows in terminal.text()


def test_no_colour_in_a_pipe() -> None:
    """What is redirected into a file is plain text of at most 80 columns."""
    stream = io.StringIO()
    screen = Screen(stream, {})
    screen.heading()
    screen.step(Step("a good token, but the agent is stopped", ALLOWED, REFUSED))
    screen.failure(1, 7, "/somewhere")
    assert "\033" not in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def test_every_wait_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that never does what is waited for becomes a sentence, not a hang."""
    monkeypatch.setattr("spoa.demo.programs.READY_TIMEOUT_S", 0.0)
    with (
        Program([shell(), "-c", "sleep 60"], tmp_path / "log", {}, Event()) as program,
        pytest.raises(DemoError, match="in vain"),
    ):
        program.wait_until(lambda: False, "waited for a miracle")


def test_a_certificate_is_made_once(tmp_path: Path) -> None:
    """The next demo takes what the last one made, so that a CA is imported once."""
    made = have_certificate(tmp_path)
    before = made.pem.read_bytes(), made.ca.read_bytes()
    assert have_certificate(tmp_path) == made
    assert (made.pem.read_bytes(), made.ca.read_bytes()) == before


@pytest.mark.parametrize("trouble", ["gone", "empty", "of another CA", "over"])
def test_a_certificate_that_is_no_good_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """One that is missing, cut off, or does not belong to the CA is not used."""
    made = have_certificate(tmp_path)
    match trouble:
        case "gone":
            made.ca.unlink()
        case "empty":
            made.pem.write_bytes(b"")
        case "of another CA":
            (tmp_path / "other").mkdir()
            have_certificate(tmp_path / "other").ca.replace(made.ca)
        case _:
            later = int(time.time()) + 31 * 86_400
            in_a_month = f'if [ $1 = verify ]; then shift; set -- verify -attime {later} "$@"; fi'
            put_before_openssl(tmp_path, in_a_month)
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    had = made.pem.read_bytes()
    have_certificate(tmp_path)
    assert made.pem.read_bytes() != had
    assert shown_by(made, "wiki.localhost") == "shown"


def put_before_openssl(folder: Path, line: str) -> None:
    """Make an openssl that does something else first."""
    (folder / "openssl").write_text(f'#!{shell()}\n{line}\nexec {shutil.which("openssl")} "$@"\n')
    (folder / "openssl").chmod(0o755)


def test_the_keys_are_nobody_elses(tmp_path: Path) -> None:
    """The server's key is private, and that of the CA is nowhere: it signs nothing any more."""
    umask = os.umask(0)
    try:
        made = have_certificate(tmp_path)
    finally:
        os.umask(umask)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "server.pem"]
    assert made.pem.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" not in made.ca.read_text()


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("wiki.localhost", "shown"),
        ("portal.localhost", "shown"),
        ("localhost", "shown"),
        ("127.0.0.1", "shown"),
        ("wiki.example", "refused"),
        ("127.0.0.2", "refused"),
    ],
)
def test_the_certificate_is_for_this_machine(tmp_path: Path, host: str, seen: str) -> None:
    """Who believes the CA believes the demo's names, and no other."""
    assert shown_by(have_certificate(tmp_path), host) == seen


def test_the_ca_vouches_for_no_other_name(tmp_path: Path) -> None:
    """Nobody who had imported it could be shown another site, had its key been kept."""
    ca = str(have_certificate(tmp_path).ca)
    asked = ["openssl", "x509", "-in", ca, "-noout", "-ext", "nameConstraints"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "critical" in told
    _, _, permitted = told.partition("Permitted:")
    assert permitted.split() == ["DNS:localhost", "IP:127.0.0.1/255.255.255.255"]


def shown_by(certificate: Certificate, host: str) -> str:
    """Shake hands without a network; tell whether a client believes that it speaks to a host."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.pem)
    client = ssl.create_default_context(cafile=str(certificate.ca))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname=host)
    answering = server.wrap_bio(there, back, server_side=True)
    for side in (asking, answering, asking):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return "refused"
    return "shown"


def test_a_missing_openssl_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without openssl the sentence says what to install, and nothing is left behind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoError, match="apt install openssl"):
        have_certificate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_openssl_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words are in the sentence."""
    put_before_openssl(tmp_path, "echo no entropy today >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoError, match="no entropy today"):
        have_certificate(tmp_path)


@pytest.mark.parametrize("name", ["starlette", "jinja2", "uvicorn", "websockets"])
def test_a_missing_extra_is_named(tmp_path: Path, name: str) -> None:
    """Without one of the packages of the extra `demo` the sentence says what to install."""
    code = f"import sys; sys.modules[{name!r}] = None; from spoa.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--once"],
        env={**os.environ, "KAT_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"kat: the demo needs {name}")
    assert "install kat-spoa[agent,demo]" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
