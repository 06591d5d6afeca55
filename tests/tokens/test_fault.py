"""What Redis refuses, in words: as Redis 6.2, 7 and Valkey say it and redis-py passes it on."""

import pytest
import redis
from redis.exceptions import (
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from tests.support.redis import RedisServer
from tests.support.topologies import RunningCluster
from tokens.admin.admin import Admin
from tokens.admin.fault import is_full, plain, speaking_plainly
from tokens.admin.revoke import Revoker
from tokens.store.client import StoreFault

SHA = "6badc95c" * 5
OOM = "command not allowed when used memory > 'maxmemory'."
OLD = f"Error running script (call to f_{SHA}): @user_script:50: @user_script: 50: -"

SAID = {
    "oom": (OutOfMemoryError(f"{OOM} script: {SHA}, on @user_script:50."), "it is full"),
    "oom, 6.2": (ResponseError(f"{OLD}OOM {OOM}"), "it is full"),
    "replica": (
        ReadOnlyError(f"You can't write against a read only replica. script: {SHA}, on @user:50."),
        "it is a replica, which takes no changes",
    ),
    "replica, 6.2": (
        ResponseError(f"{OLD}READONLY You can't write against a read only replica."),
        "it is a replica, which takes no changes",
    ),
    "command": (
        NoPermissionError("User bob has no permissions to run the 'config|get' command"),
        "its user may not run CONFIG|GET",
    ),
    "command, 6.2": (
        NoPermissionError("this user has no permissions to run the 'wait' command or its ..."),
        "its user may not run WAIT",
    ),
    "in a script": (
        ResponseError(
            "ACL failure in script: User bob has no permissions to run the 'hset' command"
        ),
        "its user may not run HSET",
    ),
    "in a script, 6.2": (
        ResponseError(f"{OLD}The user executing the script can't run this command or subcommand"),
        "its user may not run a command of the script",
    ),
    "key": (NoPermissionError("No permissions to access a key"), "its user may not use a key"),
    "moved": (MovedError("1234 127.0.0.1:7000"), "store.url must be redis+cluster://"),
    "down": (ClusterDownError("The cluster is down"), "its cluster is down"),
    "unknown": (ResponseError(f"{OLD}NEWS of old. script: {SHA}, on @user_script:1."), "NEWS of"),
}


@pytest.mark.parametrize("case", SAID)
def test_a_refusal_is_words(case: str) -> None:
    """Whatever Redis says is part of a sentence: no hash, no place in a script, no code of ours."""
    error, words = SAID[case]
    said = plain(error)
    assert words in said
    assert "6badc95c" not in said
    assert "@user" not in said
    assert len(said) < 200
    assert not said.endswith(".") or said.endswith("...")
    assert is_full(error) is case.startswith("oom")


def test_a_node_of_a_cluster_is_no_store(shared_cluster: RunningCluster) -> None:
    """Who names one as if it were alone is told so, whichever node it is."""
    for node in shared_cluster.primaries:
        with node.client() as client, pytest.raises(StoreFault) as caught:
            _revoke_under_many_names(client, f"redis://127.0.0.1:{node.port}")
        assert str(caught.value) == (
            f"Redis at 127.0.0.1:{node.port} refuses: it is a node of a cluster: store.url must be "
            "redis+cluster://..."
        )


def _revoke_under_many_names(client: redis.Redis, url: str) -> None:
    """Do it in many slots, some of which another node has."""
    with speaking_plainly(url):
        for number in range(30):
            Revoker(Admin(client, f"{number}:", by="root")).revoke_user("u")


def test_any_full_redis_revokes(every_redis: RedisServer) -> None:
    """Redis and Valkey take a revocation when they take no other write."""
    with every_redis.client() as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.OutOfMemoryError):
                client.set("kat:x", "y")
            done = Revoker(Admin(client, by="root")).revoke_user("user1")
        finally:
            client.config_set("maxmemory", 0)
        assert done.undone == ()
        assert client.hget("kat:cut", "sub:user1") == str(done.cut_ms).encode()
        client.flushall()
