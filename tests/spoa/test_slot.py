"""How soon a process that died is started again."""

import pytest

from spoa.supervisor.slot import BACK_OFF_S, HEALTHY_AFTER_S, Restarts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Put in a clock that stands at its only element."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_the_first_start_is_due_at_once(clock: list[float]) -> None:
    """A new slot does not wait, and a running process is not due."""
    restarts = Restarts()
    assert clock
    assert restarts.is_due
    restarts.started()
    assert not restarts.is_due


def test_what_keeps_dying_waits_longer_and_longer(clock: list[float]) -> None:
    """Deaths in a row wait 0, 0.1, 0.2 ... 5 s, and never more."""
    restarts = Restarts()
    waits = []
    for _ in range(len(BACK_OFF_S) + 2):
        restarts.started()
        restarts.died()
        assert restarts.due_s is not None
        waits.append(round(restarts.due_s - clock[0], 6))
        clock[0] = restarts.due_s
        assert restarts.is_due
    assert waits == [*BACK_OFF_S, BACK_OFF_S[-1], BACK_OFF_S[-1]]


def test_a_good_life_is_rewarded(clock: list[float]) -> None:
    """Who lived ten seconds is started at once when it dies."""
    restarts = Restarts()
    for _ in range(5):
        restarts.started()
        restarts.died()
    restarts.started()
    clock[0] += HEALTHY_AFTER_S
    restarts.died()
    assert restarts.is_due
