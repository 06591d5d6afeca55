"""What is understood of HAProxy's files."""

from pathlib import Path

import pytest

from haproxy import FILES
from spoa.check.haproxyfile import read_haproxy_files


def test_our_own_files_are_understood() -> None:
    """The files we ship name an engine, a time-out, an agent and an ACL."""
    facts = read_haproxy_files([FILES / "haproxy.cfg"], {"KAT_FILES": str(FILES)})
    assert facts.engines == [FILES / "kat.spoe.conf"]
    assert facts.processing_ms == [100]
    assert "unix:/run/kat/spoa.sock" in facts.agents()
    assert "demo" in facts.acls


def test_variables_are_put_in(tmp_path: Path) -> None:
    """HAProxy's three ways to write a variable give its value, or its default."""
    file = tmp_path / "spoe.conf"
    file.write_text(
        "spoe-agent a\n timeout processing ${T-7ms}\n use-backend $B\n[x]\nspoe-agent b\n"
    )
    assert read_haproxy_files([file], {}).processing_ms[0] == 7
    facts = read_haproxy_files([file], {"T": "2s", "B": "back"})
    assert facts.processing_ms == [2000, float("inf")]
    assert facts.backends == ["back"]


@pytest.mark.parametrize(
    ("line", "agent"),
    [
        ("server a unix@/run/s check", "unix:/run/s"),
        ("server a /run/s", "unix:/run/s"),
        ('server a "unix@/my run/s"', "unix:/my run/s"),
        ("server a 127.0.0.1:9100", "127.0.0.1:9100"),
        ("server a ipv4@127.0.0.1:9100", "127.0.0.1:9100"),
        ("# server a 127.0.0.1:9100", None),
        ("stick-table type ip # it's fine", None),
    ],
)
def test_an_agents_address_is_found(line: str, agent: str | None, tmp_path: Path) -> None:
    """An address is written as our configuration writes it."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        f"spoe-agent x\n use-backend agents\nbackend agents\n {line}\nbackend b\n server c h:1\n"
    )
    assert read_haproxy_files([file], {}).agents() == ([agent] if agent else [])


@pytest.mark.parametrize(
    ("names", "agents"),
    [
        ("", ["no:1", "unknown:1", "not-b:1", "both:2"]),
        ("A", ["a:1", "unknown:1", "not-b:1", "any:1", "both:2"]),
        ("B", ["b:1", "unknown:1", "any:1", "both:2"]),
        ("A B", ["a:1", "unknown:1", "any:1", "both:1"]),
    ],
)
def test_a_condition_is_honoured(names: str, agents: list[str], tmp_path: Path) -> None:
    """What HAProxy skips for a variable counts no more than a comment; what may be read, counts."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        """
spoe-agent x
 use-backend agents
backend agents
.if defined(A)
 server a a:1
.elif defined(B)
 server a b:1
.else
 server a no:1
.endif
.if version_atleast(3.1) && !streq("$A",x)
 server a unknown:1
 .if !defined(B)
 server a not-b:1
 .endif
.endif
.if defined(A) || defined(B)
 server a any:1
.endif
.if defined(A) && defined(B)
 server a both:1
.else
 server a both:2
.endif
"""
    )
    environ = dict.fromkeys(names.split(), "")
    assert read_haproxy_files([file], environ).agents() == agents


def test_the_second_agent_is_no_default() -> None:
    """Of our own file, only an agent that HAProxy would use counts."""
    environ = {"KAT_FILES": str(FILES), "KAT_AGENT": "h:1"}
    assert read_haproxy_files([FILES / "haproxy.cfg"], environ).agents() == ["h:1"]
    second = {**environ, "KAT_AGENT_2": "h:2"}
    assert read_haproxy_files([FILES / "haproxy.cfg"], second).agents() == ["h:1", "h:2"]


def test_a_chroot_is_put_before_a_socket(tmp_path: Path) -> None:
    """HAProxy connects from inside its chroot, we listen outside of it."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "global\n chroot /jail/\nspoe-agent x\n use-backend b\nbackend b\n server a unix@/s\n"
    )
    assert read_haproxy_files([file], {}).agents() == ["unix:/jail/s"]
