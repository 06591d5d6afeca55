"""HTTP/2 over TLS: each request of a connection is judged for itself, whatever host it names."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN, Stage, staged, until
from tests.e2e.test_tls import CERTIFICATE
from tests.e2e.visiting import (
    COOKIE,
    LINK,
    MISSING,
    OPENS,
    SESSION,
    STANDS,
    assert_no_secret,
    judged,
)
from tests.support.application import Application, Received
from tests.support.leaks import assert_no_leaks
from tests.support.stub_agent import acknowledging

GATED, OTHER, PORTAL, FOREIGN = "localhost", "other.example", "portal.example", "evil.example"


@dataclass
class House:
    """A gate for two hosts, and a portal that stands beside it, behind one certificate."""

    stage: Stage
    portal: Application
    port: int = field(repr=False)

    def say(self, *requests: tuple[str, str, list[str]]) -> list[tuple[str, int, int]]:
        """Send host, target and options of each over one connection.

        Return for each its version of HTTP, its status, and how many connections it took.
        """
        words = [shutil.which("curl") or "curl"]
        for host, target, options in requests:
            words += ["--next"] if len(words) > 1 else []
            words += [
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_version} %{http_code} %{num_connects}\n",
            ]
            words += ["--http2", "--cacert", str(CERTIFICATE), "--max-time", "10"]
            # The host in the URL is that of the connection; what is asked for is `Host`.
            words += ["-H", f"Host: {host}", *options, f"https://localhost:{self.port}{target}"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
        said = [line.split() for line in done.stdout.splitlines()]
        return [(version, int(status), int(connects)) for version, status, connects in said]


@pytest.fixture(scope="module")
def _house(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("two")
    with Application() as portal:
        settings = {
            "KAT_CERT": str(CERTIFICATE),
            "KAT_HTTP": f"unix@{folder}/plain.sock",
            "KAT_HOSTS": f"{GATED} {OTHER}",
            "KAT_PORTAL_HOSTS": PORTAL,
            "KAT_PORTAL_APP": portal.address,
        }
        with staged(haproxy_binary, folder, listener="KAT_HTTPS", settings=settings) as stage:
            until((folder / "plain.sock").exists)
            yield House(stage, portal, stage.haproxy.port)


@pytest.fixture
def house(_house: House) -> Iterator[House]:
    with judged(_house.stage):
        _house.portal.take()
        yield _house
    assert_no_secret(_house.portal.received)


def test_each_host_of_a_connection_is_judged_for_itself(house: House) -> None:
    """A yes for one host is none for another; the portal needs none, a stranger gets none."""
    yes, no = acknowledging(STANDS), acknowledging(MISSING)
    house.stage.agent.script = lambda notify: (
        yes if notify.messages[0].args[b"host"] == GATED.encode() else no
    )(notify)
    cookie = ["-H", f"Cookie: {COOKIE}"]
    said = house.say(
        (GATED, "/one", cookie),
        (OTHER, "/two", cookie),
        (FOREIGN, "/three", cookie),
        (PORTAL, "/four", cookie),
        (GATED, "/five", []),
    )
    assert {version for version, _, _ in said} == {"2"}
    assert [status for _, status, _ in said] == [200, 403, 421, 200, 200]
    assert sum(connects for _, _, connects in said) == 1
    asked = [(args[b"host"], args[b"path"]) for args in house.stage.asked()]
    assert asked == [(b"localhost", b"/one"), (b"other.example", b"/two"), (b"localhost", b"/five")]
    assert _targets(house.stage.application.received) == ["/one", "/five"]
    assert _targets(house.portal.received) == ["/four"]
    assert house.portal.received[0].header("X-KAT-User") == []


def test_a_session_of_one_request_is_not_the_next_ones(house: House) -> None:
    """Without its cookie the second request of a connection has no session."""
    house.stage.agent.script = acknowledging(STANDS)
    house.say((GATED, "/one", ["-H", f"Cookie: {COOKIE}"]), (GATED, "/two", []))
    asked = [args[b"session"] for args in house.stage.asked()]
    assert asked == [SESSION.encode(), None]


def test_a_link_opens_over_http_2(house: House) -> None:
    """As over HTTP/1.1: 303, one token, and nothing at the application."""
    house.stage.agent.script = acknowledging(OPENS)
    assert house.say((GATED, f"/page?{LINK}", [])) == [("2", 303, 1)]
    assert [args[b"token"] for args in house.stage.asked()] == [TOKEN.encode()]
    assert house.stage.application.received == []


@pytest.mark.parametrize("cookies", [[COOKIE, "a=b"], ["a=b", COOKIE], ["a=b", COOKIE, "c=d"]])
def test_crumbs_of_a_cookie_are_one(house: House, cookies: list[str]) -> None:
    """HTTP/2 lets a browser send its cookies one by one: the session is found among them."""
    house.stage.agent.script = acknowledging(STANDS)
    options = [word for cookie in cookies for word in ("-H", f"Cookie: {cookie}")]
    assert house.say((GATED, "/", options))[0][1] == 200
    assert [args[b"session"] for args in house.stage.asked()] == [SESSION.encode()]
    left = "; ".join(cookie for cookie in cookies if cookie != COOKIE)
    assert [one.header("Cookie") for one in house.stage.application.received] == [[left]]


def test_a_crumb_twice_is_refused(house: House) -> None:
    """Our cookie twice is 403, in two fields as in one."""
    house.stage.agent.script = acknowledging(STANDS)
    options = ["-H", f"Cookie: {COOKIE}", "-H", "Cookie: __Host-kat-demo=evil"]
    assert house.say((GATED, "/", options))[0][1] == 403
    assert house.stage.asked() == []


@pytest.mark.parametrize(
    "header",
    ["Transfer-Encoding: chunked", "Connection: X-KAT-User", "Upgrade: h2c", "TE: trailers"],
)
def test_http_2_carries_no_framing_along(house: House, header: str) -> None:
    """What HTTP/2 has no use for reaches no application behind HTTP/1.1 as a client wrote it."""
    house.stage.agent.script = acknowledging(STANDS)
    house.say((GATED, "/outer", ["-H", header, "--data", "abc"]))
    for one in house.stage.application.received:
        assert one.header("Connection") == []
        assert one.header("Upgrade") == []
        assert len([*one.header("Content-Length"), *one.header("Transfer-Encoding")]) == 1
        assert one.header("X-KAT-User") == ["user1"]


@pytest.mark.parametrize(("scheme", "status"), [("https", 200), ("http", 403)])
def test_an_origin_counts_with_its_scheme(house: House, scheme: str, status: int) -> None:
    """Whoever can change what comes by plain HTTP from this very host sends no form of ours."""
    house.stage.agent.script = acknowledging(MISSING)
    origin = ["-X", "POST", "-H", f"Origin: {scheme}://{GATED}"]
    assert house.say((GATED, "/.kat/logout", origin))[0][1] == status
    assert len(house.stage.asked()) == (status == 200)


def test_nobody_wrote_a_secret_down(house: House) -> None:
    """HAProxy's log has none of the tokens and cookies that came over these connections."""
    house.say((GATED, f"/?{LINK}", ["-H", f"Cookie: {COOKIE}"]), (PORTAL, f"/?{LINK}", []))
    log = house.stage.haproxy.log
    until(lambda: f'"{PORTAL}"' in log())
    assert_no_leaks({"HAProxy's log": log()}, [TOKEN, SESSION], digests_too=False)


def _targets(received: list[Received]) -> list[str]:
    return [one.target for one in received]
