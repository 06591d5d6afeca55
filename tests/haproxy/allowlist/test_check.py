"""`kat check` and the HAProxy that `kat allowlist` keeps."""

from pathlib import Path

import redis

from spoa.check.check import Finding, Level, findings
from spoa.config.file import load
from tests.support.allowlist import Allowlist, Kept, keeping, target
from tests.support.grants import grant


def _found(allowlist: Allowlist) -> list[Finding]:
    every = findings(load(allowlist.config, {}), ())
    return [it for it in every if it.subject == "allowlist"]


def test_a_haproxy_that_is_kept_is_ok(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """It says how many grants are in which ACL."""
    grant(grants, "wiki", "127.0.0.7")
    with keeping(folder, store, {"edge": target(edge)}) as allowlist:
        allowlist.told("ACLs are equal")
        assert _found(allowlist) == [
            Finding(Level.OK, "allowlist", "edge: 1 of 1 of the grants of wiki in #500")
        ]


def test_one_that_nobody_keeps_fails(
    edge: Kept, folder: Path, store: str, grants: redis.Redis
) -> None:
    """What is missing, or only the heartbeat: it says so, and asks whether anybody keeps it."""
    allowlist = Allowlist(folder, store, {"edge": target(edge)})
    (finding,) = _found(allowlist)
    assert finding.level is Level.FAIL
    assert finding.sentence.startswith("edge: kat_alive has no heartbeat of wiki: is `kat ")
    grant(grants, "wiki", "127.0.0.7")
    (finding,) = _found(allowlist)
    assert finding.sentence.startswith("edge: of the grants of wiki in #500 1 are missing and 0 ")


def test_one_that_is_away_fails(edge: Kept, folder: Path, store: str) -> None:
    """The sentence is that of `kat allowlist` itself."""
    edge.stop()
    (finding,) = _found(Allowlist(folder, store, {"edge": target(edge)}))
    assert finding.level is Level.FAIL
    assert finding.sentence.startswith(f"edge: no HAProxy at unix:{edge.runtime}: ")
