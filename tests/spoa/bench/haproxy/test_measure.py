import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from spoa.bench.fault import Fault
from spoa.bench.haproxy import closed, measure
from spoa.bench.haproxy.front import NAMED_BY, Front, Haproxy, front
from spoa.bench.haproxy.gateway import Subject
from spoa.bench.haproxy.measure import Row, compare, play, play_round, run
from spoa.bench.haproxy.seen import Seen
from spoa.bench.haproxy.visitors import Visitors
from spoa.bench.options import Options
from spoa.bench.result import Figures, Result, Round
from spoa.bench.servers import private_redis
from tests.support.haproxy import binary


def test_everybody_lets_in_who_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real HAProxy, agent and Redis no answer is wrong, whoever is asked."""
    monkeypatch.setenv(NAMED_BY, str(binary("3.2")))
    monkeypatch.setattr(measure, "RATES", (400.0,))
    monkeypatch.setattr(measure, "_FIRST_GUESS", 100)
    monkeypatch.setattr(closed, "prepare", no_wrk)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    results = run(Options(seconds=0.25, rounds=1), tmp_path, lambda _doing: None)
    paced = [one for one in results if "rate" in one.at]
    assert [one.name for one in paced] == list(Subject)
    for one in paced:
        assert one.wrong == {}
        assert one.median["requests"] == 100
        assert {"haproxy_us", "redis_us", "p99_ms", "added_p50_ms"} <= set(one.median)
        assert ("agent_us" in one.median) == Subject(one.name).asks


def no_wrk(
    _front: Front, _visitors: object, connections: int, _seconds: float
) -> Callable[[], Seen]:
    return lambda: Seen(0, connections, Counter(), {})


def test_rounds_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a warm-up of what has no pace comes every second round backwards."""
    played: list[str] = []

    def note(row: Row, _seconds: float) -> Round:
        played.append(f"{row.subject} {row.rate}")
        return Round({}, Counter())

    monkeypatch.setattr(measure, "play_round", note)
    rows = [row(one, rate) for rate in (None, 5.0) for one in (Subject.NO_FILTER, Subject.ECHO)]
    play(rows, Options(rounds=3), lambda _doing: None)
    order = ["no filter None", "echo agent None", "no filter 5.0", "echo agent 5.0"]
    assert played == order[:2] + order + order[::-1] + order
    assert [len(one.result.rounds) for one in rows] == [3] * 4


def row(subject: Subject, rate: float | None, gate: Front | None = None) -> Row:
    result = Result("haproxy", subject, {"rate": rate} if rate else {})
    return Row(subject, rate, gate, "/nowhere", {}, result)  # type: ignore[arg-type]


def test_tokens_that_run_out_do_not_end_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is played again with more: a spent token's refusal would be nobody's mistake."""
    invited: list[int] = []

    def prepare(_front: Front, visitors: Visitors, *_: float) -> Callable[[], Seen]:
        invited.append(len(visitors.tokens))
        spent = visitors.tokens[:250]
        refused = Counter({"status 403": 7} if len(invited) < 3 else {})
        with redis.Redis(unix_socket_path=visitors.redis_socket) as client:
            client.delete(*(b"kat:t:" + token.digest for token in spent))
        return lambda: Seen(len(spent), 0, refused, {})

    monkeypatch.setattr(closed, "prepare", prepare)
    monkeypatch.setattr(measure, "_FIRST_GUESS", 120)
    with private_redis(tmp_path) as store:
        asking = replace(row(Subject.KAT, None), store=store.socket)
        played = play_round(asking, 1)
        assert (invited, asking.needed) == ([120, 180, 270], 250)
        assert (played.figures["requests"], played.wrong) == (250, {})
        play_round(asking, 1)
        assert invited[3:] == [375]


def test_each_is_compared_in_its_own_round() -> None:
    """What is added is so over no filter at the same rate; a share is of the echo agent's."""
    results = [
        result("no filter", 5, {"p50_ms": 1, "p99_ms": 2}, {"p50_ms": 10, "p99_ms": 20}),
        result("no filter", 9, {"p50_ms": 0, "p99_ms": 0}, {}),
        result("kat", 5, {"p50_ms": 1.5, "p99_ms": 3}, {"p50_ms": 12, "p99_ms": 21}),
        result("kat", 9, {"p50_ms": 7, "p99_ms": 8}, {}),
        result("echo agent", 0, {"requests_per_s": 100, "haproxy_us": 3}, {}),
        result("no filter", 0, {}, {}),
        result("kat", 0, {"requests_per_s": 90, "haproxy_us": 4}, {"requests_per_s": 9}),
    ]
    compare([*results, result("echo agent", 5, {}, {}), result("echo agent", 9, {}, {})])
    figures = [one.figures for one in results[2].rounds]
    assert [(one["added_p50_ms"], one["added_p99_ms"]) for one in figures] == [(0.5, 1), (2, 1)]
    assert results[3].rounds[0].figures["added_p50_ms"] == 7
    assert results[6].rounds[0].figures["of_echo"] == 0.9
    assert results[6].rounds[0].figures["of_echo_per_haproxy_core"] == 0.75
    assert "of_echo" not in results[6].rounds[1].figures


def result(name: str, rate: float, *rounds: Figures) -> Result:
    at = {"rate": rate} if rate else {"threads": 1.0}
    return Result("haproxy", name, at, [Round(dict(one), Counter()) for one in rounds])


def test_a_haproxy_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    """It is told, instead of measuring what is left."""
    haproxy = Haproxy(binary("3.2"), "3.2", has_lua=True)
    with front(tmp_path / "x", haproxy, Subject.NO_FILTER, 1, "/nobody", "/nowhere") as gate:
        gate.server.process.kill()
        gate.server.process.wait()
        with pytest.raises(Fault, match="HAProxy ended in the middle"):
            play_round(row(Subject.NO_FILTER, 100.0, gate), 0.1)
