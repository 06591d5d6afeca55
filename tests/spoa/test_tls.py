"""The files of a TLS listener: what is refused, and how long a certificate holds."""

import errno
import math
import ssl
from pathlib import Path

import pytest

from spoa.config.sections import ListenerFiles
from spoa.tls import TlsFault, days_left, server_context, stamp
from tests.support.authority import Authority as Other
from tests.support.tls_peers import Authority, make_authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def test_tls_1_2_is_the_least(authority: Authority) -> None:
    """Whatever the system's OpenSSL would allow."""
    assert server_context(authority.agent).minimum_version == ssl.TLSVersion.TLSv1_2


def test_no_file_gets_the_keys_of_connections(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An SSLKEYLOGFILE in the environment, left by somebody who debugged, does nothing."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert server_context(authority.agent).keylog_filename is None


def _refused(files: ListenerFiles) -> str:
    with pytest.raises(TlsFault) as refused:
        server_context(files)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_documented_certificate_holds_for_a_year(authority: Authority) -> None:
    """What the documentation's commands make is taken as it is."""
    server_context(authority.agent)
    assert 364 < days_left(authority.agent) <= 365


@pytest.mark.parametrize("key", ["cert_file", "key_file", "client_ca_file"])
def test_a_missing_file_is_named(authority: Authority, key: str) -> None:
    """With its key and its path."""
    files = {name: getattr(authority.agent, name) for name in ListenerFiles.__slots__}
    said = _refused(ListenerFiles(**{**files, key: Path("/none/x.pem")}))
    assert said == f"listen.{key} /none/x.pem cannot be read: No such file or directory"


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    """Both paths are in the sentence: one of the two is wrong."""
    agent, other = authority.agent, authority.sign("other")
    said = _refused(ListenerFiles(agent.cert_file, other.key_file, agent.client_ca_file))
    assert said == (
        f"listen.cert_file {agent.cert_file} with listen.key_file {other.key_file} do not belong "
        "together"
    )


def test_a_locked_key_is_refused_without_asking(authority: Authority) -> None:
    """Nobody sits at a terminal to type its passphrase."""
    agent = authority.agent
    locked = Other(authority.folder).lock(agent.key_file)
    said = _refused(ListenerFiles(agent.cert_file, locked, agent.client_ca_file))
    assert said.endswith("cannot be used: PEM is needed, a key without a passphrase")


def test_what_is_no_pem_is_refused(authority: Authority, tmp_path: Path) -> None:
    """Whatever it holds, none of it is told."""
    secret = tmp_path / "cert.pem"
    secret.write_text("hunter2")
    agent = authority.agent
    said = _refused(ListenerFiles(secret, agent.key_file, agent.client_ca_file))
    assert said.endswith("cannot be used: PEM is needed, a key without a passphrase")
    assert "hunter2" not in said


@pytest.mark.parametrize(("mode", "is_taken"), [(0o600, True), (0o640, True), (0o644, False)])
def test_a_key_for_everybody_is_refused(authority: Authority, mode: int, is_taken: bool) -> None:  # noqa: FBT001 - a case's value
    """A group may read it, all of the machine may not: the sentence says what to do."""
    files = authority.sign("modes")
    files.key_file.chmod(mode)
    if is_taken:
        server_context(files)
    else:
        said = _refused(files)
        assert said.startswith(f"listen.key_file {files.key_file} can be read by everybody")
        assert said.endswith("chmod o-r")


@pytest.mark.parametrize("what", ["empty", "a key", "a certificate of no CA"])
def test_clients_need_a_ca(authority: Authority, tmp_path: Path, what: str) -> None:
    """Without one in client_ca_file nobody could connect, so nothing starts."""
    agent = authority.agent
    empty = tmp_path / "empty.pem"
    empty.touch()
    file = {"empty": empty, "a key": agent.key_file}.get(what, agent.cert_file)
    said = _refused(ListenerFiles(agent.cert_file, agent.key_file, file))
    assert said.startswith(f"listen.client_ca_file {file} holds no certificate of a CA")


@pytest.mark.parametrize(
    ("clock", "usage", "said"),
    [
        ("-800d", "serverAuth", "has expired: HAProxy refuses it"),
        ("+60d", "serverAuth", "is not valid yet: is the clock right?"),
        ("", "clientAuth", "is not for servers (extendedKeyUsage): HAProxy refuses it"),
    ],
)
def test_what_haproxy_would_refuse_is_known_before(
    authority: Authority, clock: str, usage: str, said: str
) -> None:
    """An agent may start with it, and is told."""
    files = authority.sign("useless", usage, clock=clock)
    server_context(files)
    with pytest.raises(TlsFault) as refused:
        days_left(files)
    assert str(refused.value) == f"listen.cert_file {files.cert_file} {said}"


def test_an_end_is_told_in_days(authority: Authority) -> None:
    """A certificate of a year, made 360 days ago, has five to go."""
    assert math.ceil(days_left(authority.sign("old", clock="-360d"))) == 5


def test_another_file_has_another_stamp(authority: Authority, tmp_path: Path) -> None:
    """Replaced, written over or gone: each is seen; left alone, it stays the same."""
    files = authority.sign("stamped")
    before = stamp(files)
    assert stamp(files) == before
    copy = tmp_path / "copy"
    copy.write_bytes(files.cert_file.read_bytes())
    copy.rename(files.cert_file)
    replaced = stamp(files)
    files.key_file.unlink()
    assert len({before, replaced, stamp(files)}) == 3


@pytest.mark.parametrize("step", ["load_cert_chain", "load_verify_locations"])
def test_a_file_that_goes_while_it_is_read_is_a_fault(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A worker that looks at its files in the middle of a renewal says so, and lives on."""

    def find_nothing(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, step, find_nothing)
    assert _refused(authority.agent).startswith("listen.")
