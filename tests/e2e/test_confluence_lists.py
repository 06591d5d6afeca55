"""examples/confluence.cfg and its lists: their names, their neighbours, and how long they count."""

import socket
from pathlib import Path

from tests.support.confluence import HOST, STAFF, guarded
from tests.support.eventually import eventually
from tests.support.haproxy import fresh_source, read_answer


def test_a_silent_writer_is_believed_for_a_while_only(haproxy_binary: Path, tmp_path: Path) -> None:
    """A mark expires however many requests look at it, and the entry that stands opens nothing."""
    settings = {"KAT_MODE": "ip", "KAT_BEAT": "2s"}
    with guarded(haproxy_binary, tmp_path, settings) as house:
        source = fresh_source()
        house.put(source)
        house.beat()
        assert house.ask(source=source).status == 200
        eventually(lambda: house.ask(source=source).status == 503, "a 503 for want of a mark")
        assert source in house.tell(f"show acl {STAFF}")
        house.beat()
        assert house.ask(source=source).status == 200


def test_another_agents_list_opens_as_well(haproxy_binary: Path, tmp_path: Path) -> None:
    """An address in either list comes in; theirs takes no mark, and opens no admin's page."""
    settings = {"KAT_MODE": "ip", "KAT_OTHER_LIST_ID": "600", "KAT_OTHER_ADMIN_LIST_ID": "601"}
    with guarded(haproxy_binary, tmp_path, settings) as house:
        theirs, ours, admin = fresh_source(), fresh_source(), fresh_source()
        house.put(theirs, "#600")
        house.put(admin, "#600", "#601")
        assert house.ask(source=theirs).status == 200
        house.put(f"{ours}/032")
        assert house.ask(source=ours).status == 503
        house.beat()
        assert house.ask(source=ours).status == 200
        assert house.ask(target="/admin", source=theirs).status == 403
        assert house.ask(target="/admin", source=admin).status == 200
        house.drop(theirs, "#600")
        assert house.ask(source=theirs).status == 403


def test_lists_may_have_names(haproxy_binary: Path, tmp_path: Path) -> None:
    """Lists are files with what was in them at the start, or, from 3.0, names without a file."""
    is_old = haproxy_binary.parent.name == "2.6"
    always = "127.67.0.1"
    files = {"KAT_LIST": tmp_path / "staff.acl", "KAT_ADMIN_LIST": tmp_path / "admins.acl"}
    for file in files.values():
        file.write_text(f"{always}\n")
    names = {"KAT_LIST": "virt@confluence", "KAT_ADMIN_LIST": "virt@confluence-admin"}
    settings = {name: str(file) for name, file in files.items()} if is_old else names
    with guarded(haproxy_binary, tmp_path, {"KAT_MODE": "ip", **settings}) as house:
        source = fresh_source()
        house.put(f"{source}/032", *settings.values())
        house.beat()
        assert house.ask(target="/admin", source=source).status == 200
        assert house.ask(target="/admin", source=always).status == (200 if is_old else 403)


def test_a_socket_for_both_families_knows_each(haproxy_binary: Path, tmp_path: Path) -> None:
    """An IPv4 client on an IPv6 socket is the address of its grant; IPv6 is granted likewise."""
    settings = {"KAT_MODE": "ip"}
    with guarded(haproxy_binary, tmp_path, settings, is_dual_stack=True) as house:
        source = fresh_source()
        house.put(f"{source}/032")
        house.beat()
        assert house.ask(source=source).status == 200
        assert house.ask().status == 403
        with socket.create_connection(("::1", house.haproxy.port)) as client:
            line = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
            client.sendall(line)
            assert read_answer(client).status == 403
            house.put("::1/0128")
            client.sendall(line)
            assert read_answer(client).status == 200


def test_a_list_begins_empty(haproxy_binary: Path, tmp_path: Path) -> None:
    """A HAProxy that has just started lets nobody in before somebody has filled its lists."""
    with guarded(haproxy_binary, tmp_path, {"KAT_MODE": "ip"}) as house:
        assert house.ask().status == 503
        house.beat()
        assert house.ask().status == 403
        assert house.taken() == []
