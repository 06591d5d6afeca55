"""`kat allowlist` when Redis, or a HAProxy, is away."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import redis

from tests.support.allowlist import keeping, kept, target
from tests.support.eventually import eventually
from tests.support.grants import end, grant
from tests.support.haproxy import binary
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy

EQUAL = "ACLs are equal to what is granted"
IN, OUT, AWAY = 200, 403, 503
AWAY_S = 30


def test_a_redis_that_is_away_for_half_a_minute_changes_nothing(
    redis_server: RedisServer, folder: Path, grants: redis.Redis
) -> None:
    """Its last word counts, expiries too, and no rule refuses; then its new word counts."""
    with (
        RedisProxy(redis_server.socket, folder) as proxy,
        kept(binary("3.2"), folder / "edge") as edge,
        keeping(folder, proxy.url, {"edge": target(edge)}) as allowlist,
    ):
        grant(grants, "wiki", "127.0.0.7")
        ends_ms = grant(grants, "wiki", "127.0.0.8", ttl_ms=8000)
        allowlist.told(EQUAL)
        eventually(lambda: edge.status("127.0.0.8") == IN, "both grants")
        proxy.vanish()
        began = time.monotonic()
        grant(grants, "wiki", "127.0.0.9")
        end(grants, "wiki", "127.0.0.7")
        while time.monotonic() - began < AWAY_S:
            assert edge.status("127.0.0.7") == IN
            assert edge.status("127.0.0.9") == OUT
            asked_ms = _now_ms(grants)
            status = edge.status("127.0.0.8")
            # It reckons with the time that Redis took to answer, to be early rather than late.
            if _now_ms(grants) < ends_ms - 1000:
                assert status == IN
            elif asked_ms > ends_ms + 1000:
                assert status == OUT
            time.sleep(0.1)  # how often is looked, not what is waited for
        assert allowlist.log().count("level=error") == 1
        proxy.listen()
        eventually(lambda: edge.status("127.0.0.9") == IN, "what was granted meanwhile")
        eventually(lambda: edge.status("127.0.0.7") == OUT, "what was ended meanwhile")
        assert allowlist.log().count("level=error") == 1


def test_a_frozen_redis_keeps_nobody_from_leaving(
    start_redis: Callable[..., RedisServer], folder: Path
) -> None:
    """SIGTERM ends it at once, whoever it is waiting for."""
    server = start_redis()
    with (
        kept(binary("3.2"), folder / "edge") as edge,
        keeping(folder, f"unix://{server.socket}", {"edge": target(edge)}) as allowlist,
    ):
        allowlist.told(EQUAL)
        server.process.send_signal(signal.SIGSTOP)
        try:
            allowlist.told("level=error")
            began = time.monotonic()
            assert allowlist.stop() == 0
            assert time.monotonic() - began < 2
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert "Traceback" not in allowlist.log()


def test_a_haproxy_that_is_away_is_tried_again_and_nothing_is_lost(
    folder: Path, store: str, grants: redis.Redis
) -> None:
    """It may come later, or go and come back: it gets what is granted by then."""
    with (
        kept(binary("3.2"), folder / "one") as one,
        kept(binary("3.2"), folder / "two") as two,
    ):
        two.stop()
        targets = {"one": target(one), "two": target(two)}
        with keeping(folder, store, targets) as allowlist:
            allowlist.told("two: ")
            grant(grants, "wiki", "127.0.0.7")
            eventually(lambda: one.status("127.0.0.7") == IN, "the grant in the other")
            two.start()
            eventually(lambda: two.status("127.0.0.7") == IN, "the grant in the late one")
            two.stop()
            allowlist.told("level=error", times=2)
            grant(grants, "wiki", "127.0.0.8")
            two.start()
            eventually(lambda: two.status("127.0.0.8") == IN, "what was granted meanwhile")
            assert allowlist.log().count("level=error") == 2


def test_nothing_is_touched_before_redis_has_spoken(folder: Path) -> None:
    """With Redis away from the beginning no entry is removed and no heartbeat sent."""
    with kept(binary("3.2"), folder / "edge") as edge:
        edge.tell("add acl #500 127.0.0.7/032")
        with keeping(folder, f"unix://{folder}/nowhere.sock", {"edge": target(edge)}) as allowlist:
            allowlist.told("level=error")
            assert edge.entries() == ["127.0.0.7/032"]
            assert edge.status("127.0.0.7") == AWAY
            assert allowlist.stop() == 0


def _now_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds * 1000 + micros // 1000)
