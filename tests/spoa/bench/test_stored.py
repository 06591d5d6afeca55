from pathlib import Path

import pytest
import redis

from spoa.bench.fault import Fault
from spoa.bench.servers import private_redis
from spoa.bench.stage import Stage
from spoa.bench.stored import Kind, audit_event_bytes, bytes_of, fill, kinds, room_for
from tokens.policy.sessionrecord import read_session
from tokens.record import read_record


def test_stored_tokens_keep_the_contract(tmp_path: Path) -> None:
    """Each has a name like a token's, a record that reads strictly, and an end."""
    told: list[int] = []
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        fill(store.socket, 6000, told.append)
        keys = client.keys("kat:t:*")
        assert client.dbsize() == len(keys) == 6001  # and the one that was copied
        assert {len(key) for key in keys} == {len(b"kat:t:") + 64}
        assert {read_record(raw).ttl_s for raw in client.mget(keys[:100])} == {3600}
        assert all(0 < client.ttl(key) <= 3600 for key in keys[:100])
    assert told == [5000, 6000]


def test_what_is_counted_is_what_the_agent_writes(on: Stage) -> None:
    """The values that are copied are a record, its tombstone, a session, and who has it."""
    made = kinds(on.agent.socket, on.store.socket)
    record = made["token"].value
    assert read_record(record).ttl_s == 3600
    tombstone = made["consumed token"].value
    assert tombstone.startswith(b"consumed ")
    assert tombstone.endswith(record)
    assert read_session(made["session"].value).acl == b"session"
    with redis.Redis(unix_socket_path=on.store.socket) as client:
        user = read_session(made["session"].value).user
        listed = made["session, listed for its user"]
        assert client.zrange(listed.prefix + user, 0, -1) == [listed.value]


def test_bytes_are_those_of_one(tmp_path: Path) -> None:
    """A value of 1,000 bytes more takes about 1,000 bytes more; a list is more than its member."""
    made = {
        "short": Kind(b"a:", b"x" * 100),
        "long": Kind(b"a:", b"x" * 1100),
        "list": Kind(b"b:", b"x" * 66, is_list=True),
    }
    found = bytes_of(made, tmp_path, 2000, lambda _: None)
    assert 100 < found["short"] < 500
    assert 900 < found["long"] - found["short"] < 1400
    assert found["list"] > 66
    assert found["grant"] > 0


def test_a_missing_audit_is_told(tmp_path: Path) -> None:
    """No audit is not an audit of no bytes."""
    with private_redis(tmp_path) as store, pytest.raises(Fault, match="no audit"):
        audit_event_bytes(store.socket, 10)


def test_what_does_not_fit_is_left_out() -> None:
    """A sentence names the count, what it needs, and what there is."""
    assert room_for(1000) is None
    assert "10,000,000,000 stored tokens are left out: they need" in (room_for(10**10) or "")
