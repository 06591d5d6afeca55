"""examples/confluence.cfg in mode ip: HAProxy's own lists decide, and no agent is asked."""

import grp
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN
from tests.support.confluence import ADMINS, HOST, STAFF, Confluence, guarded
from tests.support.haproxy import fresh_source, read_answer

PORTAL = "https://portal.example.org/knock"
GROUP = grp.getgrgid(os.getgid()).gr_name
PROGRAM = "Accept: application/json"

# The path of a page that only admins may see, as programs spell it.
ADMIN_PATHS = (
    "/admin",
    "/admin/viewgeneralconfig.action",
    "/ADMIN/users",
    "/%61dmin/users",
    "//admin/users",
    "/./admin/users",
    "/x/../admin/users",
    "/x/%2e%2e/admin/users",
    "/x%2f..%2fadmin/users",
    "/%2fadmin/users",
    "/;a=b/admin/users",
    "/admin;a=b/users",
    "/%3badmin/users",
    "/%2561dmin/users",
    "/%00admin/users",
    "/%zzadmin/users",
    "/x\\..\\admin/users",
    "/x%5c..%5cadmin/users",
    "/setup/setupstart.action",
    "/json/setup-restore.action",
    "/plugins/servlet/upm",
    "/rest/plugins/1.0/",
    f"http://{HOST}/admin/users",
)
STAFF_PATHS = (
    "/",
    "/display/DS/Welcome+to+Confluence",
    "/pages/viewpage.action?pageId=1&x=/../admin",
    "/display/DS/100%25+done",
    "/display/DS/Caf%C3%A9%3A+a%2C+b",
    "/display/administration/Home",
    "/s/en_GB/8703/1.0/_/download/batch/x:y/x.js",
    "/rest/api/content?limit=1",
    "/.hidden/...",
)


@pytest.fixture(scope="module")
def _house(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confluence]:
    settings = {
        "KAT_MODE": "ip",
        "KAT_BEAT": "1h",
        "KAT_PORTAL": PORTAL,
        "KAT_RUNTIME_GROUP": GROUP,
    }
    with guarded(haproxy_binary, tmp_path_factory.mktemp("ip"), settings) as confluence:
        yield confluence


@pytest.fixture
def house(_house: Confluence) -> Confluence:
    """Give a gate whose lists are empty, and whose writer lives."""
    for name in (STAFF, ADMINS):
        _house.tell(f"clear acl {name}")
    _house.beat()
    _house.taken()
    return _house


def test_a_granted_address_comes_in(house: Confluence) -> None:
    """Who is in the list reaches Confluence, and is nobody by name there, whatever he says."""
    source = house.member()
    answer = house.ask("X-KAT-User: admin", "X-KAT-Groups: confluence-admin", source=source)
    assert (answer.status, answer.body) == (200, "the application\n")
    (received,) = house.taken()
    assert not any(name.lower().startswith("x-kat") for name, _ in received.headers)
    assert received.header("X-Forwarded-For") == [source]


def test_a_stranger_gets_the_page_with_the_way_to_the_portal(house: Confluence) -> None:
    """Another address is a 403 that names the portal and the way back."""
    house.member()
    answer = house.ask(target="/display/DS?a=b")
    assert (answer.status, answer.header("Cache-Control")) == (403, "no-store")
    assert "Please log in first" in answer.body
    back = "http%3A%2F%2Fconfluence.example.org%2Fdisplay%2FDS%3Fa%3Db"
    assert f'href="{PORTAL}?return={back}"' in answer.body
    assert house.taken() == []


def test_a_stranger_that_is_a_program_gets_json(house: Confluence) -> None:
    """Programs are told that it is the address, and not that a token would help."""
    answer = house.ask(PROGRAM)
    assert (answer.status, answer.header("Content-Type")) == (403, "application/json")
    assert json.loads(answer.body)["error"] == "address_not_granted"
    assert answer.header("WWW-Authenticate") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_a_stranger_sends_did_not_arrive(house: Confluence, method: str) -> None:
    """Whose grant ended while he wrote is told so, with a 403."""
    answer = house.ask("Content-Length: 0", method=method)
    assert answer.status == 403
    assert "did not arrive" in answer.body
    assert house.taken() == []


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP", "True-Client-IP"]
)
def test_no_header_makes_an_address(house: Confluence, header: str) -> None:
    """Only where the connection comes from counts."""
    source = house.member()
    value = f"for={source}" if header == "Forwarded" else source
    assert house.ask(f"{header}: {value}").status == 403


def test_the_log_says_why(house: Confluence) -> None:
    """A line of the log names the reason in the words that the agent uses."""
    house.ask(target="/stranger")
    assert " acl=confluence class=missing reason=no_grant " in house.log_of("/stranger")
    source = house.member()
    house.ask(target="/granted", source=source)
    assert " acl=confluence class=allow reason=grant " in house.log_of("/granted")
    house.ask(target="/admin/no", source=source)
    assert " class=denied reason=no_admin_grant " in house.log_of("/admin/no")


def test_a_grant_that_is_taken_away_is_over(house: Confluence) -> None:
    """The next request of an address that left the list is refused, on an open connection, too."""
    source = house.member()
    with house.haproxy.connect(source) as client:
        line = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        client.sendall(line)
        assert read_answer(client).status == 200
        house.drop(f"{source}/032")
        client.sendall(line)
        assert read_answer(client).status == 403


def test_a_network_is_granted_as_a_whole(house: Confluence) -> None:
    """An entry for a network serves the addresses in it, and no other."""
    house.put("127.66.5.0/024")
    assert house.ask(source="127.66.5.9").status == 200
    assert house.ask(source="127.66.6.9").status == 403


def test_other_peoples_entries_stay_and_open(house: Confluence) -> None:
    """What others wrote into the same list opens as well, and outlives the same address of ours."""
    source = house.member()
    house.put(source)
    house.drop(f"{source}/032")
    assert house.ask(source=source).status == 200
    house.drop(source)
    assert house.ask(source=source).status == 403


def test_both_lists_are_needed_for_an_admins_page(house: Confluence) -> None:
    """The list of admins opens admins' pages to who may come in, and nothing to anybody else."""
    staff, admin, half = house.member(), house.member(STAFF, ADMINS), house.member(ADMINS)
    seen = {
        (who, path): house.ask(target=path, source=source).status
        for who, source in (("staff", staff), ("admin", admin), ("half", half))
        for path in ("/", "/admin/users")
    }
    opened = {("staff", "/"), ("admin", "/"), ("admin", "/admin/users")}
    assert seen == {case: 200 if case in opened else 403 for case in seen}
    assert len(house.taken()) == len(opened)


def test_an_admins_page_is_denied_by_other_words(house: Confluence) -> None:
    """Who is in, but no admin, is not asked to log in; a program gets JSON."""
    source = house.member()
    answer = house.ask(target="/admin/users", source=source)
    assert "This did not open" in answer.body
    answer = house.ask(PROGRAM, target="/admin/users", source=source)
    assert (answer.status, answer.header("Content-Type")) == (403, "application/json")


@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_no_spelling_makes_an_admins_page_another(house: Confluence, path: str) -> None:
    """However the path is written, it is an admin's, or nobody's."""
    assert house.ask(target=path, source=house.member()).status in {400, 403}
    assert house.taken() == []


@pytest.mark.parametrize("path", STAFF_PATHS)
def test_the_pages_of_others_are_no_admins_pages(house: Confluence, path: str) -> None:
    """What people use in Confluence takes no admin."""
    assert house.ask(target=path, source=house.member()).status == 200


def test_a_list_without_its_writer_is_a_503(house: Confluence) -> None:
    """Without the mark nobody is let in or turned away: not who is listed, and no stranger."""
    source = house.member()
    house.silence()
    for who in (source, fresh_source()):
        answer = house.ask(source=who)
        assert answer.status == 503
        assert answer.header("Retry-After") == "1"
        assert "Not available right now" in answer.body
    answer = house.ask(PROGRAM, target="/unmirrored", source=source)
    assert (answer.status, answer.header("Content-Type")) == (503, "application/json")
    assert " class=broken reason=unmirrored " in house.log_of("/unmirrored")
    assert house.taken() == []
    house.beat()
    assert house.ask(source=source).status == 200


def test_each_list_has_its_own_mark(house: Confluence) -> None:
    """Where the admins' list alone is not looked after, only admins' pages are a 503."""
    source = house.member(STAFF, ADMINS)
    house.silence("confluence-admin")
    assert house.ask(source=source).status == 200
    assert house.ask(target="/admin", source=source).status == 503
    house.beat()
    house.silence("confluence")
    assert house.ask(source=source).status == 503
    assert house.ask(target="/admin", source=source).status == 503


def test_a_mark_of_another_list_is_none(house: Confluence) -> None:
    """Only the very name of the grants counts."""
    source = house.member()
    house.silence()
    house.beat("confluence2", "Confluence", "confluenc")
    assert house.ask(source=source).status == 503


def test_nobody_gets_a_token_consumed_or_forwarded(house: Confluence) -> None:
    """A token has nothing to say here: it opens nothing, and Confluence does not see it."""
    assert house.ask(f"X-KAT: {TOKEN}").status == 403
    assert house.ask(target=f"/?kat={TOKEN}").status == 403
    source = house.member()
    assert house.ask(f"Authorization: KAT {TOKEN}", source=source).status == 200
    answer = house.ask(target=f"/page?kat={TOKEN}&a=b", source=source)
    assert (answer.status, answer.header("Location")) == (303, "/./page?a=b")
    assert "kat_" not in repr(house.taken())
    assert TOKEN not in house.haproxy.log()


def test_there_is_nothing_to_log_out_of(house: Confluence) -> None:
    """The form of a page leads back to the front page, and not to one that says it is done."""
    source = house.member()
    ours = ("Sec-Fetch-Site: same-origin", "Content-Length: 0")
    answer = house.ask(*ours, method="POST", target="/.kat/logout", source=source)
    assert (answer.status, answer.header("Location")) == (303, "/")
    assert house.taken() == []


def test_a_websocket_needs_a_grant(house: Confluence) -> None:
    """Confluence's editor gets its WebSocket, a stranger none."""
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13")
    assert house.ask(*upgrade, target="/synchrony").status == 403
    lines = [f"GET /synchrony HTTP/1.1\r\nHost: {HOST}", *upgrade, "\r\n"]
    with house.haproxy.connect(house.member()) as client:
        client.sendall("\r\n".join(lines).encode())
        assert read_answer(client).status == 101
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"


@pytest.mark.parametrize("request_line", [f"CONNECT {HOST}:443", "TRACE /"])
def test_a_granted_address_gets_no_tunnel(house: Confluence, request_line: str) -> None:
    """What is cleaned before the gate is cleaned for everybody."""
    with house.haproxy.connect(house.member()) as client:
        client.sendall(f"{request_line} HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        assert read_answer(client).status == 405
    assert house.taken() == []


def test_only_a_group_may_write(house: Confluence) -> None:
    """The runtime socket is for its owner and the group that was named."""
    status = house.runtime.stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert grp.getgrgid(status.st_gid).gr_name == GROUP
