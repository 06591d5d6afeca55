"""`kat allowlist` and a HAProxy on another machine: the Runtime API over TLS."""

import os
import signal
from pathlib import Path

import redis

from tests.support.allowlist import Kept, keeping, kept
from tests.support.authority import Authority, make_authority
from tests.support.eventually import eventually
from tests.support.grants import grant
from tests.support.haproxy import binary
from tokens.store.tls import TlsFiles

IN = 200


def _settings(authority: Authority) -> dict[str, str]:
    server = authority.issue("edge", "DNS:localhost")
    assert server.cert_file
    assert server.key_file
    pem = authority.directory / "both.pem"
    pem.write_text(server.cert_file.read_text() + server.key_file.read_text())
    return {"KEPT_PEM": str(pem), "KEPT_CA": str(authority.ca_file)}


def _target(edge: Kept, files: TlsFiles) -> dict[str, object]:
    return {
        "runtime": f"localhost:{edge.port('KEPT_TLS')}",
        "ca_file": str(files.ca_file),
        "cert_file": str(files.cert_file),
        "key_file": str(files.key_file),
        "acl": {"wiki": ["#500"]},
    }


def test_grants_come_over_tls_and_no_old_process_lives_for_our_sake(
    version: str, folder: Path, store: str, grants: redis.Redis
) -> None:
    """All is as by a unix socket; after a reload our own connection keeps no process alive."""
    authority = make_authority(folder)
    with kept(binary(version), folder / "edge", **_settings(authority)) as edge:
        edge.stop()
        edge.start("-W", "-db")
        files = authority.issue("allowlist")
        with keeping(folder, store, {"edge": _target(edge, files)}) as allowlist:
            grant(grants, "wiki", "127.0.0.7")
            eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
            old = edge.pid()
            assert edge.process
            os.kill(edge.process.pid, signal.SIGUSR2)
            eventually(lambda: edge.pid() != old, "a new process")
            eventually(lambda: edge.status("127.0.0.7") == IN, "the grant in it")
            eventually(lambda: not Path(f"/proc/{old}").exists(), "the end of the old process")
            assert allowlist.show().returncode == 0


def test_a_certificate_of_somebody_else_is_a_sentence(
    folder: Path, store: str, grants: redis.Redis
) -> None:
    """Who has none of the right CA is told so, and nothing is changed."""
    authority = make_authority(folder)
    (folder / "other").mkdir()
    stranger = make_authority(folder / "other").issue("stranger")
    with kept(binary("3.2"), folder / "edge", **_settings(authority)) as edge:
        files = TlsFiles(authority.ca_file, stranger.cert_file, stranger.key_file)
        grant(grants, "wiki", "127.0.0.7")
        with keeping(folder, store, {"edge": _target(edge, files)}) as allowlist:
            allowlist.told("level=error")
            assert "it does not know the CA that signed ours" in allowlist.log()
            assert edge.entries() == []
