"""`kat allowlist` and what is wrong with a HAProxy: one sentence each, and the rest goes on."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.allowlist import Kept, keeping, kept, target
from tests.support.eventually import eventually
from tests.support.grants import KEYS, grant
from tests.support.haproxy import binary

IN = 200


def _wrong_path(bad: Kept) -> dict[str, object]:
    return target(bad, runtime=f"unix:{bad.folder}/nowhere.sock")


def _not_haproxy(bad: Kept) -> dict[str, object]:
    return target(bad, runtime=f"unix:{bad.runtime}.words")


FAULTS: dict[str, tuple[Callable[[Kept], dict[str, object]], dict[str, str], list[str]]] = {
    "a wrong path": (_wrong_path, {}, ["nowhere.sock", "no such socket"]),
    "no runtime API": (_not_haproxy, {}, ["admin.sock.words", "is not HAProxy's Runtime API"]),
    "no admin level": (target, {"KEPT_LEVEL": "operator"}, ["admin.sock", "level admin"]),
    "level user": (target, {"KEPT_LEVEL": "user"}, ["admin.sock", "level admin"]),
    "an unknown ACL": (lambda bad: target(bad, acl={"wiki": ["#501"]}), {}, ["#501"]),
    "an unknown file": (lambda bad: target(bad, acl={"wiki": ["/no.acl"]}), {}, ["/no.acl"]),
    "an ACL of numbers": (lambda bad: target(bad, acl={"wiki": ["#700"]}), {}, ["#700"]),
    "an unknown table": (lambda bad: target(bad, heartbeat="kat_dead"), {}, ["kat_dead"]),
    "a table of addresses": (
        lambda bad: target(bad, heartbeat="by_address"),
        {},
        ["by_address", "string"],
    ),
    "a table without counter": (
        lambda bad: target(bad, heartbeat="without_counter"),
        {},
        ["without_counter", "gpc0"],
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_one_sentence_and_the_others_go_on(
    what: str, version: str, folder: Path, store: str, grants: redis.Redis
) -> None:
    """It is said once, with the place and what is wrong; the other HAProxy gets its grants."""
    make, settings, words = FAULTS[what]
    with (
        kept(binary(version), folder / "bad", **settings) as bad,
        kept(binary("3.2"), folder / "good") as good,
        keeping(folder, store, {"bad": make(bad), "good": target(good)}) as allowlist,
    ):
        grant(grants, "wiki", "127.0.0.7")
        eventually(lambda: good.status("127.0.0.7") == IN, "the grant in the good one")
        allowlist.told("bad: ")
        grant(grants, "wiki", "127.0.0.8")
        eventually(lambda: good.status("127.0.0.8") == IN, "one more")
        complaints = [line for line in allowlist.log().splitlines() if "level=error" in line]
        assert len(complaints) == 1, complaints
        assert all(word in complaints[0] for word in words), complaints
        assert "Traceback" not in allowlist.log()
        assert bad.status("127.0.0.7") == 503
        shown = allowlist.show()
        assert shown.returncode == 1
        assert shown.stderr.startswith("kat: warning: bad: "), shown.stderr
        assert words[0] in shown.stderr


def test_one_bad_acl_of_a_haproxy_keeps_no_other_from_being_kept(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """Of two ACLs the one that is there is kept, and its heartbeat beats."""
    acls = {"wiki": ["#500"], "mail": ["#501"]}
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge, acl=acls)}) as allowlist:
        eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
        allowlist.told("#501")
        assert "key=mail" not in edge.tell("show table kat_alive")


def test_two_names_of_one_acl_are_a_fault(folder: Path, store: str, grants: redis.Redis) -> None:
    """What one kind of grants puts there the other would take out: neither is kept."""
    with kept(binary("3.2"), folder / "edge") as edge:
        acls = {"mail": [str(edge.file)], "vpn": ["#0"], "wiki": ["#500"]}
        grant(grants, "wiki", "127.0.0.7")
        grant(grants, "mail", "127.0.0.8")
        with keeping(folder, store, {"edge": target(edge, acl=acls)}) as allowlist:
            eventually(lambda: edge.status("127.0.0.7") == IN, "the grant of the third")
            allowlist.told("are one and the same ACL")
            assert edge.entries("#0") == []
            beats = edge.tell("show table kat_alive")
            assert "key=wiki" in beats
            assert "key=mail" not in beats


def test_what_looks_like_ours_and_is_not_is_left_alone(
    folder: Path, store: str, grants: redis.Redis
) -> None:
    """Somebody pads a length with zeros: an entry like any other of theirs, and no mistake."""
    with kept(binary("3.2"), folder / "edge") as edge:
        edge.tell("add acl #500 10.0.0.1/08")
        changes = {"shut": {"wiki": ["vpn"]}}
        with keeping(folder, store, {"edge": target(edge, **changes)}) as allowlist:
            grant(grants, "wiki", "127.0.0.7")
            eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
            assert edge.entries() == ["10.0.0.1/08", "127.0.0.7/032"]
            assert "Traceback" not in allowlist.log()


def test_a_frontend_that_is_not_there_is_named(
    folder: Path, store: str, grants: redis.Redis
) -> None:
    """Whoever misspelt it believes that connections end: all the rest is kept."""
    with kept(binary("3.2"), folder / "edge") as edge:
        changes = {"shut": {"wiki": ["vpn", "vnp"]}}
        with keeping(folder, store, {"edge": target(edge, **changes)}) as allowlist:
            grant(grants, "wiki", "127.0.0.7")
            eventually(lambda: edge.status("127.0.0.7") == IN, "the grant")
            allowlist.told("no frontend vnp")


def test_what_haproxy_refuses_is_named_once_and_the_rest_is_kept(
    folder: Path, store: str, grants: redis.Redis
) -> None:
    """An ACL that compares ports, too, takes no address: said once, however often it is tried."""
    with kept(binary("3.2"), folder / "edge") as edge:
        acls = {"wiki": ["#500"], "mail": [str(edge.mixed)]}
        for acl in acls:
            grant(grants, acl, "127.0.0.7")
        with keeping(folder, store, {"edge": target(edge, acl=acls)}) as allowlist:
            eventually(lambda: edge.status("127.0.0.7") == IN, "the grant of the other ACL")
            allowlist.told("HAProxy refuses 127.0.0.7/032")
            assert edge.entries(str(edge.mixed)) == []
            edge.tell("clear acl #500")
            eventually(lambda: edge.entries() == ["127.0.0.7/032"], "the next look at all")
            assert allowlist.log().count("level=error") == 1
            assert "over: " not in allowlist.log()


def test_a_level_that_may_nothing_changes_nothing(
    version: str, folder: Path, store: str, grants: redis.Redis
) -> None:
    """HAProxy lets any level add entries: we do not, and no heartbeat opens the rules."""
    grant(grants, "wiki", "127.0.0.7")
    with (
        kept(binary(version), folder / "edge", KEPT_LEVEL="user") as edge,
        keeping(folder, store, {"edge": target(edge)}) as allowlist,
    ):
        allowlist.told("level=error")
        assert edge.entries() == []
        assert edge.status("127.0.0.7") == 503


def test_what_no_agent_would_match_is_left_out_and_named(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """Rubbish that somebody wrote into a grant is no entry, and the rest is kept."""
    seconds, _ = grants.time()
    rubbish = ("wiki", "127.0.0.9/32", "127.0.0.0/20", "#500", "127.0.0.8;clear acl #500")
    grants.zadd(KEYS.grants(b"wiki"), dict.fromkeys(rubbish, (seconds + 60) * 1000))
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        eventually(lambda: edge.entries() == ["127.0.0.7/032"], "the one that is right")
        allowlist.told("level=warning")
        warning = next(line for line in allowlist.log().splitlines() if "level=warning" in line)
        assert re.search(r"\b5\b", warning), warning
