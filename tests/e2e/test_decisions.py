"""The decision table: what the agent answers, and what the visitor and the application get."""

import json
import re
import socket
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from spoa.spop.codec import Notify, encode_ack
from tests.e2e.scene import TOKEN, Stage, staged, until
from tests.support.haproxy import fresh_source
from tests.support.stub_agent import (
    GARBAGE,
    Script,
    acknowledging,
    actions,
    allow,
    closing,
    refuse,
    saying,
)

PROGRAM = "Accept: application/json"

REFUSALS = {
    "missing, to people": (refuse(b"missing", b"missing"), "Accept: text/html", 403),
    "missing, to a program": (refuse(b"missing", b"missing"), PROGRAM, 401),
    "denied, to people": (refuse(b"denied", b"replayed"), "Accept: text/html", 403),
    "denied, to a program": (refuse(b"denied", b"replayed"), PROGRAM, 403),
    "broken, to people": (refuse(b"broken", b"overloaded"), "Accept: text/html", 503),
    "broken, to a program": (refuse(b"broken", b"overloaded"), PROGRAM, 503),
}

NO_ANSWERS: dict[str, Script] = {
    "silence": saying(b""),
    "a closed connection": closing,
    "garbage": saying(GARBAGE),
    "an ACK without actions": acknowledging(b""),
    "an ACK that ends inside an action": acknowledging(allow()[:3]),
    "an ACK for nobody": lambda _: encode_ack(b"\xef\xef", allow()),
    "a yes for another ACL": acknowledging(allow(acl=b"other")),
    "a yes for a longer ACL": acknowledging(allow(acl=b"demo2")),
    "a yes for no ACL": acknowledging(actions(**{"class": b"allow"}, allow=True)),
    "a refusal for another ACL": acknowledging(refuse(b"denied", b"unknown", acl=b"other")),
    "an unknown class": acknowledging(refuse(b"perhaps", b"perhaps")),
    "allow as a word": acknowledging(actions(**{"class": b"allow"}, acl=b"demo", allow=b"yes")),
    "allow unset": acknowledging(actions(**{"class": b"allow"}, reason=b"ok", acl=b"demo")),
}


def test_a_yes_reaches_the_application_once(stage: Stage) -> None:
    """An admitted request is forwarded exactly once, as the user the agent named."""
    yes = actions(
        **{"class": b"allow"}, acl=b"demo", user=b"user1", groups=b"staff,red", allow=True
    )
    stage.agent.script = acknowledging(yes)
    answer = stage.ask(f"X-KAT: {TOKEN}", target="/page?q=1")
    assert (answer.status, answer.body) == (200, "the application\n")
    (received,) = stage.application.take()
    assert (received.method, received.target) == ("GET", "/page?q=1")
    assert received.header("X-KAT-User") == ["user1"]
    assert received.header("X-KAT-Groups") == ["staff,red"]


def test_a_user_without_groups_has_no_groups_header(stage: Stage) -> None:
    """An empty list of groups sends no header at all."""
    yes = actions(**{"class": b"allow"}, acl=b"demo", user=b"user1", groups=b"", allow=True)
    stage.agent.script = acknowledging(yes)
    assert stage.ask(f"X-KAT: {TOKEN}").status == 200
    assert stage.application.take()[0].header("X-KAT-Groups") == []


def test_a_yes_without_a_name_has_no_user_header(stage: Stage) -> None:
    """Whoever is let in for his address is nobody to the application, and not an empty user."""
    yes = actions(**{"class": b"allow"}, reason=b"grant", acl=b"demo", allow=True)
    stage.agent.script = acknowledging(yes)
    assert stage.ask("X-KAT-User: admin").status == 200
    (received,) = stage.application.take()
    assert [name for name, _ in received.headers if name.lower().startswith("x-kat")] == []


def test_the_agent_is_told_all_that_it_decides_by(stage: Stage) -> None:
    """Each argument is sent under its name; what the request does not have arrives as NULL."""
    source = fresh_source()
    stage.ask(f"X-KAT: {TOKEN}", "X-KAT-Session: x", target="/a/b?c=d", source=source)
    [asked] = stage.asked()
    assert isinstance(asked.pop(b"at"), int)
    assert isinstance(asked.pop(b"id"), bytes)
    assert asked == {
        b"acl": b"demo",
        b"token": TOKEN.encode(),
        b"via": b"header",
        b"session": None,
        b"nonce": None,
        b"src": ip_address(source).packed,
        b"host": b"localhost",
        b"method": b"GET",
        b"path": b"/a/b",
    }


def test_the_applications_answer_is_left_alone(stage: Stage) -> None:
    """What the gate adds to its own answers it never adds to the application's."""
    answer = stage.ask(f"X-KAT: {TOKEN}")
    assert answer.header("Cache-Control") is None
    assert answer.header("Content-Security-Policy") is None


@pytest.mark.parametrize("case", REFUSALS)
def test_a_no_has_its_own_answer(stage: Stage, case: str) -> None:
    """Each class has its status and a body for people or programs; the application sees nothing."""
    encoded, accept, status = REFUSALS[case]
    stage.agent.script = acknowledging(encoded)
    answer = stage.ask(f"X-KAT: {TOKEN}", accept)
    assert answer.status == status
    if accept == PROGRAM:
        assert answer.header("Content-Type") == "application/json"
        assert set(json.loads(answer.body)) == {"error", "message"}
    else:
        assert answer.header("Content-Type") == "text/html; charset=utf-8"
        assert answer.body.startswith("<!doctype html>")
    assert stage.application.take() == []


@pytest.mark.parametrize("case", REFUSALS)
def test_no_refusal_may_be_kept_or_framed(stage: Stage, case: str) -> None:
    """Every answer of the gate says no-store, no-referrer and frame-ancestors 'none'."""
    encoded, accept, _ = REFUSALS[case]
    stage.agent.script = acknowledging(encoded)
    answer = stage.ask(accept)
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert "frame-ancestors 'none'" in (answer.header("Content-Security-Policy") or "")


def test_all_denials_look_alike(stage: Stage) -> None:
    """Whoever holds a wrong token cannot tell from the answer what is wrong with it."""
    bodies = set()
    for reason in (b"unknown", b"replayed", b"wrong_acl", b"early", b"fenced", b"bad_record"):
        stage.agent.script = acknowledging(refuse(b"denied", reason))
        answer = stage.ask(f"X-KAT: {TOKEN}")
        bodies.add((answer.status, answer.body))
    assert len(bodies) == 1


def test_people_without_a_token_find_the_portal(haproxy_binary: Path, tmp_path: Path) -> None:
    """The page for a missing token links to KAT_PORTAL as it was written, with the way back."""
    portal = "https://portal.example/get?for=(demo),now=100%"
    with staged(haproxy_binary, tmp_path, settings={"KAT_PORTAL": portal}) as stage:
        stage.agent.script = acknowledging(refuse(b"missing", b"missing"))
        answer = stage.ask()
        assert answer.status == 403
        assert f'href="{portal}&amp;return=http%3A%2F%2Flocalhost%2F"' in answer.body
        assert stage.ask(PROGRAM).status == 401


def test_the_401_names_its_scheme(stage: Stage) -> None:
    """RFC 9110: a 401 carries WWW-Authenticate."""
    stage.agent.script = acknowledging(refuse(b"missing", b"missing"))
    assert stage.ask(PROGRAM).header("WWW-Authenticate") == "KAT"


def test_the_503_says_when_to_come_back(stage: Stage) -> None:
    """Retry-After is the agent's own number, and one second without."""
    busy = actions(**{"class": b"broken"}, acl=b"demo", retry_after=7, allow=False)
    stage.agent.script = acknowledging(busy)
    assert stage.ask().header("Retry-After") == "7"
    stage.agent.script = closing
    assert stage.ask().header("Retry-After") == "1"


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_no_answer_opens_nothing(stage: Stage, case: str) -> None:
    """What is not a complete answer for this gate is a 503; the application sees nothing."""
    stage.agent.script = NO_ANSWERS[case]
    assert stage.ask(f"X-KAT: {TOKEN}").status == 503
    assert stage.application.take() == []
    stage.agent.script = acknowledging(allow())
    until(lambda: stage.ask(f"X-KAT: {TOKEN}").status == 200)


def test_a_yes_that_contradicts_its_class_opens_nothing(stage: Stage) -> None:
    """`allow` beside the class `denied` is a 403."""
    stage.agent.script = acknowledging(actions(**{"class": b"denied"}, acl=b"demo", allow=True))
    assert stage.ask(f"X-KAT: {TOKEN}").status == 403
    assert stage.application.take() == []


@pytest.mark.parametrize("fault", [b"\x09\x03\x02\x01x\x11", b"\x01\x07\x02", b"\x01\x03\x02\xff"])
def test_an_answer_that_breaks_before_allow_opens_nothing(stage: Stage, fault: bytes) -> None:
    """HAProxy applies actions up to a fault; the yes stands behind them, so a fault hides it."""
    before, allowed = actions(**{"class": b"allow"}, acl=b"demo"), actions(allow=True)
    stage.agent.script = acknowledging(before + fault + allowed)
    assert stage.ask(f"X-KAT: {TOKEN}").status == 503
    assert stage.application.take() == []


def test_an_answer_cut_anywhere_opens_nothing(stage: Stage) -> None:
    """No beginning of a yes, however long, is a yes."""
    whole = allow()
    for length in range(len(whole)):
        stage.agent.script = acknowledging(whole[:length])
        assert stage.ask(f"X-KAT: {TOKEN}").status == 503, length
    assert stage.application.take() == []


def test_a_late_yes_opens_nothing(stage: Stage) -> None:
    """A yes after `timeout processing` is too late, and is not the next request's either."""
    late: list[Notify] = []

    def hold(notify: Notify) -> bytes:
        late.append(notify)
        return b"" if len(late) == 1 else encode_ack(late[0].ids, allow())

    stage.agent.script = hold
    assert stage.ask(f"X-KAT: {TOKEN}").status == 503
    assert stage.ask(f"X-KAT: {TOKEN}").status == 503
    assert stage.application.take() == []


def test_silence_is_not_waited_for(stage: Stage) -> None:
    """A silent agent costs a visitor `timeout processing`, 100 ms, and not much more."""
    stage.agent.script = saying(b"")
    started = time.monotonic()
    assert stage.ask(f"X-KAT: {TOKEN}").status == 503
    assert 0.09 < time.monotonic() - started < 5  # far below any other time-out


def test_an_agent_that_is_gone_is_noticed(stage: Stage) -> None:
    """Without an agent every request is a 503, soon at once; with it back, the gate opens again."""
    stage.agent.vanish()
    try:
        waits = [_wait_for_503(stage) for _ in range(10)]
    finally:
        stage.agent.listen()
    # By health checks alone HAProxy 2.6 and 3.0 let up to five of them wait.
    assert sum(wait > 0.09 for wait in waits[1:]) <= 2
    until(lambda: stage.ask(f"X-KAT: {TOKEN}").status == 200)


def _wait_for_503(stage: Stage) -> float:
    started = time.monotonic()
    assert stage.ask(f"X-KAT: {TOKEN}").status == 503
    return time.monotonic() - started


def test_while_the_application_is_down_nobody_is_asked(
    haproxy_binary: Path, tmp_path: Path
) -> None:
    """A token is not consumed for an application that HAProxy knows to be down."""
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody_listens.getsockname()[1]}"
        with staged(haproxy_binary, tmp_path, settings={"KAT_APP": address}) as stage:
            until(lambda: stage.ask(f"X-KAT: {TOKEN}").header("Retry-After") == "5")
            stage.agent.notifies.clear()
            answer = stage.ask(f"X-KAT: {TOKEN}", PROGRAM)
            assert (answer.status, stage.asked()) == (503, [])
            assert json.loads(answer.body)
            until(lambda: _reasons(stage)[-1:] == ["app_down"])


def test_no_page_blames_what_nobody_asked(haproxy_binary: Path, tmp_path: Path) -> None:
    """The 503 of an application that is down says nothing of tokens that could not be checked."""
    with staged(haproxy_binary, tmp_path, settings={"KAT_APP": "127.0.0.1:1"}) as stage:
        until(lambda: stage.ask(f"X-KAT: {TOKEN}").header("Retry-After") == "5")
        for accepted in ("Accept: text/html", PROGRAM):
            body = stage.ask(f"X-KAT: {TOKEN}", accepted).body
            assert "Nobody can be let in at the moment" in body
            assert "checked" not in body


def test_the_log_says_why(stage: Stage) -> None:
    """A line has the reason that the agent gave; without its answer, none of an earlier one."""
    for script, reason in (
        (allow(), "ok"),
        (refuse(b"denied", b"replayed"), "replayed"),
        (b"", "-"),
    ):
        before = _reasons(stage)
        stage.agent.script = acknowledging(script)
        stage.ask(f"X-KAT: {TOKEN}")
        # Each line before the next is asked for: HAProxy's threads write in no order.
        until(lambda before=before: len(_reasons(stage)) > len(before))
        assert _reasons(stage) == [*before, reason]


def _reasons(stage: Stage) -> list[str]:
    return re.findall(r" reason=(\S+) ", stage.haproxy.log())
