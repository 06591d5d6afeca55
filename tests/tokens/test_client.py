"""Redis for commands: facts and faults, in sentences without secrets."""

import contextlib
import socket
import time
from collections.abc import Callable

import pytest
import redis

from tests.support.redis import RedisServer
from tokens import issue
from tokens.client import StoreFacts, StoreFault, StoreUnreachable, connect, describe_store


def test_a_store_says_what_it_is(redis_server: RedisServer) -> None:
    """The facts come from the server itself."""
    facts = describe_store(f"unix://{redis_server.socket}")
    assert (facts.role, facts.eviction, facts.is_open) == ("master", "noeviction", False)
    assert facts.faults() == []


@pytest.mark.parametrize(
    ("version", "is_old"), [("6.0.16", True), ("6.2.0", False), ("7.0", False), ("10.1.2", False)]
)
def test_an_old_server_is_a_fault(version: str, is_old: bool) -> None:  # noqa: FBT001 - a case
    """The scripts need Redis 6.2."""
    facts = StoreFacts(
        "redis", version, "master", "noeviction", is_open=False, is_full=False, refusal=""
    )
    assert bool(facts.faults()) is is_old


def test_a_full_store_is_a_fault(start_redis: Callable[..., RedisServer]) -> None:
    """A Redis at its maxmemory stores nothing."""
    server = start_redis("--maxmemory", "1")
    [fault] = describe_store(f"unix://{server.socket}").faults()
    assert fault.startswith("it is full")


def test_a_store_that_cannot_save_is_a_fault(start_redis: Callable[..., RedisServer]) -> None:
    """A Redis that refuses writes until it can save says so, though it still answers INFO."""
    server = start_redis("--save", "3600 1")
    (server.directory / "dump.rdb").mkdir()  # in the way of the snapshot, also of root's
    with server.client() as client:
        client.bgsave()
        deadline = time.monotonic() + 10
        while client.info("persistence")["rdb_last_bgsave_status"] != "err":
            assert time.monotonic() < deadline
    [fault] = describe_store(f"unix://{server.socket}").faults()
    assert "snapshot" in fault


def test_what_answers_is_told_from_what_is_away(redis_server: RedisServer) -> None:
    """Only a Redis that cannot be connected to is unreachable."""
    with pytest.raises(StoreUnreachable), connect("unix:///nowhere/redis.sock") as client:
        client.ping()
    for refused in (f"unix://{redis_server.socket}?db=99", f"unix://u:x@{redis_server.socket}"):
        with pytest.raises(StoreFault) as caught, connect(refused) as client:
            client.ping()
        assert not isinstance(caught.value, StoreUnreachable)


def test_a_wrong_password_is_not_told(start_redis: Callable[..., RedisServer]) -> None:
    """A refusal names the place, and neither password."""
    server = start_redis()
    with server.client() as client:
        client.config_set("requirepass", "right-one")
    for user, sentence in (("", "asks for a password"), (":wrong-one@", "refuses the user")):
        with pytest.raises(StoreFault, match=sentence) as caught:
            describe_store(f"unix://{user}{server.socket}")
        assert server.socket in str(caught.value)
        assert "-one" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert describe_store(f"unix://:right-one@{server.socket}").role == "master"


def test_a_port_without_password_is_open(start_redis: Callable[..., RedisServer]) -> None:
    """Over TCP, a server that asks for nothing lets everybody issue."""
    port = _open_port(start_redis())
    assert describe_store(f"redis://127.0.0.1:{port}").is_open


def _open_port(server: RedisServer) -> int:
    """Let a server listen on a free port; another test may take the one that was free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        with server.client() as client, contextlib.suppress(redis.ResponseError):
            client.config_set("port", port)
            return port


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a store that accepts and says nothing."""
    monkeypatch.setattr("tokens.client.TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StoreFault, match="does not answer within"):
            describe_store(f"redis://:hunter2@127.0.0.1:{port}")


def test_what_redis_says_is_passed_on(redis_server: RedisServer) -> None:
    """An error reply keeps its words."""
    with (
        pytest.raises(StoreFault, match="says: unknown command"),
        connect(f"unix://{redis_server.socket}") as client,
    ):
        client.execute_command("NOSUCH")


@pytest.mark.parametrize("command", ["HELLO", "AUTH"])
def test_a_server_that_echoes_is_not_repeated(
    start_redis: Callable[..., RedisServer], command: str
) -> None:
    """A server without HELLO or AUTH sends our password back in its refusal; it ends there."""
    server = start_redis("--rename-command", command, "")
    with contextlib.suppress(StoreFault):
        describe_store(f"unix://:our-secret@{server.socket}")
    with pytest.raises(StoreFault) as caught, connect(f"unix://:our-secret@{server.socket}") as one:
        one.execute_command(command, "our-secret")
    assert "our-secret" not in str(caught.value)


def test_an_issuers_client_puts_no_password_into_hello(
    start_redis: Callable[..., RedisServer],
) -> None:
    """An issuer's exception has no password either, when the server is too old for HELLO."""
    server = start_redis("--rename-command", "HELLO", "")
    with server.client() as client:
        client.config_set("requirepass", "our-secret")
    with issue.connect(f"unix://:our-secret@{server.socket}") as issuer:
        assert issuer.ping()
