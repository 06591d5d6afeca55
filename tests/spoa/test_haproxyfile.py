"""What is understood of HAProxy's files."""

from pathlib import Path

import pytest

from haproxy import FILES
from spoa.check.haproxyfile import HaproxyFileError, read_haproxy_files


def test_our_own_files_are_understood() -> None:
    """The files we ship name an engine, a time-out, an agent and an ACL."""
    facts = read_haproxy_files([FILES / "haproxy.cfg"], {"KAT_FILES": str(FILES)})
    assert facts.engines == [FILES / "kat.spoe.conf"]
    assert facts.processing_ms == [100]
    assert "unix:/run/kat/spoa.sock" in facts.agents()
    assert "demo" in facts.acls


def test_our_own_messages_are_understood() -> None:
    """What a gate sends, and with which arguments, is read from the SPOE file."""
    facts = read_haproxy_files([FILES / "haproxy.cfg"], {"KAT_FILES": str(FILES)})
    [gate] = [proxy for proxy in facts.proxies if proxy.groups]
    assert (gate.name, gate.is_tcp) == ("backend gate_demo", False)
    assert facts.asked(gate) == ["logout", "check-http"]
    assert {name: set(args) for name, args in facts.messages.items()} == {
        "check-http": {"acl", "token", "via", "session", "nonce", "src", "host", "method"}
        | {"path", "id", "at"},
        "check-tcp": {"acl", "src", "id", "at"},
        "logout": {"acl", "session", "src", "id", "at"},
    }


def test_what_fills_an_argument_is_understood() -> None:
    """Of our own file: where an argument comes from, and what its variable is set to."""
    facts = read_haproxy_files([FILES / "haproxy.cfg"], {"KAT_FILES": str(FILES)})
    assert facts.messages["check-http"]["via"] == "var(txn.gate.via)"
    assert facts.variables["txn.gate.via"] == ["str(header)", "str(query)"]
    [session] = facts.variables["txn.gate.session"]
    assert session.startswith("var(txn.gate.cookies)")
    asking = read_haproxy_files(
        [FILES / "haproxy.cfg"], {"KAT_FILES": str(FILES), "KAT_CONFIRM": "on"}
    )
    assert asking.variables["txn.gate.via"] == ["str(header)", "str(query)", "str(form)"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"global\n\xff\xfe", "is not UTF-8 (at line 2): no file of HAProxy's"),
        (b"\x7fELF\x02\x00", "holds a NUL: no file of HAProxy's"),
    ],
)
def test_a_file_that_is_none_is_named(content: bytes | None, fault: str, tmp_path: Path) -> None:
    """What cannot be read, or is no text, is one sentence that begins with its name."""
    file = tmp_path / "kat.spoe.conf"
    if content is not None:
        file.write_bytes(content)
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"backend a\n filter spoe engine kat config {file}\n")
    for named in ([file], [config]):
        with pytest.raises(HaproxyFileError) as caught:
            read_haproxy_files(named, {})
        assert str(caught.value) == f"{file}: {fault}"


def test_a_door_for_tcp_is_understood() -> None:
    """The example asks for its ACL by `tcp-request`, and waits longer than the agent needs."""
    files = [FILES / "haproxy.cfg", FILES / "examples" / "grant-tcp.cfg"]
    facts = read_haproxy_files(files, {"KAT_FILES": str(FILES), "KAT_TCP_ACL": "ssh"})
    [door] = [proxy for proxy in facts.proxies if proxy.is_tcp]
    assert (door.name, door.acls) == ("frontend door_demo", ["ssh"])
    assert facts.asked(door) == ["check-tcp"]
    assert door.inspect_delay_ms == 2000


def test_messages_that_an_agent_lists_are_no_group(tmp_path: Path) -> None:
    """Only what a spoe-group names belongs to it, wherever the spoe-agent stands."""
    file = tmp_path / "spoe.conf"
    file.write_text("spoe-group g\n messages a b\nspoe-agent x\n messages c\n")
    assert read_haproxy_files([file], {}).groups == {"g": ["a", "b"]}


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """A SPOE file that two gates and the command line name counts once."""
    spoe = tmp_path / "kat.spoe.conf"
    spoe.write_text("spoe-agent a\n timeout processing 1s\n")
    file = tmp_path / "haproxy.cfg"
    line = f" filter spoe engine kat config {tmp_path}/./kat.spoe.conf\n"
    file.write_text(f"backend a\n{line}backend b\n{line}")
    assert read_haproxy_files([file, spoe, file], {}).processing_ms == [1000]


def test_defaults_hold_for_what_follows(tmp_path: Path) -> None:
    """An inspect-delay of `defaults` is that of the sections up to the next `defaults`."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n tcp-request inspect-delay 5s\nfrontend a\nfrontend b\n"
        " tcp-request inspect-delay 7s\nfrontend c\ndefaults\nfrontend d\n"
    )
    delays = [proxy.inspect_delay_ms for proxy in read_haproxy_files([file], {}).proxies]
    assert delays == [5000, 7000, 5000, None]


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
