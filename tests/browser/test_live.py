"""WebSockets through the gate: as streams of the page's own h2 connection, and by HTTP/1.1."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.elsewhere import ELSEWHERE, SAME_SITE
from tests.browser.person import Meet, Person
from tests.browser.world import NEWEST, OLDEST, WIKI, World
from tests.e2e.scene import until
from tests.support.haproxy import Haproxy

BY_HTTP_1 = Path(__file__).with_name("websockets-by-http-1.cfg")

CONNECT = """() => new Promise(done => {
    const live = new WebSocket("wss://wiki.localhost:8443/live");
    live.onopen = () => { done("open"); live.close(); };
    live.onerror = () => done("refused");
})"""


def asked(door: Haproxy, person: Person, path: str) -> tuple[str, str]:
    """Wait until HAProxy's log has somebody's request for a path; return his port and the status.

    That of a WebSocket is written when it ends.
    """
    line = rf'^{person.source}:(\d+) .* (\d+) \d+ .* GET "wiki.localhost" "{path}"$'
    until(lambda: re.search(line, door.log(), re.MULTILINE) is not None)
    ((port, status),) = re.findall(line, door.log(), re.MULTILINE)
    return port, status


@pytest.fixture(params=[NEWEST, OLDEST])
def door_of_http_1(request: pytest.FixtureRequest, world: World) -> Iterator[Haproxy]:
    """Give one to which Chromium opens WebSockets by HTTP/1.1."""
    name = f"http-1-{request.param}"
    with world.door(name, BY_HTTP_1, version=request.param) as door:
        yield door


def test_by_h2(world: World, each_door: Haproxy, meet: Meet) -> None:
    """A page's WebSocket is a stream of the connection that the page came by (RFC 8441)."""
    alice = meet(each_door)
    alice.visit(world.link("notes"))
    assert alice.page.evaluate(CONNECT) == "open"
    port, status = asked(each_door, alice, "/live")
    assert status in {"101", "200"}
    assert port == asked(each_door, alice, "/style.css")[0]


def test_by_http_1(world: World, door_of_http_1: Haproxy, meet: Meet) -> None:
    """Where the server offers no WebSockets over h2, one opens by a connection of its own."""
    alice = meet(door_of_http_1)
    alice.visit(world.link("notes"))
    assert alice.page.evaluate(CONNECT) == "open"
    port, status = asked(door_of_http_1, alice, "/live")
    assert status == "101"
    assert port != asked(door_of_http_1, alice, "/style.css")[0]


def test_refused_without_a_session(door: Haproxy, meet: Meet) -> None:
    """Without a session the handshake gets 403, also on a page of the same site."""
    stranger = meet(door)
    stranger.visit(SAME_SITE)
    assert stranger.page.evaluate(CONNECT) == "refused"
    assert asked(door, stranger, "/live")[1] == "403"


def test_refused_to_another_site(world: World, door: Haproxy, meet: Meet) -> None:
    """Another site's page cannot use the visitor's session: the cookie is not sent along."""
    alice = meet(door)
    alice.visit(world.link("notes"))
    alice.visit(ELSEWHERE)
    assert alice.page.evaluate(CONNECT) == "refused"
    assert asked(door, alice, "/live")[1] == "403"
    assert alice.visit(f"{WIKI}notes").status == 200
