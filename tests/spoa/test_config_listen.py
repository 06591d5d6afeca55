"""TLS and tunnels, as they are configured."""

from pathlib import Path

import pytest

from spoa.config.endpoint import TcpEndpoint, UnixEndpoint, parse_endpoint
from spoa.config.file import ConfigError, load
from spoa.config.model import Config
from spoa.config.sections import ListenerFiles

TCP = 'spop = ["192.0.2.1:9100"]'
FILES = {"cert_file": "/c.pem", "key_file": "/k.pem", "client_ca_file": "/ca.pem"}


def _config(lines: str, tmp_path: Path) -> Config:
    file = tmp_path / "kat.toml"
    file.write_text(f"[listen]\n{lines}\n")
    return load(file, {})


def _mistakes(lines: str, tmp_path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _config(lines, tmp_path)
    return [told.removeprefix(f"{tmp_path / 'kat.toml'}: ") for told in caught.value.mistakes]


def _lines(*keys: str) -> str:
    return "\n".join(f'{key} = "{FILES[key]}"' for key in keys)


def test_three_files_permit_tcp(tmp_path: Path) -> None:
    """With them no `insecure` is needed; they need not be readable to who only issues tokens."""
    listen = _config(f"{TCP}\n{_lines(*FILES)}", tmp_path).listen
    assert listen.tls == ListenerFiles(Path("/c.pem"), Path("/k.pem"), Path("/ca.pem"))
    assert not listen.insecure


def test_a_unix_socket_may_stand_beside(tmp_path: Path) -> None:
    """One agent may serve a HAProxy here, and another far away."""
    lines = f'spop = ["unix:/s", "[::]:9100"]\n{_lines(*FILES)}'
    assert _config(lines, tmp_path).endpoints == (UnixEndpoint("/s"), TcpEndpoint("::", 9100))


def test_without_them_tcp_is_a_mistake(tmp_path: Path) -> None:
    """The sentence names both ways out."""
    [told] = _mistakes(TCP, tmp_path)
    assert "set listen.cert_file, key_file and client_ca_file for TLS" in told
    assert told.endswith("or listen.insecure = true")


@pytest.mark.parametrize("missing", FILES)
def test_two_of_three_are_a_mistake(tmp_path: Path, missing: str) -> None:
    """Without a CA anybody could connect; without a key nobody. It is told once."""
    given = [key for key in FILES if key != missing]
    [told] = _mistakes(f"{TCP}\n{_lines(*given)}", tmp_path)
    assert told.startswith("listen.client_ca_file")
    assert told.endswith("belongs to cert_file and key_file: set all three of them, or none")


def test_insecure_beside_tls_is_a_mistake(tmp_path: Path) -> None:
    """It would read as if TLS were a choice of whoever connects."""
    [told] = _mistakes(f"{TCP}\ninsecure = true\n{_lines(*FILES)}", tmp_path)
    assert told == (
        "listen.client_ca_file = '/ca.pem': turns TLS on at every TCP address, and insecure = true "
        "permits TCP without: remove one of them"
    )


@pytest.mark.parametrize("spop", ["", 'spop = ["unix:/s"]', 'spop = ["tunnel:/s"]'])
def test_tls_without_tcp_is_a_mistake(tmp_path: Path, spop: str) -> None:
    """Whoever sets a certificate believes that something is encrypted."""
    [told] = _mistakes(f"{spop}\n{_lines(*FILES)}", tmp_path)
    assert told.startswith("listen.spop")
    assert told.endswith("needs an address host:port: on a unix socket cert_file would do nothing")


def test_a_relative_path_is_a_mistake(tmp_path: Path) -> None:
    """It would depend on where `kat` is called."""
    [told] = _mistakes(
        f'{TCP}\n{_lines("key_file", "client_ca_file")}\ncert_file = "c.pem"', tmp_path
    )
    assert told == "listen.cert_file = 'c.pem': must be an absolute path"


def test_a_tunnel_ends_at_a_unix_socket(tmp_path: Path) -> None:
    """It is bound like any other, but who connects there is not on this machine."""
    config = _config('spop = ["tunnel:/run/t.sock", "tunnel:/run/t.{worker}.sock"]', tmp_path)
    assert config.shared_endpoints == (UnixEndpoint("/run/t.sock", is_tunnel=True),)
    assert config.own_endpoints(1) == (UnixEndpoint("/run/t.1.sock", is_tunnel=True),)
    assert not any(endpoint.is_local for endpoint in config.endpoints)


@pytest.mark.parametrize("text", ["unix:/s", "tunnel:/s", "192.0.2.1:9100", "[::1]:9100"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    """What a log or a sentence shows can be put into the configuration."""
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(("text", "is_local"), [("unix:/s", True), ("127.0.0.1:1", False)])
def test_only_a_unix_socket_vouches_for_the_clock(text: str, *, is_local: bool) -> None:
    """A loopback port may be the end of a tunnel, too."""
    assert parse_endpoint(text).is_local is is_local
