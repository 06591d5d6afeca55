from pathlib import Path

import pytest

from spoa.bench.fault import Fault
from spoa.bench.haproxy import closed
from spoa.bench.haproxy.front import Front, Haproxy, front
from spoa.bench.haproxy.gateway import Subject
from spoa.bench.haproxy.visitors import invite
from spoa.bench.servers import private_redis
from tests.support.haproxy import binary


def test_only_a_yes_is_a_request(tmp_path: Path) -> None:
    """Each token opens once; what comes with a spent one is counted by its status."""
    haproxy = Haproxy(binary("3.0"), "3.0", has_lua=True)
    with (
        private_redis(tmp_path) as store,
        front(tmp_path / "front", haproxy, Subject.LUA, 1, "/nobody", store.socket) as gate,
    ):
        visitors = invite(Subject.LUA, store.socket, 100)
        seen = closed.prepare(gate, visitors, connections=4, seconds=0.1)()
        assert seen.right == 100
        assert list(seen.wrong) == ["status 503"]
        assert seen.unknown == 4
        assert seen.figures["requests_per_s"] == 100 / seen.figures["elapsed_s"]
        assert seen.figures["generator_us"] > 0
        visitors.verify(seen.right, seen.unknown, seen.wrong)
        assert list(seen.wrong) == ["status 503"]


def test_a_missing_wrk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Front
) -> None:
    """It says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Fault, match="wrk is not installed: `apt install wrk`"):
        closed.prepare(gate, invite(Subject.NO_FILTER, "", 1), 1, 1)()


def test_what_wrk_said_is_told(gate: Front) -> None:
    """A run that fails ends with wrk's own words."""
    with pytest.raises(Fault, match=r"wrk ended with code 1\n.*unable to connect"):
        closed.prepare(gate, invite(Subject.NO_FILTER, "", 1), 1, 1)()


@pytest.fixture
def gate(tmp_path: Path) -> Front:
    """Nobody listens there."""
    return Front(None, 1, tmp_path)  # type: ignore[arg-type]
