"""Tokens where none is looked for, and two of them at once.

Whatever is sent here: `watched` finds a token at the application, or in HAProxy's log.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN, Stage, staged
from tests.e2e.test_tls import CERTIFICATE
from tests.e2e.visiting import (
    COOKIE,
    LINK,
    OPENS,
    STANDS,
    assert_logged_no_secret,
    exchange,
    lines,
)
from tests.support.leaks import assert_no_leaks
from tests.support.stub_agent import acknowledging

REST = TOKEN.removeprefix("kat_")
ESCAPED = "".join(f"%{ord(char):02x}" for char in TOKEN)
OTHER = "kat_" + REST[::-1]

NAMED_OTHERWISE = f"""
    /?a;{LINK}  /?a;{LINK};b  /?x{LINK}  /?a={TOKEN}  /?{TOKEN}  /?KAT={TOKEN}  /?kat[]={TOKEN}
    /?kat%5b%5d={TOKEN}  /?%20{LINK}  /?kat+={TOKEN}
""".split()
IN_ESCAPES = f"""
    /?%6bat={TOKEN}  /?%6Bat={TOKEN}  /?kat=%6bat_{REST}  /?kat=kat%5f{REST}  /?kat={ESCAPED}
    /?{ESCAPED}  /?a=1%26{LINK}  /?a%3d{TOKEN}  /%3f{LINK}
""".split()
IN_THE_PATH = f"""
    /{TOKEN}  /a/{TOKEN}/b  /{ESCAPED}  /%6bat_{REST}  /a;{LINK}  /a;jsessionid={TOKEN}  //{TOKEN}
    /%2f{TOKEN}  http://localhost/{TOKEN}  /a?b=/{TOKEN}
""".split()
BEHIND_WHAT_STOPS_DECODERS = f"""
    /%zz?%6bat={TOKEN}  /%?%6bat={TOKEN}  /?%6bat={TOKEN}%  /?%6bat={TOKEN}%z  /%1/{TOKEN}
    /%00/{TOKEN}  /%00/%6bat_{REST}  /%00?a;{LINK}  /?%6bat={TOKEN}%00  /?a=%00{TOKEN}
    /?%00%zz%6bat={TOKEN}  /?a=kat_%00{TOKEN}  /?a=%u0041{TOKEN}  /%c0%af{TOKEN}
""".split()
DISGUISES = [*NAMED_OTHERWISE, *IN_ESCAPES, *IN_THE_PATH, *BEHIND_WHAT_STOPS_DECODERS]

HALF = {
    "a link and a disguise": f"/?{LINK}&a;kat={OTHER}",
    "a link and a path": f"/{OTHER}?{LINK}",
    "a link and an escape": f"/?{LINK}&%6bat={OTHER}",
}

TWICE = {
    "twice": (f"/?{LINK}&{LINK}", ()),
    "two of them": (f"/?{LINK}&kat={OTHER}", ()),
    "apart": (f"/?{LINK}&a=1&kat={OTHER}", ()),
    "behind a semicolon": (f"/?{LINK};{LINK}", ()),
    "a stub first": (f"/?kat=kat_&{LINK}", ()),
    "a stub last": (f"/?{LINK}&kat=kat_", ()),
    "query and X-KAT": (f"/?{LINK}", (f"X-KAT: {OTHER}",)),
    "query and X-KAT, one token": (f"/?{LINK}", (f"X-KAT: {TOKEN}",)),
    "query and an empty X-KAT": (f"/?{LINK}", ("X-KAT:",)),
    "query and Authorization": (f"/?{LINK}", (f"Authorization: KAT {OTHER}",)),
    "query and an empty scheme": (f"/?{LINK}", ("Authorization: KAT",)),
    "all three": (f"/?{LINK}", (f"X-KAT: {OTHER}", f"Authorization: KAT {OTHER}")),
}

REFERERS = f"""
    https://x/?{LINK}  https://x/?a=1&{LINK}#b  https://x/{TOKEN}  https://x/?{ESCAPED}  {TOKEN}
    https://x/?%6bat={TOKEN}  https://x/?kat=%6bat_{REST}  https://x/%zz?kat=%6bat_{REST}
    https://x/%00?{LINK}  https://x/%00?kat=%6bat_{REST}  https://x/%?{LINK}%
""".split()


@pytest.fixture(scope="module")
def plain(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give a stage whose port is that of plain HTTP."""
    folder = tmp_path_factory.mktemp("plain")
    settings = {"KAT_CERT": str(CERTIFICATE), "KAT_HTTPS": f"unix@{folder}/https.sock"}
    with staged(haproxy_binary, folder, settings=settings) as stage:
        yield stage
        assert_logged_no_secret(stage.haproxy)


@pytest.mark.parametrize("target", DISGUISES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_token_in_disguise_is_refused(watched: Stage, method: str, target: str) -> None:
    """Where it would reach a server that finds it, the answer is 403 and nobody is asked."""
    watched.agent.script = acknowledging(STANDS)
    answer = watched.ask(f"Cookie: {COOKIE}", "Content-Length: 0", method=method, target=target)
    assert answer.status == 403
    assert TOKEN not in repr(answer)
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("target", [target for target in DISGUISES if target[0] == "/"])
def test_plain_http_leads_no_token_on(plain: Stage, target: str) -> None:
    """On :80 a query is dropped, and a path with a token in it is a 403: it comes back nowhere."""
    answer = plain.ask(target=target)
    assert answer.status in {301, 403}
    assert "%" in target or (answer.status == 301) == (TOKEN not in target.partition("?")[0])
    assert_no_leaks({"the answer": repr(answer)}, [TOKEN], digests_too=False)


@pytest.mark.parametrize("case", HALF)
def test_a_link_takes_no_disguise_along(watched: Stage, case: str) -> None:
    """A token that is found does not excuse one that is hidden beside it."""
    watched.agent.script = acknowledging(OPENS)
    assert watched.ask(target=HALF[case]).status == 403
    assert watched.asked() == []


@pytest.mark.parametrize("case", TWICE)
def test_two_tokens_at_once_are_none(watched: Stage, case: str) -> None:
    """Of several tokens none is judged: the agent gets a word that it calls malformed."""
    target, headers = TWICE[case]
    watched.agent.script = acknowledging(STANDS)
    watched.ask(*headers, target=target)
    assert [args[b"token"] for args in watched.asked()] == [b"misshapen"]


@pytest.mark.parametrize("fragment", [f"#{LINK}", f"?{LINK}#a", f"?a=1#{TOKEN}", f"#?{LINK}"])
def test_a_fragment_is_refused(watched: Stage, fragment: str) -> None:
    """No browser sends one; what comes with a token in it is a 400, and nobody is asked."""
    assert watched.ask(target=f"/{fragment}").status == 400
    assert watched.asked() == []


@pytest.mark.parametrize("scheme", ["Bearer", "KATS", "Basic user", "Digest kat", "KAT,"])
def test_a_token_by_another_scheme_is_refused(watched: Stage, scheme: str) -> None:
    """An Authorization of the application's own passes, but not with a token of ours in it."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"Authorization: {scheme} {TOKEN}").status == 403
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("referer", REFERERS)
def test_a_referer_with_a_token_goes_no_further(watched: Stage, referer: str) -> None:
    """The page before this one may have had a token in its address: that header is dropped."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"Referer: {referer}").status == 200
    assert [one.header("Referer") for one in watched.application.received] == [[]]


@pytest.mark.parametrize("beside", ["https://y/", "", f"https://y/?{LINK}"])
def test_of_two_referers_none_goes_further(watched: Stage, beside: str) -> None:
    """No browser sends two: neither the first nor the last can carry a token along."""
    watched.agent.script = acknowledging(STANDS)
    for pair in ([f"https://x/?{LINK}", beside], [beside, f"https://x/?{LINK}"]):
        assert watched.ask(*(f"Referer: {referer}" for referer in pair)).status == 200
    assert [one.header("Referer") for one in watched.application.received] == [[], []]


@pytest.mark.parametrize(
    "referer", ["https://x/?kat=5", "https://x/?a=%20b%zz", "https://x/kat_", "about:blank"]
)
def test_another_referer_is_left_alone(watched: Stage, referer: str) -> None:
    """What holds no token reaches the application as it is."""
    watched.agent.script = acknowledging(STANDS)
    watched.ask(f"Referer: {referer}")
    assert [one.header("Referer") for one in watched.application.received] == [[referer]]


@pytest.mark.parametrize("name", ["Referer", "Cookie", "X-KAT", "Authorization", "X"])
def test_a_nul_hides_no_token(watched: Stage, name: str) -> None:
    """A header with a NUL is a 400: some programs end a text there, and see no token behind it."""
    watched.agent.script = acknowledging(STANDS)
    hidden = f"{name}: KAT \0; {COOKIE}?{LINK}"
    answer = exchange(watched.haproxy, lines("GET / HTTP/1.1", "Host: localhost", hidden))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (watched.asked(), watched.application.received) == ([], [])
