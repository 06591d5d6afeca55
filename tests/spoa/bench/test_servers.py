import os
import sys
from pathlib import Path

import pytest

from spoa.bench.servers import NotStarted, private_redis, real_agent


def test_a_server_runs_as_long_as_its_block(tmp_path: Path) -> None:
    """The process uses CPU while the block runs, and is gone after it."""
    with private_redis(tmp_path) as server:
        assert server.process.poll() is None
        assert server.cpu_s() > 0
    assert server.process.poll() is not None


def test_a_pinned_server_stays_on_its_cores(tmp_path: Path) -> None:
    """All threads of Redis move to the one core that they are given."""
    core = min(os.sched_getaffinity(0))
    with private_redis(tmp_path) as server:
        server.pin([core])
        tasks = list(Path(f"/proc/{server.process.pid}/task").iterdir())
        assert [os.sched_getaffinity(int(task.name)) for task in tasks] == [{core}] * len(tasks)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no Redis is told so, in one sentence."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotStarted, match="redis-server is not installed"), private_redis(tmp_path):
        pass


def test_what_a_failed_server_said_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that ends at once is not waited for, and its own words are in the message."""
    monkeypatch.setattr(sys, "executable", "/bin/ls")
    failure = pytest.raises(NotStarted, match=r"agent ended at once\n.*spoa\.cli")
    with failure, real_agent(tmp_path, "/nobody.sock", 1, {}):
        pass
