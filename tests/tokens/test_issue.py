"""Issuing through a real Redis, sync and async: one list of cases for both."""

import asyncio
import contextlib
import json
import re
import select
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import redis
from redis.asyncio import sentinel

from tests.support.records import NONCE
from tests.support.redeem import Answer, Ask, Redeemer
from tests.support.redis import RedisServer
from tests.support.topologies import RunningCluster, running_cluster, running_sentinels
from tokens import order
from tokens.issue import AsyncIssuer, Issued, Issuer, NotIssued, connect, connect_async, explain
from tokens.record import Record, SessionTerms, read_record
from tokens.token import digest, is_well_formed, kid

Issue = Callable[..., Issued]
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
AUDIT = MappingProxyType({"audit": True, "max_audit_entries": 100})


@pytest.fixture(params=["sync", "async"])
def issue(request: pytest.FixtureRequest, redis_server: RedisServer) -> Issue:
    """`Issuer.issue` and `AsyncIssuer.issue`, called alike."""
    here = f"unix://{redis_server.socket}"

    def issue_now(*args: Any, at: str = here, of: Any = NO_OPTIONS, **bindings: Any) -> Issued:
        with connect(at) as client:
            return Issuer(client, **of).issue(*args, **bindings)

    async def issue_soon(
        *args: Any, at: str = here, of: Any = NO_OPTIONS, **bindings: Any
    ) -> Issued:
        async with contextlib.aclosing(connect_async(at)) as client:
            return await AsyncIssuer(client, **of).issue(*args, **bindings)

    if request.param == "sync":
        return issue_now
    return lambda *args, **bindings: asyncio.run(issue_soon(*args, **bindings))


def test_an_issued_token_stands_in_redis(issue: Issue, client: redis.Redis) -> None:
    """Redis holds the contract's record under the token's digest, with its end."""
    issued = issue("user1", ["wiki"], 60)
    token = issued.token.encode()
    assert is_well_formed(token)
    assert issued.kid == kid(digest(token)).decode()
    key = b"kat:t:" + digest(token)
    assert client.keys() == [key]
    assert client.get(key) == b'{"v":1,"sub":"user1","acl":["wiki"],"ttl":60}'
    assert 59_000 < client.pttl(key) <= 60_000


def test_an_issued_token_is_consumed_once(issue: Issue, client: redis.Redis) -> None:
    """What an issuer writes, redeem.lua lets through: once."""
    key = b"kat:t:" + digest(issue("user1", "wiki", 60).token.encode())
    redeemer = Redeemer(client)
    assert redeemer.redeem_one(Ask(key)).code == "ok"
    assert redeemer.redeem_one(Ask(key, claim="c0ffee.2")).code == "replayed"


def test_every_field_arrives(issue: Issue, client: redis.Redis) -> None:
    """Each keyword becomes its field, a lone text a list of one."""
    issued = issue(
        "user1",
        ("wiki", "jira"),
        60,
        groups=["staff"],
        src="192.0.2.7",
        host="wiki.example",
        method=("GET", "HEAD"),
        path="/x",
        nbf_ms=5,
        session=SessionTerms(ttl_s=60),
        nonce=NONCE,
        meta={"ticket": 7},
        of={"prefix": "other:"},
    )
    raw = client.get(b"other:t:" + digest(issued.token.encode()))
    assert isinstance(raw, bytes)
    assert read_record(raw) == Record(
        sub="user1",
        acl=("wiki", "jira"),
        ttl_s=60,
        groups=("staff",),
        src=("192.0.2.7",),
        host=("wiki.example",),
        method=("GET", "HEAD"),
        path=("/x",),
        nbf_ms=5,
        session=SessionTerms(ttl_s=60),
        nonce=NONCE,
        meta={"ticket": 7},
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"user": ""}, "sub: '' is not 1 to 128 bytes without control characters"),
        ({"user": b"user1"}, "not to be written as JSON: "),
        ({"user": "user\udc00"}, "not readable as JSON in UTF-8"),
        ({"acl": "wiki docs"}, "acl: 'wiki docs' is not 1 to 64 of A-Z a-z 0-9 _ . -"),
        ({"acl": []}, "acl: an empty list; leave the field out instead"),
        ({"ttl_s": 0}, "ttl: 0, allowed is 1 to 86400"),
        ({"ttl_s": 86_401}, "ttl: 86401, allowed is 1 to 86400"),
        ({"ttl_s": "60"}, "ttl: a text where an integer belongs"),
        ({"groups": "a,b"}, "groups: 'a,b' is not 1 to 128 bytes without control characters or"),
        ({"src": "192.0.2.7/32"}, "src: '192.0.2.7/32' is not a canonical address, or network"),
        ({"src": "0.0.0.0"}, "src: '0.0.0.0' is no address that a client has"),
        ({"src": "0.0.0.0/8"}, "src: '0.0.0.0/8' is no address that a client has"),
        ({"src": "::"}, "src: '::' is no address that a client has"),
        ({"src": "::/64"}, "src: '::/64' is no address that a client has"),
        ({"src": "127.0.0.1"}, "src: '127.0.0.1' is this machine's own address: bind to"),
        ({"src": ["192.0.2.7", "127.0.0.0/8"]}, "src: '127.0.0.0/8' is this machine's own"),
        ({"src": "::1"}, "src: '::1' is this machine's own address: bind to the visitor's"),
        ({"host": "Wiki.example"}, "host: 'Wiki.example' is not a host name in lower case"),
        ({"session": SessionTerms()}, "session: an object without ttl and idle"),
        ({"meta": {"a": float("nan")}}, "NaN is not a JSON number"),
        ({"meta": {"a": "x" * 4096}}, "record of 4157 bytes, the limit is 4096"),
    ],
)
def test_bad_arguments_are_named(
    issue: Issue, client: redis.Redis, wrong: dict[str, object], sentence: str
) -> None:
    """What no agent would accept is a ValueError that says why, and nothing is written."""
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        issue(**({"user": "user1", "acl": "wiki", "ttl_s": 60} | wrong))
    assert client.dbsize() == 0


def test_a_misspelt_binding_is_refused(issue: Issue, client: redis.Redis) -> None:
    """`scr` must not mean "unbound"."""
    with pytest.raises(TypeError, match="scr"):
        issue("user1", "wiki", 60, scr="192.0.2.7")
    assert client.dbsize() == 0


def test_a_taken_key_is_left_alone(
    issue: Issue, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NX is honoured: a token that exists is not written over, and the caller hears of it."""
    token = issue("user1", "wiki", 60).token
    monkeypatch.setattr(order, "mint", lambda: token)
    with pytest.raises(NotIssued) as refusal:
        issue("user2", "wiki", 60)
    assert token not in str(refusal.value)
    assert Redeemer(client).redeem_one(Ask(b"kat:t:" + digest(token.encode()))) == Answer(
        "ok", b'{"v":1,"sub":"user1","acl":["wiki"],"ttl":60}'
    )


def test_the_token_goes_nowhere(issue: Issue, client: redis.Redis) -> None:
    """One command reaches Redis, and neither it nor the answer's repr holds the token's text."""
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        issued = issue("user1", "wiki", 60)
        client.ping()
        commands: list[str] = []
        while not commands or commands[-1] != "PING":
            commands.append(monitor.next_command()["command"])
    (only,) = (command for command in commands if command.startswith("SET "))
    assert re.fullmatch(r"SET kat:t:[0-9a-f]{64} \{.*\} (EX 60 NX|NX EX 60)", only)
    assert issued.token[4:] not in "".join(commands)
    assert issued.token[4:] not in f"{issued!r} {issued}"
    assert issued.kid in repr(issued)


def test_a_store_that_refuses_is_heard(issue: Issue, client: redis.Redis) -> None:
    """When Redis does not confirm, the caller gets Redis's error and no token."""
    client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(redis.RedisError):
            issue("user1", "wiki", 60)
    finally:
        client.config_set("min-replicas-to-write", "0")


class LosesReplies(socketserver.BaseRequestHandler):
    """Passes everything on to Redis and back, but ends the connection in place of SET's reply."""

    server: "LossyProxy"

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(self.server.upstream)
            while True:
                readable, _, _ = select.select([self.request, upstream], [], [], 10)
                if upstream in readable:
                    self.request.sendall(upstream.recv(65536))
                    continue
                command = self.request.recv(65536)
                if not command:
                    return
                upstream.sendall(command)
                if b"SET\r\n" in command:
                    self.server.writes += 1
                    upstream.recv(65536)
                    return


class LossyProxy(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, server: RedisServer) -> None:
        super().__init__(str(server.directory / "lossy.sock"), LosesReplies)
        self.upstream = server.socket
        self.writes = 0


def test_a_lost_reply_is_not_asked_for_again(
    issue: Issue, redis_server: RedisServer, client: redis.Redis
) -> None:
    """A write whose reply is lost is sent once: the caller hears of it and issues anew."""
    with LossyProxy(redis_server) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(redis.ConnectionError):
                issue("user1", "wiki", 60, at=f"unix://{proxy.server_address}")
        finally:
            proxy.shutdown()
            thread.join()
            Path(redis_server.directory / "lossy.sock").unlink()
    assert proxy.writes == 1
    assert client.dbsize() == 1
    issue("user1", "wiki", 60)
    assert client.dbsize() == 2


@pytest.mark.parametrize("src", ["127.0.0.1", "127.9.8.7", "127.0.0.0/8", "::1"])
def test_loopback_is_for_who_says_so(issue: Issue, client: redis.Redis, src: str) -> None:
    """Who tries things out on one machine may bind to it."""
    token = issue("user1", "wiki", 60, src=src, of={"allow_loopback": True}).token
    raw = client.get(b"kat:t:" + digest(token.encode()))
    assert isinstance(raw, bytes)
    assert read_record(raw).src == (src,)


def test_nobody_binds_to_no_address(issue: Issue, client: redis.Redis) -> None:
    """An address that no client has is refused, whoever asks: that token would open nothing."""
    with pytest.raises(ValueError, match="no address that a client has"):
        issue("user1", "wiki", 60, src="0.0.0.0", of={"allow_loopback": True})
    assert client.dbsize() == 0


def told(client: redis.Redis) -> list[dict[str, object]]:
    """Return the events of the audit stream."""
    entries = client.xrange("kat:audit")
    return [event for _, fields in entries for event in json.loads(fields[b"e"])]


def test_issuing_is_told_only_if_asked(issue: Issue, client: redis.Redis) -> None:
    """Without `audit` nothing but the token is written."""
    assert not issue("user1", "wiki", 60).is_audited
    assert told(client) == []


def test_issuing_is_told(issue: Issue, client: redis.Redis) -> None:
    """The event names the token by its kid, and says for whom, for what and from where."""
    issued = issue("user1", ["wiki", "jira"], 60, src=["192.0.2.7", "2001:db8::/32"], of=AUDIT)
    plain = issue("us\u00e4r", "wiki", 60, of=AUDIT)
    assert issued.is_audited
    assert plain.is_audited
    assert told(client) == [
        {
            "event": "issued",
            "acl": "wiki,jira",
            "kid": issued.kid,
            "user": "user1",
            "src": "192.0.2.7,2001:db8::/32",
        },
        {"event": "issued", "acl": "wiki", "kid": plain.kid, "user": "us\u00e4r"},
    ]
    assert issued.token[4:] not in str(client.xrange("kat:audit"))


def test_the_stream_is_bounded(issue: Issue, client: redis.Redis) -> None:
    """Issuing trims the stream to about as many entries as it is told."""
    for _ in range(300):
        client.xadd("kat:audit", {"e": "[]"})
    issue("user1", "wiki", 60, of=AUDIT)
    assert client.xlen("kat:audit") < 300


def test_a_stream_that_refuses_costs_no_token(issue: Issue, client: redis.Redis) -> None:
    """Where the event cannot be written the token is issued, and the caller learns both."""
    client.set("kat:audit", "no stream")
    issued = issue("user1", "wiki", 60, of=AUDIT)
    assert not issued.is_audited
    assert Redeemer(client).redeem_one(Ask(b"kat:t:" + digest(issued.token.encode()))).code == "ok"


def test_what_was_not_issued_is_not_told(
    issue: Issue, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event speaks of a token that Redis did not confirm."""
    token = issue("user1", "wiki", 60).token
    monkeypatch.setattr(order, "mint", lambda: token)
    with pytest.raises(NotIssued):
        issue("user1", "wiki", 60, of=AUDIT)
    with pytest.raises(ValueError, match="ttl: 0"):
        issue("user1", "wiki", 0, of=AUDIT)
    assert told(client) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster() as cluster:
        yield cluster


def test_a_cluster_is_issued_to(issue: Issue, cluster: RunningCluster) -> None:
    """By the URL of a cluster tokens reach whichever node has their slot, and the audit its own."""
    issued = [issue("user1", "wiki", 60, at=cluster.url, of=AUDIT) for _ in range(20)]
    with contextlib.closing(cluster.client()) as client:
        for one in issued:
            assert client.get(b"kat:t:" + digest(one.token.encode())) is not None
        events = told(client)
    assert {event["kid"] for event in events} >= {one.kid for one in issued}
    assert all(one.is_audited for one in issued)
    sizes = []
    for node in cluster.primaries:
        with node.client() as client:
            sizes.append(client.dbsize())
    assert all(sizes), "every node got some: the tokens did not all go one way"


def test_sentinels_are_asked_where_to_issue(issue: Issue) -> None:
    """By the URL of Sentinels tokens reach the primary that they name."""
    with running_sentinels(replicas=0) as site:
        issued = issue("user1", "wiki", 60, at=site.url, of=AUDIT)
        with site.primary.client() as client:
            assert client.get(b"kat:t:" + digest(issued.token.encode())) is not None
    assert issued.is_audited


def test_a_cluster_that_is_away_is_a_redis_error(issue: Issue) -> None:
    """Who catches redis.RedisError hears of a cluster that nobody runs."""
    with pytest.raises(redis.RedisError):
        issue("user1", "wiki", 60, at="redis+cluster://127.0.0.1:1")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "redis://127.0.0.1:port", "redis+sentinel://x"]
)
def test_a_wrong_url_is_named(issue: Issue, url: str) -> None:
    """A URL that leads nowhere is a ValueError with a sentence."""
    with pytest.raises(ValueError, match=" "):
        issue("user1", "wiki", 60, at=url)


def _in_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_issuing_needs_redis_alone() -> None:
    """A service that installs no extra can import everything it needs."""
    _in_python(
        """if True:
        import sys
        for name in ("hiredis", "uvloop", "pydantic", "typer", "prometheus_client", "construct"):
            sys.modules[name] = None
        import tokens.issue
        for name in tokens.issue.__all__:
            getattr(tokens.issue, name)
        """
    )


def test_the_pure_parts_need_nothing() -> None:
    """Who only mints or looks at tokens does not wait for redis to load."""
    _in_python(
        """if True:
        import sys
        import tokens.token
        assert "redis" not in sys.modules
        assert tokens.token.is_well_formed(tokens.token.mint().encode())
        """
    )


AT = "Redis at wiki.example:6379 "


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotIssued("kid 0 is taken"), "kid 0 is taken"),
        (TimeoutError(), AT + "does not answer in time"),
        (redis.TimeoutError("x"), AT + "does not answer within 2 s"),
        (redis.ConnectionError("gone"), AT + "cannot be reached: gone"),
        (sentinel.MasterNotFoundError("<Connection(password=hunter2)>"), "Redis "),
        (redis.AuthenticationError("x"), AT + "refuses the user or the password"),
        (
            redis.ResponseError("unknown command 'AUTH', with args beginning with: 'hunter2'"),
            AT + "says: unknown command 'AUTH'",
        ),
    ],
)
def test_what_went_wrong_is_explained(error: Exception, told: str) -> None:
    """Which Redis did what is one sentence, and no password is in it."""
    sentence = explain("redis://portal:hunter2@wiki.example/1", error)
    assert sentence.startswith(told)
    assert "hunter2" not in sentence
    assert "\n" not in sentence
