"""`kat allowlist --show`: wanted against present, per HAProxy and ACL."""

import json
from pathlib import Path

import redis

from tests.support.allowlist import Allowlist, Kept, keeping, kept, target
from tests.support.grants import grant
from tests.support.haproxy import binary

EQUAL = "ACLs are equal to what is granted"


def test_equal_acls_are_shown_and_end_with_zero(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """What is wanted is there, the heartbeat beats, and what others put there is counted."""
    grant(grants, "wiki", "127.0.0.7")
    edge.tell("add acl #500 127.0.0.9")
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told(EQUAL)
        shown = allowlist.show()
        assert (shown.returncode, shown.stderr) == (0, "")
        header, row = (line.split() for line in shown.stdout.splitlines())
        assert header[:4] == ["HAPROXY", "GRANTS", "OF", "ACL"]
        assert row[:-1] == ["edge", "wiki", "#500", "1", "1", "0", "0", "1"]
        assert row[-1] in {"28s", "29s", "30s"}


def test_a_difference_is_shown_and_ends_with_one(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """What is missing and what is too much is named; that nobody beats, too."""
    grant(grants, "wiki", "127.0.0.7")
    edge.tell("add acl #500 127.0.0.8/032")
    allowlist = Allowlist(folder, store, {"edge": target(edge)})
    shown = allowlist.show()
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[1].split() == [
        *("edge", "wiki", "#500", "1", "0", "1", "1", "0", "none"),
    ]
    (row,) = json.loads(allowlist.show("--json").stdout)
    assert row["missing"] == ["127.0.0.7/032"]
    assert row["surplus"] == ["127.0.0.8/032"]
    assert row["is_equal"] is False
    assert row["beat_ms"] is None
    assert edge.entries() == ["127.0.0.8/032"]


def test_one_that_is_away_is_a_row_and_the_others_are_shown(folder: Path, store: str) -> None:
    """The row says nothing, a sentence says why, and the exit code is 1."""
    with kept(binary("3.2"), folder / "one") as one, kept(binary("3.2"), folder / "two") as two:
        two.stop()
        allowlist = Allowlist(folder, store, {"one": target(one), "two": target(two)})
        shown = allowlist.show()
        assert shown.returncode == 1
        assert [line.split()[0] for line in shown.stdout.splitlines()] == ["HAPROXY", "one", "two"]
        assert shown.stdout.splitlines()[2].split() == ["two", "wiki", *"-------"]
        assert "kat: warning: two: no HAProxy at " in shown.stderr


def test_what_others_put_into_an_acl_of_ours_alone_is_a_difference(
    edge: Kept, folder: Path, store: str
) -> None:
    """With foreign = "remove" nobody else is to have an entry there."""
    edge.tell("add acl #500 127.0.0.9")
    edge.tell("set table kat_alive key wiki data.gpc0 1")
    assert Allowlist(folder, store, {"edge": target(edge)}).show().returncode == 0
    alone = target(edge, foreign="remove")
    assert Allowlist(folder, store, {"edge": alone}).show().returncode == 1


def test_one_without_acls_is_a_row_too(edge: Kept, folder: Path, store: str) -> None:
    """Where only connections are ended, it says whether HAProxy answers."""
    allowlist = Allowlist(folder, store, {"edge": target(edge, acl={})})
    assert allowlist.show().returncode == 0
    edge.stop()
    shown = allowlist.show()
    assert shown.returncode == 1
    assert "kat: warning: edge: no HAProxy at " in shown.stderr


def test_without_redis_it_says_so(edge: Kept, folder: Path) -> None:
    """There is nothing to compare with: a sentence, exit code 1, no table."""
    shown = Allowlist(folder, f"unix://{folder}/no.sock", {"edge": target(edge)}).show()
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("kat: Redis at ")
    assert "Traceback" not in shown.stderr
