"""The sample application, served."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.sync.client import connect

from haproxy.demo import site
from haproxy.demo.serving import serving
from tests.support.webclient import WebClient


@pytest.fixture
def visits(tmp_path: Path) -> site.Visits:
    return site.Visits(tmp_path / "access.log")


@pytest.fixture
def address(visits: site.Visits) -> Iterator[str]:
    with serving(site.create(visits)) as served:
        yield served.address


def test_the_page_names_sixty_assets_and_each_is_there(address: str) -> None:
    """Sixty URLs, twenty of a kind, each answered with its own content and type."""
    browser = WebClient(address)
    paths = re.findall(r'(?:src|href)="(/asset/\d+\.(\w+))"', browser.get("/").body)
    assert len({path for path, _ in paths}) == 60
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    contents = set()
    for path, kind in paths:
        answer = browser.get(path)
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["content-type"].partition(";")[0] == types[kind]
        contents.add(answer.body)
    assert len(contents) == 60


def test_it_knows_visitors_from_the_gate(address: str) -> None:
    """User and groups are those of the gate's headers, in UTF-8, and are text on the page."""
    browser = WebClient(address)
    name = "J\u00f6rg <b>".encode().decode("latin-1")
    body = browser.get("/", **{"X-KAT-User": name, "X-KAT-Groups": "staff,admin"}).body
    assert 'data-user="J\u00f6rg &lt;b&gt;" data-groups="staff,admin"' in body
    assert 'data-user="stranger" data-groups=""' in browser.get("/").body


def test_a_note_is_kept(address: str) -> None:
    """What is posted stands on the page after it, as text; the latest twenty do."""
    browser = WebClient(address)
    for number in range(21):
        assert browser.post("/notes", text=f"<{number}>").location == "/notes"
    notes = re.findall("<li>(.*)</li>", browser.get("/notes").body)
    assert notes == [f"&lt;{number}&gt;" for number in range(1, 21)]


def test_the_socket_says_everything_again(address: str) -> None:
    """It answers each message, and does not mind a client that goes without a word."""
    with connect(f"ws://{address}/live") as live:
        for text in ("one", "two"):
            live.send(text)
            assert live.recv() == text
        live.socket.shutdown(socket.SHUT_RDWR)
    assert WebClient(address).get("/").status == 200


def test_whatever_comes_is_written_down(address: str, visits: site.Visits, tmp_path: Path) -> None:
    """Requests, WebSockets and what there is not: method, whole target, Referer, header names."""
    browser = WebClient(address)
    browser.get("/none?kat=x&%6bat=y", Referer="https://portal.localhost/?z")
    browser.post("/notes?a", text="secret")
    with connect(f"ws://{address}/live?b"):
        pass
    seen = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert [one["method"] for one in seen] == ["GET", "POST", "GET"]
    assert [one["target"] for one in seen] == ["/none?kat=x&%6bat=y", "/notes?a", "/live?b"]
    assert [one["referer"] for one in seen] == ["https://portal.localhost/?z", None, None]
    assert "sec-fetch-site" in seen[1]["headers"]
    assert "upgrade" in seen[2]["headers"]
    assert visits.requests == 3


def test_connections_are_no_requests(address: str, visits: site.Visits) -> None:
    """HAProxy's health checks connect and ask nothing: they do not look like visitors."""
    host, _, port = address.partition(":")
    with closing(socket.create_connection((host, int(port)))):
        pass
    WebClient(address).get("/style.css")
    assert visits.requests == 1
