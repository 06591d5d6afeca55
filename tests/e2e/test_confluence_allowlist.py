"""examples/confluence.cfg in mode ip with the real `kat allowlist`: from a grant to a page."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from tests.support.allowlist import Allowlist, keeping
from tests.support.confluence import ADMINS, HOST, STAFF, Confluence, guarded
from tests.support.eventually import eventually
from tests.support.grants import end, grant
from tests.support.haproxy import fresh_source, read_answer
from tests.support.redis import RedisServer
from tokens.admin.admin import Admin
from tokens.admin.block import Blocker

LISTS = {"confluence": [STAFF], "confluence-admin": [ADMINS]}
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", KEY, "Sec-WebSocket-Version: 13")


@contextmanager
def kept(
    binary: Path,
    folder: Path,
    server: RedisServer,
    settings: Mapping[str, str],
    lists: Mapping[str, list[str]] = LISTS,
) -> Iterator[tuple[Confluence, Allowlist]]:
    """Run the example and who keeps its lists, as docs/confluence.md sets them up."""
    with guarded(binary, folder, {"KAT_MODE": "ip", **settings}) as house:
        edge = {
            "runtime": f"unix:{house.runtime}",
            "acl": dict(lists),
            "shut": {"confluence": ["web"]},
        }
        with keeping(folder, f"unix://{server.socket}", {"edge1": edge}) as allowlist:
            eventually(lambda: house.ask().status == 403, "lists that are looked after")
            yield house, allowlist


def opens(house: Confluence, source: str, target: str = "/") -> Callable[[], bool]:
    return lambda: house.ask(target=target, source=source).status == 200


def is_refused(house: Confluence, source: str) -> bool:
    """Tell whether it is a 403; a request on the way when its grant ends may be cut off instead."""
    with suppress(ConnectionError):
        return house.ask(source=source).status == 403
    return False


def test_a_grant_opens_a_page(
    haproxy_binary: Path, tmp_path: Path, redis_server: RedisServer, client: redis.Redis
) -> None:
    """Grants come and go, staff and admins apart, and another's entry stays what it is."""
    source, theirs = fresh_source(), fresh_source()
    with kept(haproxy_binary, tmp_path, redis_server, {}) as (house, allowlist):
        house.put(theirs)
        grant(client, "confluence", source)
        eventually(opens(house, source), "the grant")
        assert house.ask(target="/admin", source=source).status == 403
        grant(client, "confluence-admin", source)
        eventually(opens(house, source, "/admin"), "the admin's grant")
        shown = allowlist.show()
        assert (shown.returncode, "#500" in shown.stdout) == (0, True), shown.stderr
        end(client, "confluence", source)
        eventually(lambda: is_refused(house, source), "the end of the grant")
        assert house.ask(source=theirs).status == 200


def test_lists_with_names_are_kept(
    haproxy_binary: Path, tmp_path: Path, redis_server: RedisServer, client: redis.Redis
) -> None:
    """Files are kept like numbers, and virt@ names from HAProxy 3.0."""
    names = {"KAT_LIST": "virt@confluence", "KAT_ADMIN_LIST": "virt@confluence-admin"}
    if haproxy_binary.parent.name == "2.6":
        names = {name: str(tmp_path / f"{name}.acl") for name in names}
        for name in names.values():
            Path(name).touch()
    lists = {"confluence": [names["KAT_LIST"]], "confluence-admin": [names["KAT_ADMIN_LIST"]]}
    source = fresh_source()
    with kept(haproxy_binary, tmp_path, redis_server, names, lists) as (house, _):
        grant(client, "confluence", source)
        grant(client, "confluence-admin", source)
        eventually(opens(house, source, "/admin"), "both grants")


def test_a_dead_writer_closes_the_gate(
    haproxy_binary: Path, tmp_path: Path, redis_server: RedisServer, client: redis.Redis
) -> None:
    """Killed, it is believed for KAT_BEAT, and then all is a 503; started again, all is well."""
    source = fresh_source()
    with kept(haproxy_binary, tmp_path, redis_server, {"KAT_BEAT": "3s"}) as (house, allowlist):
        grant(client, "confluence", source)
        eventually(opens(house, source), "the grant")
        allowlist.kill()
        eventually(lambda: house.ask(source=source).status == 503, "the end of the last mark")
        assert source in house.tell(f"show acl {STAFF}")
        allowlist.start()
        eventually(opens(house, source), "the next mark")


@pytest.mark.parametrize("how", ["block", "end"])
def test_an_open_websocket_ends_with_its_grant(
    haproxy_binary: Path, tmp_path: Path, redis_server: RedisServer, client: redis.Redis, how: str
) -> None:
    """Whose address is blocked, or granted no more, loses what is open; others keep theirs."""
    bad, good = fresh_source(), fresh_source()
    with kept(haproxy_binary, tmp_path, redis_server, {}) as (house, _):
        for source in (bad, good):
            grant(client, "confluence", source)
            eventually(opens(house, source), "the grant")
        with _websocket(house, bad) as ended, _websocket(house, good) as kept_open:
            if how == "block":
                Blocker(Admin(client, by="test")).block(bad, 60)
            else:
                end(client, "confluence", bad)
            assert ended.recv(1) == b""
            kept_open.sendall(b"hello")
            assert kept_open.recv(5) == b"hello"
        eventually(lambda: is_refused(house, bad), "a 403")


def _websocket(house: Confluence, source: str) -> socket.socket:
    client = house.haproxy.connect(source)
    lines = [f"GET /synchrony HTTP/1.1\r\nHost: {HOST}", *UPGRADE, "\r\n"]
    client.sendall("\r\n".join(lines).encode())
    assert read_answer(client).status == 101
    return client
