"""The confirm page's form: who may send it, and what it has to look like."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN, Stage, staged
from tests.e2e.visiting import (
    COOKIE,
    LINK,
    OPENS,
    OPENS_ONCE,
    OURS,
    SESSION,
    SET_COOKIE,
    STANDS,
    exchange,
    lines,
    post,
)
from tests.support.application import Application
from tests.support.haproxy import read_answer
from tests.support.stub_agent import acknowledging, refuse

FORM = "/page?kat=kat_form"
REST = TOKEN.removeprefix("kat_")

FROM_OURSELVES = {
    "as browsers say": ["Sec-Fetch-Site: same-origin"],
    "with all that they say": [
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-User: ?1",
        "Origin: http://localhost",
    ],
    "as older ones say": ["Origin: http://localhost"],
}

FROM_ELSEWHERE = {
    "another site": ["Sec-Fetch-Site: cross-site"],
    "a sister host": ["Sec-Fetch-Site: same-site"],
    "an address bar": ["Sec-Fetch-Site: none"],
    "another site with our name": ["Sec-Fetch-Site: cross-site", "Origin: http://localhost"],
    "two words in two headers": ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin"],
    "the same, turned": ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
    "two words": ["Sec-Fetch-Site: cross-site, same-origin"],
    "two words, turned": ["Sec-Fetch-Site: same-origin, cross-site"],
    "no word": ["Sec-Fetch-Site:", "Origin: http://localhost"],
    "nothing at all": [],
    "nobody": ["Origin: null"],
    "an empty origin": ["Origin:"],
    "a foreign origin": ["Origin: http://evil.example"],
    "a longer origin": ["Origin: http://localhost.evil.example"],
    "an origin before ours": ["Origin: http://evil.example/http://localhost"],
    "another port": ["Origin: http://localhost:8080"],
    "another scheme": ["Origin: ftp://localhost"],
    "no scheme": ["Origin: localhost"],
    "a path behind": ["Origin: http://localhost/"],
    "two Origin headers": ["Origin: http://evil.example", "Origin: http://localhost"],
    "two origins": ["Origin: http://evil.example, http://localhost"],
    "a Referer alone": ["Referer: http://localhost/page"],
}

NO_FORMS = {
    "empty": "",
    "no value": "kat=",
    "no name": TOKEN,
    "another name": f"kats={TOKEN}",
    "another case": f"KAT={TOKEN}",
    "two fields": f"{LINK}&a=1",
    "two fields, turned": f"a=1&{LINK}",
    "an end of a field": f"{LINK}&",
    "two tokens": f"{LINK}&{LINK}",
    "escaped": f"kat=%6bat_{REST}",
    "one too long": f"{LINK}x",
    "one too short": LINK[:-1],
    "a line break": f"{LINK}\n",
    "two line breaks": f"{LINK}\r\n",
    "a NUL": f"{LINK}\0",
    "a NUL and more": f"{LINK}\0&kat={TOKEN}",
    "a space": f"{LINK} ",
    "a space before": f" {LINK}",
    "JSON": f'{{"kat":"{TOKEN}"}}',
    "a form of parts": f'--x\r\nContent-Disposition: form-data; name="kat"\r\n\r\n{TOKEN}\r\n--x--',
    "512 bytes": f"{LINK}&a=".ljust(512, "x"),
}


@pytest.fixture(scope="module")
def _stage(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("form")
    with staged(haproxy_binary, folder, settings={"KAT_CONFIRM": "on"}) as stage:
        yield stage


@pytest.mark.parametrize("case", FROM_OURSELVES)
def test_our_own_form_opens_a_session(watched: Stage, case: str) -> None:
    """Its token is consumed by form; the answer is the clean page by GET, and the cookie."""
    watched.agent.script = acknowledging(OPENS)
    answer = post(watched.haproxy, f"{FORM}&a=%22&b", *FROM_OURSELVES[case], body=LINK)
    assert (answer.status, answer.header("Location")) == (303, "/./page?a=%22&b")
    assert answer.header("Set-Cookie") == SET_COOKIE
    (args,) = watched.asked()
    assert (args[b"token"], args[b"via"]) == (TOKEN.encode(), b"form")
    assert (args[b"method"], args[b"path"]) == (b"POST", b"/page")
    assert watched.application.received == []


@pytest.mark.parametrize("case", FROM_ELSEWHERE)
def test_no_other_sites_form_is_taken(watched: Stage, case: str) -> None:
    """Another site could log its visitor in as somebody else: 403, no cookie, nobody is asked."""
    watched.agent.script = acknowledging(OPENS)
    for cookie in ([], [f"Cookie: {COOKIE}"]):
        answer = post(watched.haproxy, FORM, *FROM_ELSEWHERE[case], *cookie, body=LINK)
        assert (answer.status, answer.header("Set-Cookie")) == (403, None)
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("case", NO_FORMS)
def test_a_form_has_one_field_and_a_token(watched: Stage, case: str) -> None:
    """Of any other body the agent gets a word that it calls malformed, never the body."""
    watched.agent.script = acknowledging(refuse(b"denied", b"malformed"))
    assert post(watched.haproxy, FORM, OURS, body=NO_FORMS[case]).status == 403
    (args,) = watched.asked()
    assert (args[b"token"], args[b"via"]) == (b"misshapen", b"form")
    assert watched.application.received == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (["Content-Length: 513"], 413),
        (["Content-Length: 99999999"], 413),
        ([], 400),
        (["Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", f"Content-Length: {len(LINK)}"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length: 99999999999999999999"], 400),
        ([f"Content-Length: {len(LINK)}, 0"], 400),
    ],
)
def test_a_form_says_how_long_it_is(watched: Stage, head: list[str], status: int) -> None:
    """More than 512 bytes, or a length that is not said, is refused before the body is read."""
    body = f"{len(LINK):x}\r\n{LINK}\r\n0\r\n\r\n" if "chunked" in str(head) else LINK
    request = lines(f"POST {FORM} HTTP/1.1", "Host: localhost", OURS, *head, body=body)
    # No end of the stream behind it: HAProxy would take that for a client who has gone.
    with watched.haproxy.connect() as client:
        client.sendall(request)
        assert read_answer(client, "POST").status == status
    assert (watched.asked(), watched.application.received) == ([], [])


def test_a_slow_form_is_not_waited_for(watched: Stage) -> None:
    """Who does not send what he announced gets a 408 after a second, and nobody is asked."""
    head = ("Host: localhost", OURS, f"Content-Length: {len(LINK)}")
    with ExitStack() as clients:
        started = time.monotonic()
        slow = [clients.enter_context(watched.haproxy.connect()) for _ in range(3)]
        for client, sent in zip(slow, ("", LINK[:1], LINK[:-1]), strict=True):
            client.sendall(lines(f"POST {FORM} HTTP/1.1", *head, body=sent))
        assert [read_answer(client, "POST").status for client in slow] == [408] * 3
        assert 0.9 < time.monotonic() - started < 5
    assert (watched.asked(), watched.application.received) == ([], [])


def test_a_body_that_goes_on_is_another_request(watched: Stage) -> None:
    """What follows the announced length is judged for itself, and has no token."""
    watched.agent.script = acknowledging(OPENS)
    length = f"Content-Length: {len(LINK)}"
    behind = lines("GET /behind HTTP/1.1", "Host: localhost").decode()
    head = (f"POST {FORM} HTTP/1.1", "Host: localhost", OURS, length)
    exchange(watched.haproxy, lines(*head, body=LINK + behind))
    first, *more = watched.asked()
    assert (first[b"token"], first[b"path"]) == (TOKEN.encode(), b"/page")
    assert [(args[b"token"], args[b"path"]) for args in more] in ([], [(None, b"/behind")])


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (FORM, [f"X-KAT: {TOKEN}"]),
        (FORM, [f"Authorization: KAT {TOKEN}"]),
        (FORM, ["X-KAT:"]),
        (f"/page?{LINK}&kat=kat_form", []),
        (f"{FORM}&{LINK}", []),
        (f"{FORM}&kat=kat_form", []),
    ],
)
def test_a_form_and_another_token_are_none(watched: Stage, target: str, headers: list[str]) -> None:
    """Of two tokens none is judged: neither the form's nor the other one reaches the agent."""
    watched.agent.script = acknowledging(STANDS)
    post(watched.haproxy, target, OURS, *headers, body=LINK)
    assert {args[b"token"] for args in watched.asked()} <= {b"misshapen"}
    assert watched.application.received == []


def test_a_form_in_early_data_is_too_early(watched: Stage) -> None:
    """425, and nobody hears of its token."""
    watched.agent.script = acknowledging(OPENS)
    assert post(watched.haproxy, FORM, OURS, "Early-Data: 1", body=LINK).status == 425
    assert watched.asked() == []


@pytest.mark.parametrize("target", ["/page?kat=kat_formx", "/page?kat=kat_Form", f"/page?{LINK}"])
def test_only_the_forms_own_address_takes_a_form(watched: Stage, target: str) -> None:
    """A token in the query of another POST is refused, whatever its body has."""
    watched.agent.script = acknowledging(OPENS)
    assert post(watched.haproxy, target, OURS, body=LINK).status == 403
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("script", [OPENS_ONCE, STANDS])
def test_a_form_never_reaches_the_application(watched: Stage, script: bytes) -> None:
    """With no new session too: 303 to the clean page, where a living session is judged again."""
    watched.agent.script = acknowledging(script)
    answer = post(watched.haproxy, FORM, OURS, f"Cookie: a=b; {COOKIE}", body=LINK)
    assert (answer.status, answer.header("Location")) == (303, "/./page")
    assert answer.header("Set-Cookie") is None
    assert [args[b"session"] for args in watched.asked()] == [SESSION.encode()]
    assert watched.application.received == []


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "/%0d%0aX:y"])
def test_a_forms_answer_stays_on_the_host(watched: Stage, path: str) -> None:
    """The Location is `/.` and the path, as a link's is."""
    watched.agent.script = acknowledging(OPENS)
    answer = post(watched.haproxy, f"{path}?kat=kat_form", OURS, body=LINK)
    assert answer.header("Location") == f"/.{path}"


@pytest.mark.parametrize("host", ["portal.example", "evil.example"])
def test_a_form_is_for_a_host_with_a_gate(haproxy_binary: Path, tmp_path: Path, host: str) -> None:
    """Where no gate would judge it, the token is not asked for, and goes on to no server."""
    with Application() as portal:
        settings = {
            "KAT_CONFIRM": "on",
            "KAT_PORTAL_APP": portal.address,
            "KAT_PORTAL_HOSTS": "portal.example",
        }
        with staged(haproxy_binary, tmp_path, settings=settings) as stage:
            assert TOKEN not in stage.ask(target=f"/page?{LINK}", host=host).body
            head = (
                "POST " + FORM + " HTTP/1.1",
                f"Host: {host}",
                OURS,
                f"Content-Length: {len(LINK)}",
            )
            exchange(stage.haproxy, lines(*head, body=LINK))
            assert [one.method for one in portal.received] in ([], ["GET"])
            assert (stage.asked(), stage.application.received) == ([], [])


def test_a_body_of_the_applications_own_is_not_looked_at(watched: Stage) -> None:
    """A POST to another address passes with its body, whatever that has, and is not waited for."""
    watched.agent.script = acknowledging(STANDS)
    body = "a=kat_form&kat=5"
    assert post(watched.haproxy, "/page?kat=5", body=body).status == 200
    assert [args[b"via"] for args in watched.asked()] == [None]
    assert len(watched.application.received) == 1
