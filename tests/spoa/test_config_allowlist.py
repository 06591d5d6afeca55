"""[allowlist.NAME]: which HAProxy `kat allowlist` keeps."""

from pathlib import Path

import pytest

from haproxy.allowlist.change import Foreign
from spoa.config.allowlist import Allowlist
from spoa.config.file import ConfigError, load

RUNTIME = 'runtime = "unix:/run/haproxy/kat.sock"\n'


def _section(text: str, tmp_path: Path, **environ: str) -> Allowlist:
    file = tmp_path / "kat.toml"
    file.write_text(f"[allowlist.edge1]\n{text}")
    return load(file, environ).allowlist["edge1"]


def _mistake(text: str, tmp_path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _section(text, tmp_path, **environ)
    [mistake] = caught.value.mistakes
    return mistake.removeprefix(f"{tmp_path / 'kat.toml'}: ")


def test_nothing_is_kept_by_default(tmp_path: Path) -> None:
    """Without a section there is no HAProxy to keep."""
    (tmp_path / "kat.toml").touch()
    assert load(tmp_path / "kat.toml", {}).allowlist == {}


def test_a_section_says_what_is_kept(tmp_path: Path) -> None:
    """One name or several, for each ACL of the grants."""
    text = RUNTIME + (
        'acl = { wiki = "#500", mail = ["virt@mail", "/etc/haproxy/mail.acl"] }\n'
        'heartbeat = ""\nforeign = "remove"\nshut = { mail = ["mag_443"] }'
    )
    section = _section(text, tmp_path)
    assert section.acl == {"wiki": ("#500",), "mail": ("virt@mail", "/etc/haproxy/mail.acl")}
    assert section.shut == {"mail": ("mag_443",)}
    assert (section.heartbeat, section.foreign) == ("", Foreign.REMOVE)


def test_a_file_may_have_a_blank_in_its_name(tmp_path: Path) -> None:
    """HAProxy takes it, and so do we."""
    section = _section(RUNTIME + 'acl = { wiki = "/etc/haproxy/my list.acl" }', tmp_path)
    assert section.acl == {"wiki": ("/etc/haproxy/my list.acl",)}


def test_by_default_others_are_kept_and_the_table_is_kat_alive(tmp_path: Path) -> None:
    """What nobody says: leave what others put there, and beat."""
    section = _section(RUNTIME, tmp_path)
    assert (section.heartbeat, section.foreign) == ("kat_alive", Foreign.KEEP)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """As every other key."""
    environ = {"KAT_ALLOWLIST__EDGE1__RUNTIME": "unix:/run/other.sock"}
    assert _section(RUNTIME, tmp_path, **environ).runtime == "unix:/run/other.sock"


def test_tcp_needs_tls_or_a_word(tmp_path: Path) -> None:
    """Who reaches a Runtime API is HAProxy's admin: plain TCP must be asked for."""
    assert "insecure = true" in _mistake('runtime = "127.0.0.1:9999"', tmp_path)
    text = 'insecure = true\nruntime = "127.0.0.1:9999"'
    assert _section(text, tmp_path).runtime == "127.0.0.1:9999"
    ca = tmp_path / "ca.pem"
    ca.touch()
    assert _section(f'ca_file = "{ca}"\nruntime = "edge1:9999"', tmp_path).tls


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["allowlist.edge1.runtime", "Field required"]),
        ('runtime = "/run/haproxy.sock"', ["runtime", "unix:/path"]),
        ('runtime = "unix:run/haproxy.sock"', ["runtime", "absolute"]),
        ('runtime = "[::1]:0x"', ["runtime", "host:port"]),
        (RUNTIME + "acl = { wiki = [] }", ["acl.wiki", "at least one"]),
        (RUNTIME + 'acl = { wiki = ["#1", "#1"] }', ["acl.wiki", "twice"]),
        (RUNTIME + 'acl = { wiki = "#1;quit" }', ["acl.wiki", "show acl"]),
        (RUNTIME + 'acl = { wiki = "#abc" }', ["acl.wiki", "show acl"]),
        (RUNTIME + 'acl = { wiki = "#" }', ["acl.wiki", "show acl"]),
        (RUNTIME + 'acl = { wiki = "#0500" }', ["acl.wiki", "show acl"]),
        (RUNTIME + 'acl = { wiki = "@1" }', ["acl.wiki", "show acl"]),
        (RUNTIME + 'acl = { wiki = "" }', ["acl.wiki", "show acl"]),
        (RUNTIME + "acl = { wiki = 500 }", ["acl.wiki", "a text, or a list of texts"]),
        (RUNTIME + 'acl = { wiki = "#1", mail = "#1" }', ["acl", "twice"]),
        (RUNTIME + "[allowlist.edge2]\n" + RUNTIME, ["edge1 and edge2", "same runtime"]),
        ('runtime = "127.0.0.1:0"\ninsecure = true', ["runtime", "port 0"]),
        ('runtime = "tunnel:/run/kat.sock"', ["runtime", "unix:/path"]),
        ('runtime = "unix:/run/{worker}.sock"', ["runtime", "unix:/path"]),
        (RUNTIME + 'acl = { "w iki" = "#1" }', ["acl", "must be"]),
        (RUNTIME + 'acl = "#500"', ["acl", "section"]),
        (RUNTIME + 'foreign = "ignore"', ["foreign", "keep", "remove"]),
        (RUNTIME + 'heartbeat = "kat alive"', ["heartbeat", "section of HAProxy"]),
        (RUNTIME + 'shut = { wiki = ["a b"] }', ["shut.wiki", "section of HAProxy"]),
        (RUNTIME + 'cert_file = "/nowhere.pem"', ["cert_file", "cannot be read"]),
        (RUNTIME + 'runtimes = "x"', ["runtimes", "unknown key; did you mean"]),
        (RUNTIME + f'ca_file = "{__file__}"', ["runtime", "is a unix socket"]),
        (f'runtime = "a:1"\ninsecure = true\ncert_file = "{__file__}"', ["key_file", "cert_file"]),
    ],
)
def test_a_mistake_is_a_sentence(text: str, words: list[str], tmp_path: Path) -> None:
    """It names the key, and what is allowed."""
    mistake = _mistake(text, tmp_path)
    assert all(word in mistake for word in words), mistake
