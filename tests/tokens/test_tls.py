"""TLS files: what can be used, and what is said about the rest."""

import ssl
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tokens.store.tls import TlsFiles, client_context


def test_everything_is_verified(authority: Authority) -> None:
    """A context without any file, and one with all of them, verify chain and host name."""
    for files in (TlsFiles(), authority.issue("verifying")):
        context = client_context(files)
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_ca_file_is_the_only_ca(authority: Authority) -> None:
    """Who names a CA trusts no other."""
    assert len(client_context(TlsFiles(authority.ca_file)).get_ca_certs()) == 1


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    """What cannot be read, is no PEM, is locked or somebody else's is a sentence, not a prompt."""
    ours, other = authority.issue("ours"), authority.issue("other")
    assert ours.key_file is not None
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    ca = ours.ca_file
    for files, sentence in (
        (TlsFiles(tmp_path / "nowhere.pem"), "ca_file .*nowhere.pem cannot be read: No such file"),
        (TlsFiles(rubbish), "ca_file .*rubbish.pem cannot be used"),
        (TlsFiles(ca, rubbish, ours.key_file), "cert_file .*rubbish.pem .*cannot be used"),
        (TlsFiles(ca, ours.cert_file, rubbish), "key_file .*rubbish.pem cannot be used"),
        (TlsFiles(ca, ours.cert_file, other.key_file), "do not belong together"),
        (TlsFiles(ca, ours.cert_file, authority.lock(ours.key_file)), "without a passphrase"),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            client_context(files)
        assert caught.value.__cause__ is None
