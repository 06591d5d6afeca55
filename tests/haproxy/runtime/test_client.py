"""Against real HAProxy 2.6, 3.0 and 3.2. What cannot be reached is in test_connection.py."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import pytest

from haproxy.runtime.client import Runtime, Session
from haproxy.runtime.connection import LINES_AT_ONCE
from haproxy.runtime.fault import NoAdmin, Refused, UnknownAcl, UnknownTable, WrongType
from tests.support.eventually import DEADLINE_S, eventually
from tests.support.haproxy import versions
from tests.support.runtime import Edge, running_edge, using

ACL = "#500"
HERE = "127.0.5.7"


def entries(edge: Edge, acl: str = ACL) -> list[str]:
    return using(edge.at(), lambda session: session.entries(acl))


def add(edge: Edge, *patterns: str, acl: str = ACL) -> dict[str, str]:
    return using(edge.at(), lambda session: session.add(acl, patterns))


def delete(edge: Edge, *patterns: str, acl: str = ACL) -> None:
    using(edge.at(), lambda session: session.delete(acl, patterns))


def replace(edge: Edge, *patterns: str, acl: str = ACL) -> dict[str, str]:
    return using(edge.at(), lambda session: session.replace(acl, patterns))


def beat(edge: Edge, table: str, key: str = "confluence") -> None:
    using(edge.at(), lambda session: session.beat(table, key))


def beats(edge: Edge, table: str = "alive") -> dict[str, int]:
    return using(edge.at(), lambda session: session.beats(table))


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("127.0.5.7/032", ["127.0.5.7"], ["127.0.5.6", "127.0.5.8"]),  # read as octal, it is /26
        ("127.0.16.0/024", ["127.0.16.0", "127.0.16.255"], ["127.0.17.0", "127.0.31.1"]),  # /20
        ("127.9.0.0/016", ["127.9.255.255"], ["127.8.255.255", "127.10.0.0"]),  # /14
        ("::1/0128", ["::1"], ["127.0.0.1"]),
        ("::2/0128", [], ["::1", "127.0.0.2"]),
        ("::/048", ["::1"], []),
    ],
)
def test_a_zero_before_the_length_is_kept_and_changes_nothing(
    edge: Edge, pattern: str, inside: list[str], outside: list[str]
) -> None:
    """The entry stands there as it was written, and its length is read in base 10."""
    assert add(edge, pattern) == {}
    assert entries(edge) == [pattern]
    assert [source for source in (*inside, *outside) if edge.admits(source)] == inside


def test_deleting_one_spelling_leaves_the_others(edge: Edge) -> None:
    """All entries of the very text go; the address matches as long as any spelling is left."""
    add(edge, "127.0.5.7", "127.0.5.7/032", "127.0.5.7/32", "127.0.5.7/032")
    for pattern, left in [
        ("127.0.5.7/032", ["127.0.5.7", "127.0.5.7/32"]),
        ("127.0.5.7", ["127.0.5.7/32"]),
        ("127.0.5.7/32", []),
    ]:
        delete(edge, pattern)
        assert entries(edge) == left
        assert edge.admits(HERE) == bool(left)


def test_deleting_what_is_not_there_is_no_error(edge: Edge) -> None:
    """The others named beside it go."""
    add(edge, "192.0.2.1", "192.0.2.2")
    delete(edge, "192.0.2.9", "192.0.2.1", "192.0.2.1")
    assert entries(edge) == ["192.0.2.2"]


def test_what_haproxy_refuses_is_told_and_the_rest_is_added(edge: Edge) -> None:
    """Each with HAProxy's own words."""
    junk = ["junk", "192.0.2.7/033", "127.1", "2001:db8::/0129", "localhost"]
    refused = add(edge, "192.0.2.1", *junk, "2001:db8::7")
    assert list(refused) == junk
    assert refused["junk"] == "'junk' is not a valid IPv4 or IPv6 address."
    assert entries(edge) == ["192.0.2.1", "2001:db8::7"]


def test_no_entry_becomes_a_command(edge: Edge) -> None:
    """A ; a blank and a backslash are sent as what they are; a line's end is not sent at all."""
    sly = ["192.0.2.1;clear acl #500", "192.0.2.1 192.0.2.2", "192.0.2.1\\"]
    add(edge, "192.0.2.9")
    assert list(add(edge, *sly)) == sly
    with pytest.raises(ValueError, match="printable"):
        add(edge, "192.0.2.1\nclear acl #500")
    assert entries(edge) == ["192.0.2.9"]


def test_a_file_with_a_blank_in_its_name_is_an_acl(edge: Edge) -> None:
    """So that `show acl` names it, it can be named."""
    file = str(edge.folder / "a file.acl")
    assert file in [acl.file for acl in using(edge.at(), Session.acls)]
    assert 500 in [acl.id for acl in using(edge.at(), Session.acls)]
    assert add(edge, "127.0.5.7/032", acl=file) == {}
    assert edge.admits(HERE)
    assert entries(edge, file) == ["10.0.0.1", "127.0.5.7/032"]
    delete(edge, "127.0.5.7/032", acl=file)


def test_a_virtual_file_is_an_acl_where_haproxy_has_it(edge: Edge) -> None:
    """3.0 and later do; 2.6 says that there is none, and the sentence what it needs."""
    if edge.version == "2.6":
        with pytest.raises(UnknownAcl, match=r"'virt@airwatch' .*: .* virt@ needs HAProxy 3\.0"):
            add(edge, "192.0.2.7/032", acl="virt@airwatch")
    else:
        assert replace(edge, "192.0.2.7/032", acl="virt@airwatch") == {}
        assert entries(edge, "virt@airwatch") == ["192.0.2.7/032"]


@pytest.mark.parametrize("count", [0, 1, LINES_AT_ONCE, LINES_AT_ONCE + 1, 5000])
def test_many_are_replaced_at_once(edge: Edge, count: int) -> None:
    """All that were there are gone, all that are new are there, in their order."""
    many = [f"10.{n >> 8}.{n & 255}.1/032" for n in range(count)]
    add(edge, "127.0.5.7/032")
    assert replace(edge, *many) == {}
    assert entries(edge) == many
    assert not edge.admits(HERE)
    delete(edge, *many)
    assert entries(edge) == []


def test_replacing_takes_what_can_be_taken(edge: Edge) -> None:
    """A refused entry is told; the others stand in the place of all that was."""
    add(edge, "192.0.2.1")
    assert list(replace(edge, "192.0.2.2", "junk")) == ["junk"]
    assert entries(edge) == ["192.0.2.2"]


def test_what_is_not_committed_changes_nothing(edge: Edge) -> None:
    """Cut after `prepare`, the ACL is as it was, and the next replace frees what was left."""
    add(edge, "127.0.0.0/016")
    version = edge.tell("prepare", "acl", ACL).split()[-1]
    # Narrower than what stands, and another that does not stand: neither is seen.
    edge.tell("add", "acl", f"@{version}", ACL, "127.0.5.7/032")
    edge.tell("add", "acl", f"@{version}", ACL, "127.1.5.7/032")
    assert entries(edge) == ["127.0.0.0/016"]
    assert edge.admits(HERE)
    assert not edge.admits("127.1.5.7")
    assert edge.tell("show", "acl", f"@{version}", ACL).count("0x") == 2
    replace(edge, "127.0.5.7/032")
    assert edge.tell("show", "acl", f"@{version}", ACL) == ""
    assert entries(edge) == ["127.0.5.7/032"]


def test_of_two_who_replace_one_wins_whole(edge: Edge) -> None:
    """The slower of two that began at once is refused, or commits all of its own; never a mix."""
    groups = [[f"10.{who}.{n >> 8}.{n & 255}/032" for n in range(1000)] for who in range(4)]

    async def one(group: list[str]) -> bool:
        async with Runtime(edge.at(), 10).session() as session:
            with contextlib.suppress(Refused):
                await session.replace(ACL, group)
                return True
            return False

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*map(one, groups))

    assert any(asyncio.run(all_of_them()))
    assert entries(edge) in groups


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: session.entries("#999"),
        lambda session: session.add("#999", ["192.0.2.7"]),
        lambda session: session.delete("#999", ["192.0.2.7"]),
        lambda session: session.replace("#999", []),
        lambda session: session.need_addresses("#999"),
    ],
)
def test_an_unknown_acl_is_one_sentence(
    edge: Edge, ask: Callable[[Session], Awaitable[object]]
) -> None:
    """With its name, the place, and how ACLs are named; and the session goes on."""

    async def play(session: Session) -> None:
        with pytest.raises(UnknownAcl, match=f"no ACL '#999' in HAProxy at {edge.at()}: .*#500"):
            await ask(session)
        assert await session.entries(ACL) == []

    using(edge.at(), play)


def test_an_acl_of_other_things_is_refused(edge: Edge) -> None:
    """One of texts takes an address without a word, and one of numbers refuses it."""
    using(edge.at(), lambda session: session.need_addresses(ACL))
    assert add(edge, "192.0.2.7/032", acl="#600") == {}
    assert add(edge, "192.0.2.7/032", acl="#601")
    for acl, what in (("#600", "str"), ("#601", "int")):
        with pytest.raises(WrongType, match=f"'{acl}' .* compares {what}, not addresses: .* src"):
            using(edge.at(), lambda session, acl=acl: session.need_addresses(acl))


def test_a_beat_lets_a_key_stand_and_only_a_beat_prolongs_it(edge: Edge) -> None:
    """`in_table` says yes after it, and does not refresh what it finds."""
    assert not edge.admits(HERE, "/alive")
    beat(edge, "alive")
    first = beats(edge)["confluence"]
    assert 0 < first <= 30_000

    def after_looking() -> int:
        assert edge.admits(HERE, "/alive")
        return beats(edge)["confluence"]

    eventually(lambda: after_looking() < first - 50, "time")
    before = beats(edge)["confluence"]
    beat(edge, "alive")
    assert beats(edge)["confluence"] > before


def test_tables_know_their_beats_apart(edge: Edge) -> None:
    """Each ACL has its own, of up to 64 characters."""
    names = ["wiki", "vpn", "a" * 64, "x.y_z-1"]
    for name in names:
        beat(edge, "alive", name)
    assert sorted(beats(edge)) == sorted(names)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("addresses", "is of type ip"),
        ("endless", "never lets it expire"),
        ("short", "cuts it"),
        ("uncounted", "does not store it"),
    ],
)
def test_a_table_that_would_not_keep_it_as_meant_is_refused(
    edge: Edge, table: str, complaint: str
) -> None:
    """And nothing is left in it: an end that never came would keep the gate open."""
    with pytest.raises(WrongType, match=f"{complaint}.*type string len 64 .* expire 30s"):
        beat(edge, table)
    assert beats(edge, table) == {}


def test_an_unknown_table_is_one_sentence(edge: Edge) -> None:
    """With what is to be written to have it."""
    for ask in (beat, beats):
        with pytest.raises(UnknownTable, match=r"no table 'nowhere' in HAProxy .* `stick-table "):
            ask(edge, "nowhere")


@pytest.mark.parametrize("level", ["user", "operator"])
def test_who_is_no_admin_is_told(edge: Edge, level: str) -> None:
    """Before anything is changed, and with what to set."""
    with pytest.raises(NoAdmin, match=f"{edge.at(level)} has level {level}: set `level admin`"):
        using(edge.at(level), Session.need_admin)
    using(edge.at(), Session.need_admin)
    with pytest.raises(NoAdmin, match=r"`shutdown session 0x1` .* is not permitted: set `level"):
        using(edge.at(level), lambda session: session.shut("0x1"))


def test_who_may_not_beat_leaves_no_beat(edge: Edge) -> None:
    """3.0.11 makes an entry that never ends, when `set table` is told by somebody who may not."""
    with pytest.raises(NoAdmin, match="is not permitted: set `level admin`"):
        using(edge.at("user"), lambda session: session.beat("alive", "wiki"))
    assert beats(edge) == {}
    for ask in (Session.streams, lambda session: session.beats("alive")):
        with pytest.raises(NoAdmin, match="is not permitted"):
            using(edge.at("user"), ask)


async def streams_of(session: Session, frontend: str, source: str) -> list[str]:
    """List them, and once more if there is none yet: one comes to be after its client connected."""
    while True:
        streams = await session.streams()
        assert all(0 <= it.age_s < 60 for it in streams)
        wanted = (frontend, ip_address(source))
        if found := [it.id for it in streams if (it.frontend, it.source) == wanted]:
            return found


@pytest.mark.parametrize(
    ("door", "frontend", "source"),
    [("passed", "tcp", "127.0.5.7"), ("web", "web", "127.0.5.7"), ("web6", "web", "::1")],
)
def test_a_stream_is_found_by_its_source_and_ended(
    edge: Edge, door: str, frontend: str, source: str
) -> None:
    """Its client gets an error or an end; the same id once more is of nobody."""
    add(edge, source)

    async def play(session: Session) -> None:
        async with asyncio.timeout(DEADLINE_S):
            [stream] = await streams_of(session, frontend, source)
            assert await session.shut(stream) is True
            # In the same session: another's own stream could get the place in memory.
            while stream in [it.id for it in await session.streams()]:
                pass
            assert await session.shut(stream) is False

    with edge.ask("/wait", source) if frontend == "web" else edge.connect(door, source) as client:
        using(edge.at(), play)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(4096)[:12] in (b"", b"HTTP/1.1 502")


def test_behind_a_proxy_the_source_is_the_proxy(edge: Edge) -> None:
    """The rules see the client that the PROXY protocol names; the Runtime API does not."""

    async def play(session: Session) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await streams_of(session, "tcp", "127.0.5.8")
            assert ip_address("192.0.2.7") not in [it.source for it in await session.streams()]

    with edge.connect("proxied", "127.0.5.8") as client:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n")
        using(edge.at(), play)


@pytest.mark.parametrize("version", versions())
def test_after_a_reload_another_process_answers(version: str) -> None:
    """Empty ACLs, another Process; a session from before stays with the old one and its streams."""
    with (
        running_edge(version, has_master=True) as edge,
        edge.connect("passed", "127.0.5.7") as client,
    ):

        async def play() -> None:
            async with Runtime(edge.at(), 10).session() as old:
                before = await old.process()
                await old.add(ACL, ["127.0.5.7/032"])
                [stream] = await streams_of(old, "tcp", "127.0.5.7")
                await asyncio.to_thread(edge.reload)
                async with Runtime(edge.at(), 10).session() as new:
                    after = await new.process()
                    assert not after.is_stopping
                    assert (after.pid, after.version) != (before.pid, before.version)
                    assert after.started_s >= before.started_s
                    assert await new.entries(ACL) == []
                    assert "tcp" not in [it.frontend for it in await new.streams()]
                now = await old.process()
                assert now.is_stopping
                assert (now.pid, now.started_s) == (before.pid, before.started_s)
                assert await old.entries(ACL) == ["127.0.5.7/032"]
                assert await old.shut(stream) is True

        asyncio.run(play())
        assert client.recv(1) == b""
