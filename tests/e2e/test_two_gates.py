"""Two gates in one transaction: nothing that was said at the first one counts at the second."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spoa.spop.codec import Notify
from tests.e2e.scene import TOKEN, Stage, staged, until
from tests.support.haproxy import read_answer
from tests.support.stub_agent import (
    Script,
    acknowledging,
    actions,
    allow,
    closing,
    saying,
)


@pytest.fixture(scope="module")
def _two_gates(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Let a request pass an outer gate before that of haproxy.cfg."""
    folder = tmp_path_factory.mktemp("two")
    with staged(
        haproxy_binary,
        folder,
        Path(__file__).with_name("second-gate.cfg"),
        listener="KAT_OUTER",
        settings={"KAT_HTTP": f"unix@{folder}/web.sock"},
    ) as stage:
        yield stage


@pytest.fixture
def two_gates(_two_gates: Stage) -> Stage:
    return _two_gates.renewed()


SECOND_ANSWERS: dict[str, Script] = {
    "a closed connection": closing,
    "an ACK without actions": acknowledging(b""),
    "an ACL without allow": acknowledging(actions(**{"class": b"allow"}, acl=b"demo")),
    "allow without an ACL": acknowledging(actions(allow=True)),
}


@pytest.mark.parametrize("second", SECOND_ANSWERS)
def test_a_first_gates_yes_does_not_open_a_second(two_gates: Stage, second: str) -> None:
    """With two gates in one transaction the second one's agent must speak for itself."""
    two_gates.agent.script = _in_turn(acknowledging(allow()), SECOND_ANSWERS[second])
    assert two_gates.ask(f"X-KAT: {TOKEN}").status == 503
    assert len(two_gates.agent.notifies) == 2
    assert two_gates.application.take() == []


def test_a_first_gates_yes_does_not_outlast_silence(two_gates: Stage, haproxy_binary: Path) -> None:
    """A silent agent at the second gate is a 503 too; HAProxy 2.6 may never answer at all.

    2.6 keeps the first gate's `timeout processing` in place of the second's when a millisecond lies
    between them, and then waits for nothing. It fails closed, and one gate alone is not concerned.
    """
    two_gates.agent.script = _in_turn(acknowledging(allow()), saying(b""))
    with two_gates.haproxy.connect() as client:
        client.settimeout(3)
        client.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\nX-KAT: {TOKEN}\r\n\r\n".encode())
        try:
            assert read_answer(client).status == 503
        except TimeoutError:
            assert haproxy_binary.parent.name == "2.6"
    assert len(two_gates.agent.notifies) == 2
    assert two_gates.application.take() == []


def test_a_first_gates_user_is_not_a_seconds(two_gates: Stage) -> None:
    """Who the first gate let in is nobody at a second that names no user."""
    first = actions(acl=b"outer", user=b"outer", groups=b"outer", allow=True)
    second = actions(acl=b"demo", allow=True)
    two_gates.agent.script = _in_turn(acknowledging(first), acknowledging(second))
    assert two_gates.ask(f"X-KAT: {TOKEN}").status == 200
    assert "outer" not in repr(two_gates.application.take())


def test_a_first_gates_session_is_not_a_seconds(two_gates: Stage) -> None:
    """Where the second gate's agent opens no session, the page comes, and no cookie with it."""
    first = actions(acl=b"outer", session=b"x" * 43, allow=True)
    two_gates.agent.script = _in_turn(acknowledging(first), acknowledging(allow()))
    answer = two_gates.ask(f"X-KAT: {TOKEN}")
    assert (answer.status, answer.header("Set-Cookie")) == (200, None)


def test_a_first_gates_refusal_is_not_a_seconds(two_gates: Stage) -> None:
    """Class and patience of a first refusal say nothing about a second gate in trouble."""
    first = actions(**{"class": b"denied"}, acl=b"demo", retry_after=9, allow=False)
    two_gates.agent.script = _in_turn(acknowledging(first), acknowledging(actions(acl=b"demo")))
    answer = two_gates.ask(f"X-KAT: {TOKEN}")
    assert (answer.status, answer.header("Retry-After")) == (503, "1")


def test_a_first_gates_error_does_not_close_a_second(two_gates: Stage) -> None:
    """An error at one gate says nothing about the next one's answer."""
    two_gates.agent.script = _in_turn(closing, acknowledging(allow()))
    assert two_gates.ask(f"X-KAT: {TOKEN}").status == 200


def test_a_second_gates_log_is_its_own(two_gates: Stage) -> None:
    """A second gate in trouble logs its error, and nothing of what the first one's agent said."""
    first = actions(acl=b"outer", reason=b"first", kid=b"1234567890ab", allow=True)
    two_gates.agent.script = _in_turn(acknowledging(first), closing)
    two_gates.ask(f"X-KAT: {TOKEN}")
    until(lambda: " acl=demo class=- reason=- error=257 kid=- " in two_gates.haproxy.log())


def _in_turn(first: Script, second: Script) -> Script:
    """Answer the outer gate with one script, the inner with the other."""

    def answer(notify: Notify) -> bytes | None:
        return (first if notify.messages[0].args[b"acl"] == b"outer" else second)(notify)

    return answer
