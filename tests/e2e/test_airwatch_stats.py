"""haproxy/examples/airwatch.cfg: the page of statistics, for those whom it is meant for."""

from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.airwatch_site import Site, running_site
from tests.support.airwatch import EXAMPLE, LISTENERS
from tests.support.haproxy import ANSWER_TIMEOUT_S
from tests.support.leaks import assert_no_leaks

PASSWORD = "4d0ee0f2c7d04d21"


@pytest.fixture(scope="module")
def site(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(haproxy_binary, tmp_path_factory.mktemp("site")) as site:
        yield site


def _ask(site: Site, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", site.airwatch.ports["stats"], ANSWER_TIMEOUT_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_it_shows_every_listener_and_server(site: Site) -> None:
    """All four listeners stand on the page, with their servers, and HAProxy's version does not."""
    status, page = _ask(site, "GET", "/stats")
    assert status == 200
    for listener in LISTENERS:
        kind = listener.partition("_")[0]
        for name in ("Frontend", f"{kind}1", f"{kind}2"):
            assert f'name="{listener}/{name}"' in page
    assert "HAProxy version" not in page


def test_it_is_to_look_at(site: Site) -> None:
    """It has no form to send and takes no command: a server stays what it was."""
    assert 'method="post"' not in _ask(site, "GET", "/stats")[1].lower()
    assert _ask(site, "POST", "/stats", "s=mag1&action=maint&b=mag_443")[0] == 403
    assert site.airwatch.stats("mag_443", "mag1")["status"].startswith("UP")


def test_nothing_else_is_there(site: Site) -> None:
    """Any other path than the page's finds nothing."""
    assert _ask(site, "GET", "/")[0] == 503
    assert _ask(site, "GET", "/metrics")[0] == 503


def test_it_listens_on_this_machine_alone_and_has_no_password_of_its_own() -> None:
    """Unless told otherwise it is at 127.0.0.1, and no password stands in the file."""
    text = EXAMPLE.read_text()
    assert 'bind "${KAT_STATS-127.0.0.1:8008}"' in text
    assert text.count("stats auth") == 1
    assert 'stats auth "${KAT_STATS_AUTH-none}"' in text
    assert "stats admin if" not in text


def test_a_password_is_asked_for_where_there_is_one(haproxy_binary: Path, tmp_path: Path) -> None:
    """With KAT_STATS_AUTH there is no page without it, and it stands in no log or process list."""
    with running_site(haproxy_binary, tmp_path, KAT_STATS_AUTH=f"ops:{PASSWORD}") as site:
        assert _ask(site, "GET", "/stats")[0] == 401
        wrong = "Basic b3BzOndyb25n"
        assert _ask(site, "GET", "/stats", Authorization=wrong)[0] == 401
        right = "Basic " + b64encode(f"ops:{PASSWORD}".encode()).decode()
        assert _ask(site, "GET", "/stats", Authorization=right)[0] == 200
        words = Path(f"/proc/{site.airwatch.process.pid}/cmdline").read_bytes()
        assert_no_leaks({"log": site.airwatch.log(), "command line": words}, [PASSWORD])
