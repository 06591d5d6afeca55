"""IP grants: grant.lua on a real Redis, and what may be granted at all."""

import json
import subprocess
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.support.redis import RedisServer
from tokens.address import candidates
from tokens.policy.grant import (
    SCRIPT,
    SHA,
    networks_around,
    open_grant,
    read_grantable,
    read_member,
    write_end,
    write_end_of_all,
)
from tokens.question import Command, Question
from tokens.record import Keys

KEYS = Keys()
GRANTS, META = KEYS.grants(b"tcp"), KEYS.grants_meta(b"tcp")
HOUR_MS = 3_600_000
MEMBER = b"192.0.2.7"


class Writer:
    """Sends what the pure words say, and sees what readers see."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        assert client.script_load(SCRIPT).encode() == SHA

    def ask(self, asked: Question | Command) -> int:
        command = asked.head if isinstance(asked, Question) else asked
        reply = self.client.execute_command(*command)  # type: ignore[no-untyped-call]
        assert isinstance(reply, int)
        return reply

    def open(
        self,
        member: bytes = MEMBER,
        user: bytes = b"user1",
        *,
        ttl_ms: int = HOUR_MS,
        by: bytes = b"kid:0123456789ab",
    ) -> int:
        return self.ask(open_grant(KEYS, b"tcp", member, user, by, ttl_ms))

    def end(self, field: bytes = b"", value: bytes = b"") -> int:
        return self.ask(write_end(KEYS, b"tcp", field, value, [MEMBER]))

    def owners(self) -> list[object]:
        """Name whose claims a reader of the meta finds, the longest first."""
        held: Any = self.holder()
        return [held.get("sub"), *(one.get("sub") for one in held.get("also", []))]

    def ends(self, member: bytes = MEMBER) -> float | None:
        (score,) = self.client.zmscore(GRANTS, [member])
        return score

    def holder(self, member: bytes = MEMBER) -> dict[str, object]:
        raw = self.client.hget(META, member)
        assert isinstance(raw, bytes)
        held: dict[str, object] = json.loads(raw)
        return held

    def now_ms(self) -> int:
        seconds, micros = self.client.time()
        return seconds * 1000 + micros // 1000


@pytest.fixture
def writer(client: redis.Redis) -> Writer:
    return Writer(client)


def test_a_grant_stands_for_its_time(writer: Writer) -> None:
    """The score is now + ttl by Redis's clock, the answer says so, the meta says whose it is."""
    before = writer.now_ms()
    ends = writer.open()
    after = writer.now_ms()
    assert before + HOUR_MS <= ends <= after + HOUR_MS
    assert writer.ends() == ends
    held = writer.holder()
    assert held == {"sub": "user1", "by": "kid:0123456789ab", "iat": ends - HOUR_MS}
    assert sorted(writer.client.keys()) == sorted([GRANTS, META])


def test_a_question_is_asked_where_its_keys_are() -> None:
    """Both keys have the hash tag of the key that a cluster routes by."""
    question = open_grant(KEYS, b"tcp", MEMBER, b"u", b"b", 1)
    assert question.key == b"kat:grants:{tcp}"
    assert question.head[:5] == (b"EVALSHA", SHA, b"2", GRANTS, META)
    assert META == GRANTS + b":meta"


def test_a_grant_is_never_shortened(writer: Writer) -> None:
    """A shorter second grant changes nothing, and the answer is the first one's end."""
    first = writer.open()
    assert writer.open(user=b"user2", ttl_ms=1000) == first
    assert writer.ends() == first
    # Else revoking user1 would leave what was opened for him.
    assert writer.holder()["sub"] == "user1"


def test_a_longer_grant_takes_over(writer: Writer) -> None:
    """A longer second grant counts, and belongs to the second user."""
    first = writer.open()
    second = writer.open(user=b"user2", ttl_ms=2 * HOUR_MS)
    assert writer.ends() == second > first
    assert writer.holder()["sub"] == "user2"


@pytest.mark.parametrize("second_ttl_ms", [HOUR_MS // 2, 2 * HOUR_MS])
@pytest.mark.parametrize("field", [b"sub", b"by"])
@pytest.mark.parametrize("leaver", [b"1", b"2"])
def test_an_owner_leaves_what_others_claim(
    writer: Writer, second_ttl_ms: int, field: bytes, leaver: bytes
) -> None:
    """Ending the claim of one leaves the grant until that of the other ends, in either order."""
    ends = {
        b"1": writer.open(user=b"user1", by=b"kid:1"),
        b"2": writer.now_ms() + second_ttl_ms,
    }
    writer.open(user=b"user2", by=b"kid:2", ttl_ms=second_ttl_ms)
    stayer = b"12".replace(leaver, b"")
    assert writer.end(field, (b"user" if field == b"sub" else b"kid:") + leaver) == 1
    assert writer.ends() == pytest.approx(ends[stayer], abs=10_000)
    assert writer.holder()["sub"] == f"user{stayer.decode()}"
    assert writer.holder().keys() == {"sub", "by", "iat"}
    assert writer.end(b"sub", b"user" + leaver) == 0
    assert writer.end(b"sub", b"user" + stayer) == 1
    assert writer.client.keys() == []


def test_a_claim_within_a_longer_one_is_kept(writer: Writer) -> None:
    """A shorter claim has an end of its own in the meta, and changes nothing for readers."""
    first = writer.open()
    before = writer.now_ms()
    assert writer.open(user=b"user2", by=b"root", ttl_ms=1000) == first
    held: Any = writer.holder()
    (other,) = held.pop("also")
    assert held == {"sub": "user1", "by": "kid:0123456789ab", "iat": first - HOUR_MS}
    assert other.pop("iat") == other.pop("end") - 1000 >= before
    assert other == {"sub": "user2", "by": "root"}


def test_a_claim_made_twice_is_one(writer: Writer) -> None:
    """Of two with the same user and opener the longer one counts; another opener's is another."""
    writer.open(ttl_ms=HOUR_MS)
    writer.open(ttl_ms=2 * HOUR_MS)
    writer.open(ttl_ms=1000)
    assert "also" not in writer.holder()
    writer.open(by=b"root")
    assert writer.owners() == ["user1", "user1"]
    assert writer.end(b"by", b"kid:0123456789ab") == 1
    assert writer.holder()["by"] == "root"


def test_only_so_many_claims_are_kept(writer: Writer) -> None:
    """Of more than 16 the one that ends first makes room, and the longest stays."""
    for number in range(20):
        writer.open(user=b"user%d" % number, ttl_ms=HOUR_MS + 1000 * number)
    assert writer.owners() == [f"user{number}" for number in range(19, 3, -1)]
    writer.open(user=b"late", ttl_ms=1)
    assert "late" not in writer.owners()
    assert writer.ends() == writer.open(user=b"user19", ttl_ms=1)


def test_a_claim_that_is_over_is_trimmed(writer: Writer) -> None:
    """It is gone with the next change, and whoever made it holds nothing."""
    held = {"sub": "user1", "by": "a", "iat": 1}
    over = {"sub": "user2", "by": "a", "iat": 1, "end": writer.now_ms() - 1}
    writer.client.zadd(GRANTS, {MEMBER: writer.now_ms() + HOUR_MS})
    writer.client.hset(META, MEMBER, json.dumps({**held, "also": [over]}))
    assert writer.end(b"sub", b"user2") == 0
    writer.open(user=b"user3", ttl_ms=1000)
    assert writer.owners() == ["user1", "user3"]


@pytest.mark.parametrize(
    "also", ["x", 7, None, {}, {"end": 1}, [7], [[]], [{}], [{"end": "x"}], [{"end": None}]]
)
def test_claims_that_nobody_can_read_are_none(writer: Writer, also: object) -> None:
    """What another program wrote there keeps no grant open, and breaks nothing."""
    writer.client.zadd(GRANTS, {MEMBER: writer.now_ms() + HOUR_MS})
    writer.client.hset(META, MEMBER, json.dumps({"sub": "user1", "also": also}))
    assert writer.end(b"sub", b"user1") == 1
    assert writer.client.keys() == []


@pytest.mark.parametrize("end", ["1e999", "9007199254740993", "1e300"])
def test_no_claim_outlives_its_grant(writer: Writer, end: str) -> None:
    """Ending the first claim never lets an address in for longer than it was."""
    ends = writer.now_ms() + HOUR_MS
    writer.client.zadd(GRANTS, {MEMBER: ends})
    writer.client.hset(META, MEMBER, f'{{"sub":"a","also":[{{"sub":"b","end":{end}}}]}}')
    assert writer.end(b"sub", b"a") == 1
    assert writer.ends() == ends
    assert writer.owners() == ["b"]


def test_what_has_no_owner_is_a_claim(writer: Writer) -> None:
    """A grant by a plain ZADD is what it was when a user who extended it is gone."""
    ends = writer.now_ms() + HOUR_MS
    writer.client.zadd(GRANTS, {MEMBER: ends})
    writer.open(ttl_ms=2 * HOUR_MS)
    assert writer.end(b"sub", b"user1") == 1
    assert writer.ends() == ends


def test_what_is_left_of_an_old_grant_claims_nothing(writer: Writer) -> None:
    """Who was in the meta of a member that another program removed has no part in a new one."""
    writer.open(user=b"user1", ttl_ms=2 * HOUR_MS)
    writer.client.zrem(GRANTS, MEMBER)
    writer.open(user=b"user2")
    assert writer.owners() == ["user2"]


def test_a_full_redis_lets_a_claim_end(writer: Writer) -> None:
    """What takes back needs no memory that Redis does not give, also where others' claims stay."""
    first = writer.open()
    writer.open(user=b"user2", ttl_ms=2 * HOUR_MS)
    writer.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            writer.open(b"10.0.0.1")
        assert writer.end(b"sub", b"user2") == 1
        assert writer.ends() == first
        assert writer.end(b"sub", b"user1") == 1
    finally:
        writer.client.config_set("maxmemory", 0)
    assert writer.client.keys() == []


def test_who_mirrors_grants_hears_of_a_shorter_end(writer: Writer) -> None:
    """A claim that ends is published; one within a longer claim changes nothing, and is not."""
    with writer.client.pubsub() as listener:
        listener.subscribe("kat:grants")
        assert listener.get_message(timeout=5)
        writer.open()
        writer.open(user=b"user2", ttl_ms=1000)
        writer.end(b"sub", b"user1")
        writer.client.publish("kat:grants", "end")
        heard = [listener.get_message(timeout=5) for _ in range(3)]
    assert [message["data"] for message in heard if message] == [b"tcp", b"tcp", b"end"]


def test_a_grant_without_end_stays(writer: Writer) -> None:
    """What another program granted for ever is not shortened, and the answer is a number."""
    writer.client.zadd(GRANTS, {MEMBER: float("inf")})
    assert writer.open() == 2**53
    assert writer.ends() == float("inf")


def test_what_is_over_is_opened_anew(writer: Writer) -> None:
    """An expired grant that nobody has trimmed does not stand in the way of a new one."""
    writer.client.zadd(GRANTS, {MEMBER: writer.now_ms() - 1})
    assert writer.ends() != writer.open() == writer.ends()


@pytest.mark.parametrize("user", [b'"}', b"a\\b/c", "j\u00f6rg \U0001f600".encode(), b"x" * 128])
def test_any_user_is_held_as_he_is_called(writer: Writer, user: bytes) -> None:
    """The meta is JSON whatever the user's name holds."""
    writer.open(user=user)
    assert writer.holder()["sub"] == user.decode()


def test_what_is_over_is_trimmed(writer: Writer) -> None:
    """Opening one removes expired members and their meta, a hundred at a time, and nothing else."""
    now_ms = writer.now_ms()
    for number in range(150):
        member = f"10.0.0.{number}"
        writer.client.zadd(GRANTS, {member: now_ms - 1000 + number})
        writer.client.hset(META, member, "{}")
    writer.client.zadd(GRANTS, {"10.1.1.1": now_ms + HOUR_MS})
    writer.client.hset(META, "10.1.1.1", "{}")
    writer.open()
    assert writer.client.zcard(GRANTS) == writer.client.hlen(META) == 50 + 2
    writer.open()
    assert set(writer.client.zrange(GRANTS, 0, -1)) == {b"10.1.1.1", MEMBER}
    assert set(writer.client.hkeys(META)) == {b"10.1.1.1", MEMBER}
    assert writer.client.ttl(GRANTS) == writer.client.ttl(META) == -1


def test_who_mirrors_grants_is_told(writer: Writer) -> None:
    """Each change is published with its ACL; what changes nothing is not."""
    with writer.client.pubsub() as listener:
        listener.subscribe("kat:grants")
        assert listener.get_message(timeout=5)
        writer.open()
        writer.open(ttl_ms=1)
        writer.end()
        writer.end()
        writer.client.publish("kat:grants", "end")
        heard = [listener.get_message(timeout=5) for _ in range(3)]
    assert [message["data"] for message in heard if message] == [b"tcp", b"tcp", b"end"]


def test_an_ended_grant_is_gone(writer: Writer) -> None:
    """Ending one removes member and meta; the answer says whether it stood."""
    writer.open()
    assert writer.end() == 1
    assert writer.end() == 0
    assert writer.client.keys() == []


def test_a_grant_is_ended_for_its_holder_alone(writer: Writer) -> None:
    """With a user, another one's grant of the same address stands."""
    writer.open(user=b"user1")
    assert writer.end(b"sub", b"user2") == 0
    assert writer.ends()
    assert writer.end(b"sub", b"user1") == 1
    assert writer.client.keys() == []


@pytest.mark.parametrize("meta", [None, "", "junk", "[1]", "7", "null", '{"sub":7}', "[" * 9999])
def test_a_grant_of_unknown_holder_is_nobodys(writer: Writer, meta: str | None) -> None:
    """What another program wrote without a readable holder is ended only for whoever it is."""
    writer.client.zadd(GRANTS, {MEMBER: writer.now_ms() + HOUR_MS})
    if meta is not None:
        writer.client.hset(META, MEMBER, meta)
    assert writer.end(b"sub", b"user1") == 0
    assert writer.end() == 1


def test_several_grants_end_at_once(writer: Writer) -> None:
    """Of several members those that are held so end, and those that stood are counted."""
    writer.open(b"10.0.0.1", b"user1")
    writer.open(b"10.0.0.2", b"user2")
    writer.client.zadd(GRANTS, {"10.0.0.3": 1})
    writer.client.hset(META, "10.0.0.3", '{"sub":"user1"}')
    members = [b"10.0.0.1", b"10.0.0.2", b"10.0.0.3", b"10.0.0.4"]
    assert writer.ask(write_end(KEYS, b"tcp", b"sub", b"user1", members)) == 1
    assert writer.client.zrange(GRANTS, 0, -1) == [b"10.0.0.2"]
    assert writer.client.hkeys(META) == [b"10.0.0.2"]


def test_all_grants_of_an_acl_end_at_once(writer: Writer) -> None:
    """Both keys go; what was over already is not counted; other ACLs are left alone."""
    writer.open(b"10.0.0.1")
    writer.open(b"10.0.0.2")
    writer.client.zadd(GRANTS, {"10.0.0.3": 1})
    writer.client.zadd(KEYS.grants(b"other"), {MEMBER: 2**52})
    assert writer.ask(write_end_of_all(KEYS, b"tcp")) == 2
    assert writer.client.keys() == [KEYS.grants(b"other")]


@pytest.mark.parametrize("ttl_ms", [0, -1, 30 * 86_400_000 + 1])
def test_a_ttl_that_cannot_be_opens_nothing(writer: Writer, ttl_ms: int) -> None:
    """A grant ends, and before its revocation is forgotten."""
    with pytest.raises(redis.ResponseError, match="KATARGS"):
        writer.open(ttl_ms=ttl_ms)
    assert writer.client.keys() == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("open", "c", "tcp", "10.0.0.1", "1", "u"),
        ("open", "c", "tcp", "10.0.0.1", "x", "u", "b"),
        ("open", "c", "tcp", "10.0.0.1", "nan", "u", "b"),
        ("end", "c", "tcp", "sub"),
        ("end", "c", "tcp", "sub", "user1"),
        ("other", "c", "tcp", "", ""),
    ],
)
def test_wrong_words_change_nothing(writer: Writer, words: tuple[str, ...]) -> None:
    """A call that is not understood is an error, above all one that could end too much."""
    ends = writer.open()
    with pytest.raises(redis.ResponseError, match="KATARGS"):
        writer.client.eval(SCRIPT.decode(), 2, GRANTS, META, *words)
    assert writer.ends() == ends


@pytest.mark.parametrize("key", [GRANTS, META])
def test_no_grant_stands_that_nobody_could_find(writer: Writer, key: bytes) -> None:
    """A key of another type is an error, and no member is left without its holder."""
    writer.client.set(key, "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        writer.open()
    assert writer.client.exists(GRANTS, META) == 1


def test_by_hand_is_as_good(writer: Writer, redis_server: RedisServer) -> None:
    """MULTI, ZADD, HSET, PUBLISH from redis-cli is a grant that our writers extend and end."""
    ends = writer.now_ms() + 60_000
    held = r'"{\"sub\":\"user1\",\"by\":\"portal\",\"iat\":1}"'
    lines = (
        "MULTI",
        f"ZADD kat:grants:{{tcp}} {ends} 192.0.2.7",
        f"HSET kat:grants:{{tcp}}:meta 192.0.2.7 {held}",
        "PUBLISH kat:grants tcp",
        "EXEC",
    )
    subprocess.run(
        ["redis-cli", "-e", "-s", redis_server.socket],
        input="\n".join(lines),
        text=True,
        check=True,
        capture_output=True,
        timeout=30,
    )
    assert writer.open(ttl_ms=1000) == ends
    assert writer.holder()["by"] == "portal"
    longer = writer.open(ttl_ms=HOUR_MS)
    assert writer.ends() == longer
    writer.client.zadd(GRANTS, {"192.0.2.8": ends})
    assert writer.client.zscore(GRANTS, "192.0.2.8") == ends
    assert writer.end(b"sub", b"user1") == 1


MEMBERS = {
    "192.0.2.7": "192.0.2.7",
    "192.0.2.7/32": "192.0.2.7",
    "192.0.2.0/24": "192.0.2.0/24",
    "192.0.2.0/255.255.255.0": "192.0.2.0/24",
    "10.1.0.0/16": "10.1.0.0/16",
    "10.0.0.0/8": "10.0.0.0/8",
    "2001:0DB8::1": "2001:db8::1",
    "2001:db8::1/128": "2001:db8::1",
    "2001:db8::/32": "2001:db8::/32",
    "2001:db8:1::/48": "2001:db8:1::/48",
    "2001:db8:1:100::/56": "2001:db8:1:100::/56",
    "2001:db8:1:2::/64": "2001:db8:1:2::/64",
    "::ffff:192.0.2.7": "192.0.2.7",
    "::ffff:c000:207": "192.0.2.7",
    "::ffff:192.0.2.0/120": "192.0.2.0/24",
    "127.0.0.1": "127.0.0.1",
}


@pytest.mark.parametrize(("text", "member"), MEMBERS.items())
def test_a_member_has_one_spelling(text: str, member: str) -> None:
    """Whatever somebody types, what is written is what agents look for."""
    assert read_member(text) == member


NO_MEMBERS = {
    "": "neither an address nor a network",
    "localhost": "neither an address",
    "192.0.2": "neither an address",
    "192.0.2.007": "neither an address",
    "192.0.2.7 ": "neither an address",
    "192.0.2.7:80": "neither an address",
    "1": "neither an address",
    "192.0.2.0/25": "a size that no agent looks for: /8, /16, /24",
    "0.0.0.0/0": "a size that no agent looks for",
    "::/0": "a size that no agent looks for: /32, /48, /56, /64",
    "::ffff:0:0/96": "a size that no agent looks for: /8",
    "192.0.2.7/24": "host bits: 192.0.2.0/24 is the whole network",
    "2001:db8::1/64": "host bits: 2001:db8::/64",
    "fe80::1%eth0": "a zone",
    "x" * 5000: "neither an address",
}


@pytest.mark.parametrize(("text", "sentence"), NO_MEMBERS.items())
def test_what_no_agent_looks_for_is_refused(text: str, sentence: str) -> None:
    """A grant or block that nobody would ever meet is a mistake, said in one short sentence."""
    with pytest.raises(ValueError, match=sentence) as caught:
        read_member(text)
    assert len(str(caught.value)) < 160


@given(st.ip_addresses())
def test_every_name_of_a_client_is_a_member(address: object) -> None:
    """What agents look for can be granted or blocked, and stands for itself."""
    names = candidates(ip_address(str(address)).packed).decode().split()
    assert [read_member(name) for name in names] == names
    own, *around = names
    assert networks_around(own) == set(around)


@given(st.text(max_size=50))
def test_any_text_is_a_member_or_a_sentence(text: str) -> None:
    """Only ValueError is ever raised."""
    try:
        member = read_member(text)
    except ValueError:
        return
    assert read_member(member) == member
    assert str(ip_network(member)).startswith(member)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        *((text, "machine's own") for text in ("127.0.0.1", "127.1.2.3", "127.0.0.0/8", "::1")),
        *((text, "machine's own") for text in ("::/64", "::/32", "::ffff:127.0.0.1")),
        *((text, "no address that a client has") for text in ("0.0.0.0", "::", "0.0.0.0/8")),
        *((text, "multicast") for text in ("224.0.0.1", "239.0.0.0/8", "ff02::1", "ff02::/32")),
    ],
)
def test_nothing_is_granted_that_stands_for_everybody(text: str, sentence: str) -> None:
    """Loopback, unspecified and multicast addresses, and networks with one, are refused."""
    with pytest.raises(ValueError, match=sentence):
        read_grantable(text)
    assert read_member(text)


@pytest.mark.parametrize("text", ["192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.7"])
def test_a_client_may_be_granted(text: str) -> None:
    """What clients have is spelt as any member is."""
    assert read_grantable(text) == read_member(text)


def test_a_network_is_around_smaller_ones() -> None:
    """Only larger networks are around one."""
    assert networks_around("10.1.2.0/24") == {"10.1.0.0/16", "10.0.0.0/8"}
    assert networks_around("10.0.0.0/8") == set()
    assert networks_around("2001:db8:1::/56") == {"2001:db8:1::/48", "2001:db8::/32"}
