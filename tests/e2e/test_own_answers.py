"""The gate's own answers may not be kept, framed or followed; the application's are left alone."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.e2e.scene import Stage, staged
from tests.e2e.visiting import COOKIE, LINK, MISSING, NO_BODY, OPENS, OURS, PROGRAM, STANDS, post
from tests.support.haproxy import Answer
from tests.support.stub_agent import acknowledging, refuse

GUARDED = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
OF_THE_GATE = {*GUARDED, "content-security-policy", "set-cookie", "location"}

ANSWERS: dict[str, tuple[bytes, Callable[[Stage], Answer]]] = {
    "303, a new session": (OPENS, lambda stage: stage.ask(target=f"/?{LINK}")),
    "303, a session that stands": (STANDS, lambda stage: stage.ask(target=f"/?{LINK}")),
    "400": (OPENS, lambda stage: stage.ask(host="a_b")),
    "401, a page": (MISSING, lambda stage: stage.ask(NO_BODY, method="POST")),
    "401, JSON": (MISSING, lambda stage: stage.ask(PROGRAM)),
    "403, missing": (MISSING, lambda stage: stage.ask()),
    "403, denied": (refuse(b"denied", b"early"), lambda stage: stage.ask()),
    "403, JSON": (refuse(b"denied", b"early"), lambda stage: stage.ask(PROGRAM)),
    "403, a disguise": (OPENS, lambda stage: stage.ask(target=f"/?x;{LINK}")),
    "403, two cookies": (OPENS, lambda stage: stage.ask(f"Cookie: {COOKIE}; {COOKIE}")),
    "403, no visit": (OPENS, lambda stage: stage.ask("Purpose: prefetch", target=f"/?{LINK}")),
    "303, a logout by link": (OPENS, lambda stage: stage.ask(target="/.kat/logout")),
    "405": (OPENS, lambda stage: stage.ask(NO_BODY, method="PUT", target="/.kat/logout")),
    "414": (OPENS, lambda stage: stage.ask(target="/" + "a" * 4096)),
    "421": (OPENS, lambda stage: stage.ask(host="evil.example")),
    "425": (OPENS, lambda stage: stage.ask("Early-Data: 1", target=f"/?{LINK}")),
    "503, a page": (refuse(b"broken", b"deadline"), lambda stage: stage.ask()),
    "503, JSON": (refuse(b"broken", b"deadline"), lambda stage: stage.ask(PROGRAM)),
    "503, no answer": (b"", lambda stage: stage.ask()),
    "logged out": (MISSING, lambda stage: post(stage.haproxy, "/.kat/logout", OURS)),
    "not logged out": (b"", lambda stage: post(stage.haproxy, "/.kat/logout", OURS)),
}


@pytest.fixture(scope="module")
def _stage(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    settings = {"KAT_PORTAL": "https://portal.example/"}
    with staged(haproxy_binary, tmp_path_factory.mktemp("own"), settings=settings) as stage:
        yield stage


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_of_the_gate_is_guarded(watched: Stage, case: str) -> None:
    """Each says no-store, no-referrer, nosniff and frame-ancestors 'none', and allows nothing."""
    says, ask = ANSWERS[case]
    watched.agent.script = acknowledging(says)
    answer = ask(watched)
    assert case[:3] in {str(answer.status), "log", "not"}
    assert {name: answer.header(name) for name in GUARDED} == GUARDED
    policy = (answer.header("Content-Security-Policy") or "").split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"} < set(policy)
    assert watched.application.received == []


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_of_the_gate_repeats_no_token(watched: Stage, case: str) -> None:
    """No page, no header of it, has anything of a token or a session that came with the request."""
    says, ask = ANSWERS[case]
    watched.agent.script = acknowledging(says)
    answer = ask(watched)
    assert "kat_" not in repr(answer)
    assert (COOKIE in repr(answer)) == (case == "303, a new session")


@pytest.mark.parametrize(
    "status",
    [
        *(HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND),
        *(HTTPStatus.SEE_OTHER, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE),
    ],
)
def test_an_answer_of_the_application_is_its_own(watched: Stage, status: HTTPStatus) -> None:
    """Its refusals and errors too keep their status, their body and their headers, and get none."""
    watched.agent.script = acknowledging(STANDS)
    watched.application.statuses = [status]
    answer = watched.ask(f"Cookie: {COOKIE}")
    assert (answer.status, answer.body) == (status, "the application\n")
    assert OF_THE_GATE.isdisjoint(name.lower() for name, _ in answer.headers)


def test_what_haproxy_says_for_the_application_is_guarded(
    haproxy_binary: Path, tmp_path: Path
) -> None:
    """A 503 because the application is gone after the yes is the gate's own answer."""
    with staged(haproxy_binary, tmp_path, settings={"KAT_TIMEOUT_CONNECT": "20ms"}) as stage:
        stage.agent.script = acknowledging(STANDS)
        assert stage.ask().status == 200
        stage.application.stop()
        answer = stage.ask(f"Cookie: {COOKIE}")
        assert (answer.status, answer.body[:15]) == (503, "<!doctype html>")
        assert {name: answer.header(name) for name in GUARDED} == GUARDED
