"""How old a message is, when nobody knows what time it really is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.worker.age import PROBATION_S, WINDOW_S, AgeGauge

T0 = 1_800_000_000.0
HOUR_S = 3600.0

skews = pytest.mark.parametrize("skew_s", [0.0, HOUR_S, -HOUR_S, 0.25])


class Host:
    """A HAProxy whose clock is `skew_s` ahead of the agent's, and the gauge that watches it."""

    def __init__(self, skew_s: float = 0.0, *, is_local: bool = False) -> None:
        self.skew_s = skew_s
        self.gauge = AgeGauge(is_local=is_local)

    def age_s(self, arrived_s: float, waited_s: float = 0.0) -> float:
        """Let a message arrive at T0 + `arrived_s` that HAProxy sent `waited_s` before."""
        at_ms = round((T0 + arrived_s - waited_s + self.skew_s) * 1000)
        return self.gauge.age_s(at_ms, T0 + arrived_s)


def close(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.002)


@skews
def test_the_first_message_has_no_age(skew_s: float) -> None:
    """Nothing is known about a clock from a single reading of it."""
    assert Host(skew_s).age_s(0.0, waited_s=5.0) == 0.0


def test_the_first_message_of_a_neighbour_may_be_old() -> None:
    """On one host a backlog is known for what it is, whatever is the first to be read of it."""
    host = Host(is_local=True)
    assert host.age_s(0.0, waited_s=0.5) == close(0.5)
    assert host.age_s(0.001, waited_s=0.3) == close(0.3)
    assert host.age_s(0.002) == close(0.0)
    assert host.age_s(WINDOW_S, waited_s=0.2) == close(0.2)


@pytest.mark.parametrize("skew_s", [HOUR_S, -HOUR_S, -0.25])
def test_a_tunnel_from_another_host_is_believed_soon(skew_s: float) -> None:
    """Behind a unix socket may be another clock: after PROBATION_S it counts like any other's."""
    host = Host(skew_s, is_local=True)
    assert host.age_s(0.0) == close(max(0.0, -skew_s))
    assert host.age_s(PROBATION_S / 2) == close(max(0.0, -skew_s))
    assert host.age_s(PROBATION_S + 0.01) == close(0.0)
    assert host.age_s(PROBATION_S + 1, waited_s=0.3) == close(0.3)
    assert host.age_s(10 * WINDOW_S) == close(0.0)


@skews
def test_age_is_what_exceeds_the_smallest_difference(skew_s: float) -> None:
    """However far apart the clocks are, a message that waited longer is as much older."""
    host = Host(skew_s)
    assert host.age_s(0.0) == close(0.0)
    assert host.age_s(1.0, waited_s=0.08) == close(0.08)
    assert host.age_s(2.0, waited_s=1.5) == close(1.5)
    assert host.age_s(3.0) == close(0.0)


def test_a_slow_beginning_is_corrected() -> None:
    """When the first message was itself late, the first punctual one becomes the measure."""
    host = Host()
    assert host.age_s(0.0, waited_s=2.0) == close(0.0)
    assert host.age_s(1.0) == close(0.0)
    assert host.age_s(2.0, waited_s=2.0) == close(2.0)


@pytest.mark.parametrize("silence_s", [0.0, WINDOW_S - 1, WINDOW_S + 1, 10 * WINDOW_S, 24 * HOUR_S])
def test_a_frozen_agent_knows_what_is_old(silence_s: float) -> None:
    """What is read after any silence is judged by what was seen before it."""
    host = Host()
    host.age_s(0.0)
    assert host.age_s(silence_s + 2.0, waited_s=1.5) == close(1.5)
    assert host.age_s(silence_s + 2.0, waited_s=0.5) == close(0.5)


def test_the_measure_survives_the_end_of_its_window() -> None:
    """A window that began with nothing but late messages does not make them punctual."""
    host = Host()
    host.age_s(0.0)
    for arrived_s in (WINDOW_S, WINDOW_S + 1, 2 * WINDOW_S - 1):
        assert host.age_s(arrived_s, waited_s=1.0) == close(1.0)


def test_a_drifting_clock_is_followed() -> None:
    """A clock that loses 1 ms a second has aged no message by more than a minute's drift."""
    host = Host()
    for second in range(0, 600, 3):
        host.skew_s = -0.001 * second
        assert host.age_s(second) <= 0.061


@pytest.mark.parametrize("step_s", [HOUR_S, 0.5])
def test_haproxys_clock_set_forward_costs_nothing(step_s: float) -> None:
    """The smaller difference is the measure from the first message on."""
    host = Host()
    host.age_s(0.0)
    host.skew_s = step_s
    assert host.age_s(1.0) == close(0.0)
    assert host.age_s(2.0, waited_s=0.3) == close(0.3)


def test_haproxys_clock_set_back_heals_within_two_windows() -> None:
    """Fresh messages look an hour old for a while, and for no longer than 60 s."""
    host = Host()
    host.age_s(0.0)
    host.skew_s = -HOUR_S
    assert host.age_s(1.0) == close(HOUR_S)
    for second in range(2, int(2 * WINDOW_S) + 1):
        host.age_s(second)
    assert host.age_s(2 * WINDOW_S + 1) == close(0.0)


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_the_agents_clock_may_be_set(step_s: float) -> None:
    """Whichever way the agent's own clock jumps, ages are right again two windows later."""
    host = Host()
    host.age_s(0.0)
    host.skew_s = -step_s  # HAProxy's host kept its clock: as seen from the agent's, it jumped
    for second in range(int(2 * WINDOW_S) + 2):
        host.age_s(step_s + second)
    assert host.age_s(step_s + 2 * WINDOW_S + 2) == close(0.0)
    assert host.age_s(step_s + 2 * WINDOW_S + 3, waited_s=0.2) == close(0.2)


def test_windows_go_on_when_the_agents_clock_was_set_back() -> None:
    """What is seen afterwards is forgotten in time, not when the old hour is reached again."""
    host = Host()
    host.age_s(0.0)
    host.skew_s = -10.0
    for second in range(int(2 * WINDOW_S) + 2):
        host.age_s(second - HOUR_S)
    assert host.age_s(2 * WINDOW_S + 2 - HOUR_S) == close(0.0)


def test_one_clock_for_both_is_set_at_no_cost() -> None:
    """On one host, setting the clock in either direction ages nothing."""
    host = Host()
    for moment in (0.0, 1.0, HOUR_S, HOUR_S + 1, 2.0, 3.0, -HOUR_S):
        assert host.age_s(moment) == close(0.0)


@pytest.mark.parametrize("at_ms", [0, -1, 2**63 - 1, -(2**63), 2**64 - 1])
def test_any_number_is_a_time(at_ms: int) -> None:
    """No `at` that SPOP can carry raises, and none has a negative age."""
    gauge = AgeGauge()
    gauge.age_s(int(T0 * 1000), T0)
    assert gauge.age_s(at_ms, T0) >= 0.0


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 5.0)), max_size=50),
)
def test_a_steady_clock_never_makes_a_message_older_than_it_is(
    skew_s: float, messages: list[tuple[float, float]]
) -> None:
    """Between steady clocks an age is at least 0 and at most the time really waited.

    And never less than that, when a punctual message came within the last window.
    """
    host = Host(skew_s)
    now_s = 0.0
    punctual_s = -float("inf")
    for pause_s, waited_s in messages:
        now_s += pause_s
        age_s = host.age_s(now_s, waited_s)
        assert 0.0 <= age_s <= waited_s + 0.002
        if waited_s == 0.0:
            punctual_s = now_s
        if now_s - punctual_s < WINDOW_S:
            assert age_s >= waited_s - 0.002
