"""The way to a cluster, over real ones: slots move, primaries fall, and no token counts twice."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
import uvloop

from tests.support.authority import Authority
from tests.support.doors import UNAVAILABLE, Door
from tests.support.stores import Keeper, run, running_store, settled, until
from tests.support.topologies import (
    Node,
    RunningCluster,
    falling_behind,
    running_cluster,
    valkey,
)
from tokens.check import Check
from tokens.policy import cut
from tokens.question import Question
from tokens.record import Keys
from tokens.store.slots import SLOTS, key_slot
from tokens.store.tls import TlsFiles
from tokens.store.wire import StoreUnavailable
from tokens.token import digest

FENCE = Keys().fence
USER = "user1"


@contextlib.asynccontextmanager
async def open_door(
    cluster: RunningCluster, client: redis.RedisCluster, **settings: object
) -> AsyncIterator[tuple[Keeper, Door]]:
    """Run a store; give it and its door when all primaries are in use."""
    async with running_store(cluster.url, **settings) as keeper:
        await until(lambda: len(keeper.observer.fences) >= 3, "all primaries are greeted")
        yield keeper, Door(keeper, client, tokens_per_call=1)


def slot_of(check: Check) -> int:
    return key_slot(Keys().token(digest(check.token)))


def calls(node: Node, command: str) -> int:
    """Count how often a node has run a command."""
    stats = node.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    assert isinstance(stats, dict)
    return int(stats["calls"])


@pytest.fixture
def client(shared_cluster: RunningCluster) -> Iterator[redis.RedisCluster]:
    with shared_cluster.client() as client:
        yield client


def test_tokens_of_all_slots(shared_cluster: RunningCluster, client: redis.RedisCluster) -> None:
    """A batch is spread over all primaries, answered in its order, and consumed once."""

    async def main() -> None:
        async with open_door(shared_cluster, client) as (_, door):
            users = [f"user{number}" for number in range(60)]
            checks = [door.issue(user) for user in users]
            assert await door.answers(*checks) == users
            assert await door.answers(*checks) == ["replayed"] * 60

    run(main(), uvloop.new_event_loop)
    assert all(calls(node, "evalsha") > 10 for node in shared_cluster.primaries)


def test_a_slot_moves_under_every_step_of_a_batch(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """While slots move, under load, each token is consumed once: none is lost, none is doubled."""
    asked = sum(calls(node, "asking") for node in shared_cluster.primaries)

    async def main() -> None:
        async with open_door(shared_cluster, client) as (keeper, door):
            is_over = asyncio.Event()
            load = asyncio.create_task(_load(door, is_over))
            for number in range(20):
                await _move_beneath(door, shared_cluster, at=number % 5)
            is_over.set()
            assert await load > 20
            assert keeper.observer.errors == []

    run(main())
    assert sum(calls(node, "asking") for node in shared_cluster.primaries) > asked


async def _move_beneath(door: Door, cluster: RunningCluster, at: int) -> None:
    """Move the slot of a token; knock with it after the step `at`, and again after each later."""
    check, early = door.issue(), door.issue()
    assert await door.answers(early) == [USER]
    slot = slot_of(check)
    owner = cluster.owner(slot)
    to = next(node for node in cluster.primaries if node is not owner)
    expected = USER
    for number, _ in enumerate(cluster.move(slot, to)):
        if number >= at:
            assert await door.answers(check, early) == [expected, "replayed"]
            expected = "replayed"
    assert await door.answers(check) == [expected]


async def _load(door: Door, is_over: asyncio.Event) -> int:
    """Consume tokens, each of them twice, until it is over; count them."""
    count = 0
    while not is_over.is_set():
        checks = [door.issue() for _ in range(4)]
        first, second = door.knock(*checks), door.knock(*checks)
        await settled(first, second)
        assert (first.answers, second.answers) == ([USER] * 4, ["replayed"] * 4)
        count += 4
    return count


def test_what_has_no_key_is_asked_of_anybody(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """TIME is answered by some primary; a batch may hold questions with and without a key."""

    async def main() -> None:
        async with open_door(shared_cluster, client) as (keeper, _):
            told = await keeper.ask((b"TIME",), Question(b"x", (b"GET", b"x")), (b"TIME",))
            first, value, last = told.replies
            assert isinstance(first, list)
            assert isinstance(last, list)
            assert value is None

    run(main())


def test_two_keys_that_are_apart_while_their_slot_moves(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """TRYAGAIN is obeyed: the command is run when the move is over, within the deadline."""
    one, two = b"{apart}1", b"{apart}2"
    slot = key_slot(one)

    async def main() -> None:
        async with open_door(shared_cluster, client, deadline_s=5.0) as (keeper, _):
            client.mset_nonatomic({one: b"1", two: b"2"})
            owner = shared_cluster.owner(slot)
            to = next(node for node in shared_cluster.primaries if node is not owner)
            steps = shared_cluster.move(slot, to)
            assert [next(steps), next(steps)] == ["importing", "migrating"]
            with owner.client() as source:
                source.execute_command("MIGRATE", "127.0.0.1", to.port, one, 0, 5000)
            both = keeper.execute(Question(one, (b"MGET", one, two)))
            await until(lambda: calls(owner, "mget") + _refused(owner) > 1, "several tries")
            assert not both.is_settled
            for _ in steps:
                pass
            await settled(both)
            assert both.replies == [[b"1", b"2"]]

    run(main())


def _refused(node: Node) -> int:
    """Count how often a node has said TRYAGAIN."""
    said = node.info("errorstats").get("errorstat_TRYAGAIN", {"count": 0})
    assert isinstance(said, dict)
    return int(said["count"])


def test_a_slot_that_nobody_serves(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """Its tokens are unavailable, those of other slots are not, and it heals by itself."""

    async def main() -> None:
        async with open_door(shared_cluster, client) as (_, door):
            check, other = door.issue(), door.issue()
            slot = slot_of(check)
            with shared_cluster.owner(slot).client() as owner:
                owner.execute_command("CLUSTER", "DELSLOTS", slot)
                assert await door.answers(check, other) == [UNAVAILABLE, USER]
                owner.execute_command("CLUSTER", "ADDSLOTS", slot)
            assert await door.answers(check, other) == [USER, "replayed"]

    run(main())


@pytest.mark.parametrize("setting", ["maxmemory", "min-replicas-to-write"])
def test_a_primary_that_takes_no_writes_is_named(
    shared_cluster: RunningCluster,
    client: redis.RedisCluster,
    caplog: pytest.LogCaptureFixture,
    setting: str,
) -> None:
    """That one primary refuses writes is said once; it is not up, and the others go on."""

    async def main() -> str:
        async with open_door(shared_cluster, client) as (keeper, door):
            check = door.issue()
            owner = shared_cluster.owner(slot_of(check))
            with owner.client() as direct:
                direct.config_set(setting, 1)
                try:
                    assert await door.answers(check) == [UNAVAILABLE]
                    assert await door.answers(check) == [UNAVAILABLE]
                finally:
                    direct.config_set(setting, 0)
            assert not keeper.observer.is_up
            assert await door.answers(check) == [USER]
            await keeper.up(2, skipping_s=0.1)
            return owner.host

    host = run(main())
    [line] = caplog.messages
    assert line.startswith("store unavailable in part: one of ")
    assert host in line


def test_a_user_who_may_not_run_the_probe_of_a_cluster(
    shared_cluster: RunningCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A primary that refuses the script is never up, whether or not it has the revocations."""
    allowed = ("ACL", "SETUSER", "agent", "on", ">secret", "~kat:*", "+@all", "-evalsha")
    for node in shared_cluster.primaries:
        with node.client() as direct:
            direct.execute_command(*allowed)

    async def main() -> None:
        url = shared_cluster.url.replace("//", "//agent:secret@")
        async with running_store(url, probe=cut.ask(Keys().cut, cut.Cut())) as keeper:
            await until(lambda: len(keeper.observer.errors) > 5, "tries", skipping_s=0.1)
            assert set(keeper.observer.errors) == {"auth"}
            assert not keeper.observer.ups
            for node in shared_cluster.primaries:
                with node.client() as direct:
                    direct.execute_command("ACL", "SETUSER", "agent", "+evalsha")
            await keeper.up(skipping_s=0.1)

    run(main())
    for node in shared_cluster.primaries:
        [line] = [line for line in caplog.messages if node.host in line]
        assert "NOPERM" in line
        assert line.endswith("Least privilege")


def test_a_slot_that_everybody_says_is_anothers(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """Two primaries that send us to each other are not asked forever."""

    async def main() -> None:
        async with open_door(shared_cluster, client, deadline_s=60.0) as (_, door):
            check = door.issue()
            slot = slot_of(check)
            node = shared_cluster.owner(slot)
            other = next(one for one in shared_cluster.primaries if one is not node)
            with node.client() as owner, other.client() as of_other:
                names = [one.execute_command("CLUSTER", "MYID") for one in (owner, of_other)]
                # Or it could not be given away. Other tests may have left some there.
                for key in owner.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
                    client.delete(key)
                owner.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])
                assert await door.answers(check) == [UNAVAILABLE]
                owner.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[0])
            assert await door.answers(check) == ["unknown"]

    run(main())


def test_a_primary_that_a_redirection_leads_to_and_that_is_silent(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """What waits for a primary to be greeted is settled at its deadline."""

    async def main() -> None:
        async with open_door(shared_cluster, client, deadline_s=0.2) as (keeper, _):
            with socket.create_server(("127.0.0.1", 0)) as silent:
                to = f"MOVED 1 127.0.0.1:{silent.getsockname()[1]}"
                script = b"return redis.error_reply(ARGV[1])"
                lost = Question(b"x", (b"EVAL", script, b"1", b"x", to.encode()))
                fine = Question(b"x", (b"ECHO", b"here"))
                told = await keeper.ask(lost, fine)
                unavailable, here = told.replies
                assert isinstance(unavailable, StoreUnavailable)
                assert unavailable.kind == "timeout"
                assert here == b"here"

    run(main())


# A cluster that loses primaries.


@pytest.fixture(scope="module")
def with_replicas() -> Iterator[RunningCluster]:
    with running_cluster(replicas=True) as cluster:
        yield cluster


def _shard(cluster: RunningCluster, node: Node) -> Node:
    """Return the replica of a primary."""
    return cluster.replicas[cluster.primaries.index(node)]


def _of(door: Door, cluster: RunningCluster, node: Node, *, is_in: bool) -> Check:
    """Issue a token whose slot this primary has, or has not."""
    while True:
        check = door.issue()
        if (cluster.owner(slot_of(check)) is node) == is_in:
            return check


def _take_over(replica: Node, *how: str) -> None:
    with replica.client() as client:
        client.execute_command("CLUSTER", "FAILOVER", *how)


def test_a_switched_primary_is_followed_on_the_same_connections(
    with_replicas: RunningCluster,
) -> None:
    """A replica takes over in good order, and all that was issued before is fenced, everywhere."""
    old = with_replicas.primaries[2]
    new = _shard(with_replicas, old)

    async def main(client: redis.RedisCluster) -> None:
        async with open_door(with_replicas, client) as (keeper, door):
            here = [_of(door, with_replicas, old, is_in=True) for _ in range(2)]
            there = _of(door, with_replicas, old, is_in=False)
            assert await door.answers(here[0]) == [USER]
            _take_over(new)
            await until(lambda: new.info()["role"] == "master", "the switch")
            await until(lambda: len(keeper.observer.fences) > 3, "the new primary is greeted")
            assert await door.answers(*here, there) == ["replayed", "fenced", "fenced"]
            fresh = [_of(door, with_replicas, new, is_in=True), door.issue(), door.issue()]
            assert await door.answers(*fresh) == [USER] * 3

    with with_replicas.client() as client:
        run(main(client))


@pytest.mark.parametrize(("shard", "is_fenced"), [(0, True), (1, False)])
def test_a_primary_that_falls_takes_only_its_own_slots_down(
    with_replicas: RunningCluster,
    shard: int,
    is_fenced: bool,  # noqa: FBT001 - a case
) -> None:
    """The others go on; a replica that misses a consume takes over, and the fence refuses it.

    It counts as up with all of them only. Without the fence the same token is accepted a second
    time.
    """
    # Without the primary of the revocations, the third one, nothing can be decided anywhere.
    assert key_slot(Keys().cut) in range(10923, SLOTS)
    old = with_replicas.primaries[shard]
    old_token = "fenced" if is_fenced else USER
    new = _shard(with_replicas, old)

    async def main(client: redis.RedisCluster) -> None:
        async with open_door(with_replicas, client, is_fenced=is_fenced) as (keeper, door):
            check = _of(door, with_replicas, old, is_in=True)
            consumed, lost = [_of(door, with_replicas, old, is_in=True) for _ in range(2)]
            there = [_of(door, with_replicas, old, is_in=False) for _ in range(2)]
            assert await door.answers(consumed) == [USER]
            with falling_behind(old, new):
                assert await door.answers(lost) == [USER]
                old.kill()
            await until(lambda: "closed" in keeper.observer.errors, "the loss is noticed")
            assert await door.answers(check, there[0]) == [UNAVAILABLE, USER]
            assert not keeper.observer.is_up, "a third of all requests fails"
            (time,) = (await keeper.ask((b"TIME",))).replies
            assert isinstance(time, list), "any primary knows the time"
            # The hash of the fences is on the dead one; who is known may come back without it.
            met = len(keeper.observer.fences)
            with with_replicas.owner(slot_of(there[1])).client() as of_other:
                of_other.client_kill_filter(_type="normal")
            await until(lambda: len(keeper.observer.fences) > met, "it is greeted again")
            _take_over(new, "TAKEOVER")
            met = len(keeper.observer.fences)
            await until(lambda: len(keeper.observer.fences) > met, "the new primary is greeted")
            answers = await door.answers(check, consumed, lost, there[1])
            assert answers == [old_token, "replayed", old_token, old_token]
            with with_replicas.client() as later:
                again = Door(keeper, later, tokens_per_call=1)
                fresh = [_of(again, with_replicas, new, is_in=True), again.issue(), again.issue()]
                assert await again.answers(*fresh) == [USER] * 3

    with with_replicas.client() as client:
        run(main(client))


def test_the_fence_has_a_date_of_every_primary(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """Each primary is dated once, in one hash; the latest date counts for all of them."""

    async def main() -> None:
        client.delete(FENCE)
        for _ in range(2):
            async with open_door(shared_cluster, client) as (keeper, _):
                dates = client.hgetall(FENCE)
                replids = {node.info()["master_replid"] for node in shared_cluster.primaries}
                assert {name.decode() for name in dates} == replids
                latest = max(map(int, dates.values()))
                assert max(fence.since_ms for fence in keeper.observer.fences) == latest
        late = latest + 60_000
        client.hset(FENCE, "a primary that another worker met", late)
        async with open_door(shared_cluster, client) as (keeper, door):
            assert {fence.since_ms for fence in keeper.observer.fences} == {late}
            assert await door.answers(*[door.issue() for _ in range(20)]) == ["fenced"] * 20
        async with open_door(shared_cluster, client, is_fenced=False) as (_, door):
            assert await door.answers(door.issue(), door.issue()) == [USER] * 2
        client.delete(FENCE)

    run(main())


def test_a_later_date_raises_the_fence_of_primaries_in_use(
    shared_cluster: RunningCluster, client: redis.RedisCluster
) -> None:
    """What one primary is dated with counts at once for those that were greeted long before."""

    async def main() -> None:
        client.delete(FENCE)
        async with open_door(shared_cluster, client) as (keeper, door):
            checks = [door.issue() for _ in range(30)]
            client.hset(FENCE, "a primary that another worker met", 2**45)
            one = shared_cluster.primaries[0]
            with one.client() as of_one:
                of_one.client_kill_filter(_type="normal")
            await until(lambda: len(keeper.observer.fences) > 3, "it is greeted again")
            assert await door.answers(*checks) == ["fenced"] * 30
        client.delete(FENCE)

    run(main())


# A cluster that cannot be reached, and others.


def test_a_cluster_that_is_not_there() -> None:
    """Nobody waits for it, its loss is counted, and it is used as soon as it can be."""

    async def main() -> None:
        async with running_store("redis+cluster://127.0.0.1:1") as keeper:
            await until(lambda: keeper.observer.errors, "the first failure")
            assert keeper.observer.errors[0] == "connect"
            assert keeper.execute((b"TIME",)).fault.kind == "connect"
            assert not keeper.observer.is_up

    run(main())


def test_a_cluster_that_was_not_there_yet(shared_cluster: RunningCluster) -> None:
    """A seed that is dead is passed over for one that lives."""

    async def main() -> None:
        url = shared_cluster.url.replace("//", "//127.0.0.1:1,")
        async with running_store(url) as keeper:
            await keeper.up()
            assert len((await keeper.ask((b"TIME",))).replies) == 1

    run(main())


def test_a_cluster_over_tls(authority: Authority, server_files: TlsFiles) -> None:
    """Discovery and every connection speak TLS, and verify."""

    async def main(cluster: RunningCluster) -> None:
        for files, is_up in ((TlsFiles(authority.ca_file), True), (TlsFiles(), False)):
            async with running_store(cluster.url, tls=files) as keeper:
                await until(lambda: len(keeper.observer.fences) >= 3 or keeper.observer.errors)
                assert keeper.observer.is_up == is_up

    with running_cluster(tls=server_files) as cluster:
        run(main(cluster))


def test_a_cluster_of_valkeys_that_grows() -> None:
    """Valkey's answers are understood; a primary that joins is entered when slots move to it."""

    async def main(cluster: RunningCluster, client: redis.RedisCluster) -> None:
        async with open_door(cluster, client) as (keeper, door):
            checks = [door.issue() for _ in range(30)]
            assert await door.answers(*checks) == [USER] * 30
            assert await door.answers(*checks) == ["replayed"] * 30
            with cluster.joined_by(binary=valkey()) as new:
                check, early = door.issue(), door.issue()
                assert await door.answers(early) == [USER]
                # The new primary is dated by its first greeting, and that date counts.
                for step in cluster.move(slot_of(check), new):
                    if step == "migrated":
                        assert await door.answers(check, early) == ["fenced", "replayed"]
                assert len(keeper.observer.fences) == 4
                assert await door.answers(check, early) == ["fenced", "replayed"]
                with new.client() as of_new:
                    assert of_new.exists(Keys().token(digest(check.token)))

    with running_cluster(binary=valkey()) as cluster, cluster.client() as client:
        run(main(cluster, client))
