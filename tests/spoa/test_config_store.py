"""TLS to Redis, and the audit, as they are configured."""

from pathlib import Path

import pytest

from spoa.config.file import ConfigError, load
from spoa.config.model import Config
from tokens.store.tls import TlsFiles

TLS = "rediss://h"


def _config(text: str, tmp_path: Path) -> Config:
    file = tmp_path / "kat.toml"
    file.write_text(text)
    return load(file, {})


def _mistakes(text: str, tmp_path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _config(text, tmp_path)
    return [told.removeprefix(f"{tmp_path / 'kat.toml'}: ") for told in caught.value.mistakes]


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    file = tmp_path / "some.pem"
    file.touch()
    return file


@pytest.mark.parametrize("url", [TLS, "rediss+cluster://h", "rediss+sentinel://h/tokens"])
def test_the_files_of_tls_are_taken(url: str, pem: Path, tmp_path: Path) -> None:
    """A CA, or a certificate with its key, or all three go with every URL of TLS."""
    store = f'[store]\nurl = "{url}"\n'
    assert _config(store, tmp_path).store.ca_file is None
    assert _config(store + f'ca_file = "{pem}"', tmp_path).store.ca_file == pem
    pair = f'cert_file = "{pem}"\nkey_file = "{pem}"'
    assert _config(store + pair, tmp_path).store.tls == TlsFiles(None, pem, pem)


@pytest.mark.parametrize("url", ["embedded", "redis://h", "unix:///s", "redis+cluster://h"])
@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
def test_files_of_tls_without_tls_are_a_mistake(
    url: str, key: str, pem: Path, tmp_path: Path
) -> None:
    """Whoever sets them believes that the connection is encrypted."""
    told = _mistakes(f'[store]\nurl = "{url}"\n{key} = "{pem}"', tmp_path)
    sentence = f"store.{key} = '{pem}': needs a url of rediss://; without TLS it would do nothing"
    assert sentence in told


@pytest.mark.parametrize(("given", "told"), [("cert_file", "store.key_file"), ("key_file",) * 2])
def test_a_certificate_without_its_key_is_a_mistake(
    given: str, told: str, pem: Path, tmp_path: Path
) -> None:
    """Neither is of use without the other."""
    [mistake] = _mistakes(f'[store]\nurl = "{TLS}"\n{given} = "{pem}"', tmp_path)
    assert told in mistake
    assert mistake.endswith("belongs to cert_file: set both of them, or none")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('"hunter2"', "store.ca_file = ***: must be an absolute path"),
        ("5", "store.ca_file = ***: must be an absolute path"),
        ('"/none/ca.pem"', "store.ca_file = '/none/ca.pem': cannot be read: No such file or"),
        ('"/"', "store.ca_file = '/': cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_mistake(value: str, told: str, tmp_path: Path) -> None:
    """It is told by its path; what is no path may be a secret and is not told."""
    [mistake] = _mistakes(f'[store]\nurl = "{TLS}"\nca_file = {value}', tmp_path)[-1:]
    assert mistake.startswith(told)


def test_the_audit_goes_to_a_stream_unless_told_otherwise(tmp_path: Path) -> None:
    """By default events are written to Redis and not to the log; both can be changed."""
    audit = _config("", tmp_path).audit
    assert (audit.stream, audit.log, audit.max_entries) == (True, False, 100_000)
    audit = _config("[audit]\nstream = false\nlog = true\nmax_entries = 5", tmp_path).audit
    assert (audit.stream, audit.log, audit.max_entries) == (False, True, 5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_entries = 0", "audit.max_entries = 0: must be greater than or equal to 1"),
        ('stream = "yes"', "audit.stream = 'yes': must be a valid boolean"),
        ("steam = true", "audit.steam: unknown key; did you mean audit.stream?"),
    ],
)
def test_a_mistake_in_the_audit_is_told(text: str, told: str, tmp_path: Path) -> None:
    """Its keys are checked like all others."""
    assert _mistakes(f"[audit]\n{text}", tmp_path) == [told]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('prefix = "my kat:"', "store.prefix = 'my kat:': must be 1 to 32 of A-Z a-z 0-9 : _ . -"),
        ('prefix = ""', "store.prefix = '': must be 1 to 32 of A-Z a-z 0-9 : _ . -"),
        ('prefix = "kat:\\n"', "store.prefix = 'kat:\\n': must be 1 to 32 of A-Z a-z 0-9 : _ . -"),
        ("prefix = 7", "store.prefix = 7: must be a valid string"),
        ("clock_skew_ms = -1", "store.clock_skew_ms = -1: must be greater than or equal to 0"),
    ],
)
def test_what_is_no_secret_is_shown(line: str, told: str, tmp_path: Path) -> None:
    """A mistake in a section that may hold a password shows its value, where that is none."""
    assert _mistakes(f"[store]\n{line}", tmp_path) == [told]
