"""The fence, where the promoted replica's clock is behind: by 3 s, more than is allowed for.

What such a server says of a token depends on its clock: first that it was issued in the future,
then, when the clock has come to that, that it is whole.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clocks import redis_that_is_behind
from tests.support.eventually import eventually
from tests.support.redis_proxy import RedisProxy
from tests.support.topologies import Node, running_node
from tests.support.turns import (
    FENCE,
    Agent,
    fences,
    follow,
    is_whole,
    issue,
    now_ms,
    part,
    promote,
    replid,
    running_agent,
)
from tokens.token import mint

BEHIND_MS = 3000
DEFAULT_SKEW_MS = 2000
CLOSE_MS = 900
"""Between two clocks that are asked one after the other, on a slow machine."""


@pytest.fixture
def pair(place: Path) -> Iterator[tuple[Node, Node]]:
    """Give a primary, and its replica, whose clock is behind."""
    quick = ("--repl-diskless-sync-delay", "0")
    slow_clock = redis_that_is_behind(place, BEHIND_MS // 1000)
    with running_node(*quick) as primary, running_node(*quick, binary=slow_clock) as replica:
        follow(replica, primary)
        behind_ms = now_ms(primary) - now_ms(replica)
        assert abs(behind_ms - BEHIND_MS) < CLOSE_MS, "libfaketime works"
        yield primary, replica


@pytest.fixture
def address(place: Path, pair: tuple[Node, Node]) -> Iterator[RedisProxy]:
    """Give an address that leads to the primary, and can be made to lead elsewhere."""
    with RedisProxy(pair[0].server.socket, place) as proxy:
        yield proxy


def await_date(node: Node, expected_ms: int) -> None:
    """Wait until a server's fence is dated like that."""
    eventually(
        lambda: abs(fences(node).get(replid(node), 0) - expected_ms) < CLOSE_MS,
        f"the fence is dated {expected_ms}",
    )


def forget_date(node: Node) -> None:
    """Let whoever comes next date it, as if nobody had been there before."""
    with node.client() as client:
        client.hdel(FENCE, replid(node))


def test_a_replica_whose_clock_is_3_s_behind(
    pair: tuple[Node, Node], address: RedisProxy, place: Path
) -> None:
    """Who knew the old primary refuses what it issued, also when the new one's clock comes to that.

    Who never knew it allows for `clock_skew_ms` alone: all is well where that is longer than the
    clocks are apart, and nothing is promised where it is shorter. Without the fence, or without
    allowing for clocks, the same tokens are accepted a second time.
    """
    primary, replica = pair
    with ExitStack() as stack:

        def start(name: str, **store: object) -> Agent:
            agent = running_agent(address.url, place, name, **store)
            return stack.enter_context(agent)

        agents = {
            "old": start("old", clock_skew_ms=DEFAULT_SKEW_MS),
            "heedless": start("heedless", clock_skew_ms=DEFAULT_SKEW_MS, fence=False),
        }
        names = ("old", "heedless", "fresh", "narrow")
        tokens = dict(zip(names, issue(primary, len(names)), strict=True))
        issued_ms = now_ms(primary)
        part(primary, replica)
        assert [agents["old"].told(token) for token in tokens.values()] == ["ok"] * len(names)
        # This one has met the old primary, too: it is not for want of a clock that it is wrong.
        assert agents["heedless"].told(tokens["old"]) == "replayed"

        promote(replica)
        address.upstream = replica.server.socket
        address.cut()
        assert [agent.told(mint()) for agent in agents.values()] == ["unknown"] * 2
        await_date(replica, now_ms(primary) + DEFAULT_SKEW_MS)
        for name, skew_ms in (("narrow", 0), ("fresh", BEHIND_MS + 1000)):
            forget_date(replica)
            agents[name] = start(name, clock_skew_ms=skew_ms)
            await_date(replica, now_ms(replica) + skew_ms)

        with replica.client() as client:
            assert all(is_whole(client, token) for token in tokens.values())

        def told() -> dict[str, str]:
            return {name: agents[name].told(token) for name, token in tokens.items()}

        assert set(told().values()) == {"bad_record"}, "they are issued in the future"
        eventually(lambda: now_ms(replica) > issued_ms, "the clock has come to that")
        assert told() == {"old": "fenced", "heedless": "ok", "fresh": "fenced", "narrow": "ok"}
