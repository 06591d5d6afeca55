"""What Sentinels lead to, over real ones: a failover is followed, whoever is missing."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.authority import Authority
from tests.support.doors import UNAVAILABLE, Door
from tests.support.stores import run, running_store, until
from tests.support.topologies import (
    Watched,
    await_replicas,
    falling_behind,
    running_sentinels,
    valkey,
)
from tokens.check import Check
from tokens.store.client import connect
from tokens.store.sentinel import Sentinels
from tokens.store.tls import TlsFiles
from tokens.store.url import SentinelUrl, parse_store_url
from tokens.store.wire import StoreUnavailable

USER = "user1"


@pytest.fixture
def watched() -> Iterator[Watched]:
    with running_sentinels(replicas=1) as watched:
        yield watched


@pytest.mark.parametrize("is_fenced", [True, False])
def test_a_failover_under_load(watched: Watched, is_fenced: bool) -> None:  # noqa: FBT001 - a case
    """The promoted replica is followed without a restart; a consume that it missed is fenced.

    Without the fence the same token is accepted a second time.
    """
    old_token = "fenced" if is_fenced else USER
    [replica] = watched.replicas

    async def main() -> None:
        with watched.primary.client() as client:
            async with running_store(watched.url, is_fenced=is_fenced) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check, consumed, lost = (door.issue() for _ in range(3))
                pool = [door.issue() for _ in range(20)]
                assert await door.answers(consumed) == [USER]
                with falling_behind(watched.primary, replica):
                    assert await door.answers(lost) == [USER]
                    watched.primary.kill()
                watched.sentinels[0].kill()
                is_over = asyncio.Event()
                load = asyncio.create_task(_load(door, pool, is_over))
                await until(lambda: len(keeper.observer.fences) > 1, "the replica is greeted")
                answers = await door.answers(check, consumed, lost)
                assert answers == [old_token, "replayed", old_token]
                with connect(watched.url) as promoted:
                    again = Door(keeper, promoted)
                    assert await again.answers(again.issue()) == [USER]
                is_over.set()
                seen = await load
                assert max(seen[token, USER] for token in range(20)) == (0 if is_fenced else 1)
                assert {answer for _, answer in seen} <= {
                    *(UNAVAILABLE, "fenced", "replayed", USER)
                }

    run(main())


async def _load(door: Door, pool: list[Check], is_over: asyncio.Event) -> Counter[tuple[int, str]]:
    """Knock with all tokens of a pool, over and over; count each token's answers."""
    seen: Counter[tuple[int, str]] = Counter()
    while not is_over.is_set() or (0, UNAVAILABLE) not in seen:
        seen.update(enumerate(await door.answers(*pool)))
        await asyncio.sleep(0)
    seen.update(enumerate(await door.answers(*pool)))
    return seen


def test_a_switched_primary_is_followed_on_the_same_connection(watched: Watched) -> None:
    """An old primary that goes on as if nothing had happened is left for the new one."""

    async def main() -> None:
        with watched.primary.client() as client:
            async with running_store(watched.url) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                before = door.issue()
                await_replicas(watched.primary, 1)
                # Sentinels take ten seconds to turn it into a replica; here they never can.
                client.execute_command("ACL", "SETUSER", "default", "-slaveof", "-replicaof")
                watched.fail_over()
                await until(lambda: len(keeper.observer.fences) > 1, "the replica is greeted")
                assert watched.replicas[0].info()["role"] == "master"
                assert await door.answers(before) == ["fenced"]
                assert watched.primary.info()["role"] == "master"

    run(main())


# Asking Sentinels.


def _locate(sentinels: Sentinels, times: int = 1) -> list[int]:
    async def main() -> list[int]:
        try:
            return [(await sentinels.locate()).port for _ in range(times)]
        finally:
            await sentinels.close()

    return run(main())


def _sentinels(url: str, tls: TlsFiles | None = None) -> Sentinels:
    parsed = parse_store_url(url)
    assert isinstance(parsed, SentinelUrl)
    return Sentinels(parsed, tls or TlsFiles())


def test_the_next_sentinel_answers(watched: Watched) -> None:
    """Two of three may be dead or asleep, and the way is still found; with none it is said so."""
    port = watched.primary.port
    sentinels = _sentinels(watched.url)
    assert _locate(sentinels) == [port]
    watched.sentinels[0].kill()
    watched.sentinels[1].process.send_signal(signal.SIGSTOP)
    assert _locate(sentinels, times=2) == [port] * 2
    watched.sentinels[2].kill()
    watched.sentinels[1].kill()
    with pytest.raises(StoreUnavailable, match=r"nobody names a primary of tokens of the Sent"):
        _locate(sentinels)


def test_a_service_that_nobody_watches(watched: Watched) -> None:
    """The name of the service is in the sentence, and nothing of the credentials."""
    url = watched.url.replace("//", "//u:hunter2@").replace("/tokens", "/elsewhere")
    with pytest.raises(StoreUnavailable, match="primary of elsewhere") as caught:
        _locate(_sentinels(url))
    assert "hunter2" not in str(caught.value)


def test_sentinels_ask_for_their_own_password(watched: Watched) -> None:
    """The Sentinels' password is not the servers', and a wrong one finds nobody."""
    for sentinel in watched.sentinels:
        with sentinel.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "resetpass", ">sesame")
    good = f"{watched.url}?sentinel_password=sesame"
    assert _locate(_sentinels(good)) == [watched.primary.port]
    with pytest.raises(StoreUnavailable) as caught:
        _locate(_sentinels(f"{watched.url}?sentinel_password=hunter2"))
    assert "hunter2" not in str(caught.value)


def test_sentinels_over_tls(authority: Authority, server_files: TlsFiles) -> None:
    """Sentinels and primary are reached over TLS, and both are verified."""

    async def main(watched: Watched) -> None:
        async with running_store(watched.url, tls=TlsFiles(authority.ca_file)) as keeper:
            await keeper.up()
            with watched.primary.client() as client:
                door = Door(keeper, client)
                assert await door.answers(door.issue()) == [USER]
        async with running_store(watched.url) as keeper:
            await until(lambda: keeper.observer.errors, "the refusal")
            assert not keeper.observer.is_up

    with running_sentinels(replicas=0, tls=server_files) as watched:
        run(main(watched))


def test_sentinels_of_valkey() -> None:
    """Valkey's Sentinels lead to a Valkey."""

    async def main(watched: Watched) -> None:
        async with running_store(watched.url) as keeper:
            await keeper.up()
            with watched.primary.client() as client:
                door = Door(keeper, client)
                assert await door.answers(door.issue()) == [USER]

    with running_sentinels(replicas=0, binary=valkey()) as watched:
        run(main(watched))
