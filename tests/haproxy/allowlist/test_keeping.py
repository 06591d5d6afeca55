"""`kat allowlist` and one HAProxy: grants come and go in its ACLs as they do in Redis."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.allowlist import Kept, keeping, kept, target
from tests.support.eventually import eventually
from tests.support.grants import KEYS, end, grant, grant_many
from tests.support.haproxy import binary
from tests.support.service import GREETING, Service
from tokens.admin.admin import Admin
from tokens.admin.block import Blocker

EQUAL = "ACLs are equal to what is granted"
IN, OUT, AWAY = 200, 403, 503


def test_a_grant_opens_and_its_end_closes(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """Who is granted gets in, and is kept out again when the grant was ended."""
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        assert edge.entries() == ["127.0.0.7/032"]
        assert edge.status("127.0.0.7") == IN
        assert edge.status("127.0.0.8") == OUT
        grant(grants, "wiki", "127.0.0.8")
        eventually(lambda: edge.status("127.0.0.8") == IN, "the new grant")
        end(grants, "wiki", "127.0.0.7")
        eventually(lambda: edge.status("127.0.0.7") == OUT, "the end of the old one")
        assert allowlist.stop() == 0


def test_a_grant_that_runs_out_closes(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """Nobody need say anything for a grant to be over; another one stands on."""
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        grant(grants, "wiki", "127.0.0.8")
        ends_ms = grant(grants, "wiki", "127.0.0.7", ttl_ms=1500)
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
        eventually(lambda: "127.0.0.7/032" not in edge.entries(), "its end")
        seconds, micros = grants.time()
        over_ms = seconds * 1000 + micros // 1000 - ends_ms
        assert 0 <= over_ms <= 1000
        assert edge.status("127.0.0.7") == OUT
        assert edge.status("127.0.0.8") == IN


def test_a_grant_by_hand_needs_no_word(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """Who forgets to PUBLISH is seen by the next look."""
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        seconds, _ = grants.time()
        grants.zadd(KEYS.grants(b"wiki"), {"127.0.0.7": (seconds + 60) * 1000})
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")


def test_networks_and_ipv6_are_entries_too(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """A /24 lets in all of its addresses and no other; IPv6 stands beside IPv4 in one ACL."""
    for member in ("127.5.5.0/24", "2001:db8::7", "2001:db8:1::/48"):
        grant(grants, "wiki", member)
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        assert sorted(edge.entries()) == ["127.5.5.0/024", "2001:db8:1::/048", "2001:db8::7/0128"]
        assert edge.status("127.5.5.255") == IN
        assert edge.status("127.5.4.255") == OUT
        assert edge.status("127.5.6.0") == OUT


def test_every_kind_of_name_is_kept(
    version: str, edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """`#id`, a file and, from 3.0 on, `virt@name` get the same entries; the file stays empty."""
    names = ["#500", str(edge.file), *(["virt@wiki"] if version != "2.6" else [])]
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge, acl={"wiki": names})}) as allowlist:
        allowlist.told(EQUAL)
        assert [edge.entries(name) for name in names] == [["127.0.0.7/032"]] * len(names)
        assert edge.file.read_text() == ""


def test_what_others_put_there_stays(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """Their entries stay; so does theirs of an address whose grant of ours has ended."""
    theirs = ["127.0.0.7", "127.0.0.9", "10.0.0.0/8"]
    for entry in theirs:
        edge.tell(f"add acl #500 {entry}")
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        assert edge.entries() == [*theirs, "127.0.0.7/032"]
        end(grants, "wiki", "127.0.0.7")
        eventually(lambda: edge.entries() == theirs, "only theirs")
        assert edge.status("127.0.0.7") == IN


@pytest.mark.parametrize("count", [3, 700])
def test_what_others_put_there_goes_if_wanted(
    edge: Kept, folder: Path, store: str, grants: redis.Redis, count: int
) -> None:
    """With foreign = "remove" the ACL holds what is granted, put there one by one or at once."""
    edge.tell("add acl #500 127.0.0.9")
    members = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]
    grant_many(grants, "wiki", members)
    with keeping(folder, store, {"edge": target(edge, foreign="remove")}) as allowlist:
        allowlist.told(EQUAL)
        assert sorted(edge.entries()) == sorted(f"{it}/032" for it in members)
        assert edge.status("127.0.0.9") == OUT
        assert edge.status(members[-1]) == IN


def test_what_somebody_took_away_comes_back(folder: Path, store: str, grants: redis.Redis) -> None:
    """Every ten seconds all entries are looked at again."""
    grant(grants, "wiki", "127.0.0.7")
    with (
        kept(binary("3.2"), folder / "edge") as edge,
        keeping(folder, store, {"edge": target(edge)}) as allowlist,
    ):
        allowlist.told(EQUAL)
        edge.tell("clear acl #500")
        edge.tell("add acl #500 127.0.0.8/032")
        eventually(lambda: edge.entries() == ["127.0.0.7/032"], "as it was")


def test_entries_of_a_former_life_are_put_right(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """What ended while nobody kept it is taken out by whoever keeps it next."""
    edge.tell("add acl #500 127.0.0.8/032")
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        assert edge.entries() == ["127.0.0.7/032"]


def test_a_blocked_address_is_taken_out_and_cut_off(
    version: str, folder: Path, store: str, grants: redis.Redis
) -> None:
    """It leaves the ACL, its connections end, whatever their door; those of others go on."""
    with (
        Service() as service,
        kept(binary(version), folder / "edge", service.address) as edge,
        keeping(folder, store, {"edge": target(edge)}) as allowlist,
    ):
        for member in ("127.0.0.7", "127.0.0.8"):
            grant(grants, "wiki", member)
        allowlist.told(EQUAL)
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
        with (
            _greeted(edge, "KEPT_TCP", "127.0.0.7") as bad,
            _greeted(edge, "KEPT_OTHER", "127.0.0.7") as worse,
            _greeted(edge, "KEPT_TCP", "127.0.0.8") as good,
        ):
            Blocker(Admin(grants, by="test")).block("127.0.0.7", 60)
            assert _rest(bad) == _rest(worse) == b""
            assert edge.status("127.0.0.7") == OUT
            assert edge.status("127.0.0.8") == IN
            good.sendall(b"still here\n")
            assert good.recv(100) == b"still here\n"


def test_a_hole_in_a_network_is_closed(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """A blocked address of a granted network is kept out, its neighbours are not."""
    grant(grants, "wiki", "127.5.5.0/24")
    Blocker(Admin(grants, by="test")).block("127.5.5.7", 60)
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        assert edge.status("127.5.5.7") == OUT
        assert edge.status("127.5.5.6") == edge.status("127.5.5.8") == IN


def test_connections_end_with_the_grant_where_that_is_wanted(
    version: str, folder: Path, store: str, grants: redis.Redis
) -> None:
    """On the frontends that `shut` names, and only of the address whose grant is over."""
    with (
        Service() as service,
        kept(binary(version), folder / "edge", service.address) as edge,
        keeping(folder, store, {"edge": target(edge, shut={"wiki": ["vpn"]})}) as allowlist,
    ):
        for member in ("127.0.0.7", "127.0.0.8"):
            grant(grants, "wiki", member)
        allowlist.told(EQUAL)
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
        with (
            _greeted(edge, "KEPT_TCP", "127.0.0.7") as shut,
            _greeted(edge, "KEPT_OTHER", "127.0.0.7") as kept_on,
            _greeted(edge, "KEPT_TCP", "127.0.0.8") as good,
        ):
            end(grants, "wiki", "127.0.0.7")
            assert _rest(shut) == b""
            for line in (kept_on, good):
                line.sendall(b"still here\n")
                assert line.recv(100) == b"still here\n"


def test_a_lost_session_is_made_anew(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """HAProxy itself lives on: whoever ended our connection to it has changed nothing."""
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        for number in (7, 8, 9):
            sessions = [line for line in edge.tell("show sess").splitlines() if "GLOBAL" in line]
            for line in sessions:
                edge.tell(f"shutdown session {line.partition(':')[0]}")
            grant(grants, "wiki", f"127.0.0.{number}")
            eventually(lambda number=number: edge.status(f"127.0.0.{number}") == IN, "the grant")


def test_a_restarted_haproxy_is_filled_anew(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """It comes back with empty ACLs and no heartbeat: 503 at first, then as before."""
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        edge.stop()
        allowlist.told("level=error")
        edge.start()
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
        assert edge.status("127.0.0.8") == OUT
        allowlist.told(EQUAL, times=2)


def test_a_reloaded_haproxy_is_filled_anew(
    version: str, folder: Path, store: str, grants: redis.Redis
) -> None:
    """The new process is found out at once; a block ends connections of the old one, too.

    The old one lives on for its other connections, and not for us.
    """
    with (
        Service() as service,
        _reloadable(version, folder, service.address) as edge,
        keeping(folder, store, {"edge": target(edge)}) as allowlist,
    ):
        grant(grants, "wiki", "127.0.0.7")
        allowlist.told(EQUAL)
        with (
            _greeted(edge, "KEPT_TCP", "127.0.0.8") as bad,
            _greeted(edge, "KEPT_TCP", "127.0.0.9") as good,
        ):
            old = edge.pid()
            assert edge.process
            os.kill(edge.process.pid, signal.SIGUSR2)
            eventually(lambda: edge.pid() != old, "a new process")
            # Sooner than the next look at all entries would find it out.
            eventually(lambda: edge.entries() == ["127.0.0.7/032"], "the grant in it", 5)
            eventually(lambda: edge.status("127.0.0.7") == IN, "the heartbeat in it", 5)
            Blocker(Admin(grants, by="test")).block("127.0.0.8", 60)
            assert _rest(bad) == b""
            good.sendall(b"still here\n")
            assert good.recv(100) == b"still here\n"
            assert Path(f"/proc/{old}").exists()
        eventually(lambda: not Path(f"/proc/{old}").exists(), "the end of the old process")
        assert edge.status("127.0.0.7") == IN


def test_rules_refuse_when_the_writer_is_dead(
    version: str, folder: Path, store: str, grants: redis.Redis
) -> None:
    """Killed: 503 as soon as the table forgets the heartbeat; started again: as before."""
    grant(grants, "wiki", "127.0.0.7")
    with (
        kept(binary(version), folder / "edge", KEPT_EXPIRE="3s") as edge,
        keeping(folder, store, {"edge": target(edge)}) as allowlist,
    ):
        allowlist.told(EQUAL)
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
        allowlist.kill()
        eventually(lambda: edge.status("127.0.0.7") == AWAY, "the end of the heartbeat")
        assert edge.entries() == ["127.0.0.7/032"]
        allowlist.start()
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant, again")


def _greeted(edge: Kept, door: str, source: str) -> socket.socket:
    """Open a connection that a server has answered."""
    client = edge.connect(door, source)
    assert client.recv(100) == GREETING
    return client


def _rest(client: socket.socket) -> bytes:
    """Read until the connection ends."""
    try:
        return b"".join(iter(lambda: client.recv(4096), b""))
    except ConnectionResetError:
        return b""


@contextmanager
def _reloadable(version: str, folder: Path, service: str) -> Iterator[Kept]:
    """Run one that has a master."""
    with kept(binary(version), folder / "edge", service) as edge:
        edge.stop()
        edge.start("-W", "-db")
        yield edge
