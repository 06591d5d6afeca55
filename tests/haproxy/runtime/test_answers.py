"""Lines are as 2.6.12, 3.0.11 and 3.2.26 wrote them; test_client.py has the living ones."""

import contextlib
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haproxy.runtime import answers
from haproxy.runtime.answers import AclName, Process, Stream, Table, Unreadable

READERS: list[Callable[[str], object]] = [
    answers.read_process,
    answers.read_acls,
    answers.read_entries,
    answers.read_frontends,
    answers.read_level,
    answers.read_streams,
    answers.read_table,
    answers.read_types,
    answers.read_version,
]

STREAMS = """\
0x557b95d64f00: proto=tcpv4 src=127.0.0.1:34474 fe=tcp_fe be=tcp_be srv=s ts=00 epoch=0 age=1m2s \
calls=2 rate=2 cpu=0 lat=0 rq[f=808000h,i=0,an=00h,rx=29s,wx=,ax=] rp[f=80008000h,i=0,an=00h,\
rx=29s,wx=,ax=] scf=[8,0h,fd=19] scb=[8,1h,fd=31] exp=4s rc=0 c_exp=
0x7f040fc91000: proto=tcpv6 src=2001:db8::7:39390 fe=tcp_fe be=tcp_be srv=s ts=00 epoch=0 \
age=3d4h calls=2 rate=0 cpu=0 lat=0 scf=[8,0h,fd=21,rex=29s,wex=] exp=4s rc=0 c_exp=
0x7f040fc91001: proto=tcpv6 src=::ffff:192.0.2.7:3939 fe=x be=y srv=<none> ts=00 epoch=0 age=0s
0x7fe6a5c22400: proto=unix_stream src=unix:3 fe=GLOBAL be=<NONE> srv=<none> ts=00 epoch=0 age=2h
0x7fe6a5c22800: proto=? ts=00 epoch=0 age=5s calls=1
"""


def test_streams_are_read_with_their_sources() -> None:
    """IPv4-mapped is IPv4; a unix socket, or nothing at all, is no address."""
    mapped = ip_address("192.0.2.7")
    assert answers.read_streams(STREAMS) == [
        Stream("0x557b95d64f00", "tcp_fe", ip_address("127.0.0.1"), 62),
        Stream("0x7f040fc91000", "tcp_fe", ip_address("2001:db8::7"), 3 * 86400 + 4 * 3600),
        Stream("0x7f040fc91001", "x", mapped, 0),
        Stream("0x7fe6a5c22400", "GLOBAL", None, 7200),
        Stream("0x7fe6a5c22800", "", None, 5),
    ]


def test_a_stream_that_cannot_be_read_is_no_missing_one() -> None:
    """One line in another format, and the whole answer is unreadable."""
    with pytest.raises(Unreadable):
        answers.read_streams(STREAMS + "0x1: src=127.0.0.1:1 fe=x\n")
    with pytest.raises(Unreadable):
        answers.read_streams(STREAMS + "stream 0x1: age=1s\n")


def test_entries_keep_their_order_and_their_text() -> None:
    """What follows HAProxy's pointer is the entry, blanks and all."""
    said = "0x7f1 192.0.2.7/032\n0x7f0 a b;c\\d\n0x7f2 192.0.2.7/032\n"
    assert answers.read_entries(said) == ["192.0.2.7/032", "a b;c\\d", "192.0.2.7/032"]
    assert answers.read_entries("") == []


def test_acls_are_read_with_number_file_and_use() -> None:
    """An ACL without a file has the empty one."""
    said = (
        "# id (file) description\n"
        "0 (/etc/a b.acl) pattern loaded from file '/etc/a b.acl' used by acl at line 16\n"
        "500 () acl 'src' file 'base.cfg' line 15. curr_ver=0 next_ver=0 entry_cnt=0\n"
    )
    [filed, numbered] = answers.read_acls(said)
    assert (filed.id, filed.file) == (0, "/etc/a b.acl")
    assert numbered == AclName(
        500, "", "acl 'src' file 'base.cfg' line 15. curr_ver=0 next_ver=0 entry_cnt=0"
    )


def test_a_process_is_read_whatever_its_names_say() -> None:
    """The node and the description are the operator's words, and lines of their own."""
    said = (
        "Name: HAProxy\nVersion: 3.3-dev5-abc\nPid: 77\nStart_time_sec: 1795381174\n"
        "node: Pid: 1\nStopping: 1\ndescription: Version: 1.2\n"
    )
    assert answers.read_process(said) == Process(77, (3, 3), 1795381174, is_stopping=True)


def test_tables_are_read_with_expiry() -> None:
    """Keys are unescaped; what else is stored does not matter."""
    said = (
        "# table: alive, type: string, size:1024, used:3\n"
        "0x55d4b7a8f518: key=a\\ b use=0 exp=29698 gpc0=1\n"
        "0x7fdd02379708: key=wiki use=1 exp=0 shard=0 gpc0=1\n"
    )
    assert answers.read_table(said) == Table("string", {"a b": 29698, "wiki": 0})
    assert answers.read_table("# table: t, type: ip, size:9, used:0\n") == Table("ip", {})


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "said", ["Permission denied\n", "Unknown ACL identifier. Please use #<id> or <file>.\n"]
)
def test_a_refusal_is_no_answer(read: Callable[[str], object], said: str) -> None:
    """It is unreadable for every reader: nothing is taken for an empty list."""
    with pytest.raises(Unreadable):
        read(said)


@given(st.text(max_size=99), st.sampled_from(READERS))
def test_whatever_is_said_is_read_or_unreadable(said: str, read: Callable[[str], object]) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(Unreadable):
        read(said)


def test_frontends_are_read() -> None:
    """Of a table of statistics only who is a frontend is named."""
    said = "# pxname,svname,qcur\nweb,FRONTEND,\nagents,BACKEND,0\nmag_443,FRONTEND,\n"
    assert answers.read_frontends(said) == ["web", "mag_443"]
    for rubbish in ("", "web,FRONTEND", "no such thing"):
        with pytest.raises(answers.Unreadable):
            answers.read_frontends(rubbish)
