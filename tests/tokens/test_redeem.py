"""redeem.lua in a real Redis: each row of the contract's table, each rule of strictness.

And redeem.py: how it is called, and what is taken for its answer.
"""

import contextlib
import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.gates import CHECK, bringing, digest_of, kid_of
from tests.support.records import ACCEPTED, GOOD, MISSHAPEN, MISSPELT, NONCE, with_fields
from tests.support.redeem import CLIENT, Answer, Ask, Redeemer
from tests.support.redis import RedisServer
from tests.support.strategies import json_values, records
from tokens.check import Check
from tokens.policy import redeem
from tokens.policy.redeem import MAX_TOKENS_PER_CALL, Call, ReplyMismatch, read_answers
from tokens.question import Command, Fence
from tokens.record import BadRecord, Keys, Record, read_record, write_record
from tokens.token import mint

StartRedis = Callable[..., RedisServer]

CODES = {"ok", "unknown", "replayed", "fenced", "early", "bad_record", "store_error"} | {
    f"wrong_{binding}" for binding in ("acl", "host", "method", "path", "src", "nonce")
}


@pytest.fixture
def redeemer(client: redis.Redis) -> Redeemer:
    return Redeemer(client)


def assert_untouched(redeemer: Redeemer, key: bytes, raw: bytes = GOOD) -> None:
    assert redeemer.value(key) == raw


# The table, row by row.


def test_no_key_is_unknown(redeemer: Redeemer) -> None:
    """A token that was never issued, or has expired, is unknown, and asking leaves no trace."""
    assert redeemer.redeem_one(Ask(b"kat:t:" + b"0" * 64)) == Answer("unknown")
    assert redeemer.client.dbsize() == 0


def test_a_matching_token_is_consumed(redeemer: Redeemer) -> None:
    """A yes gives the raw record, and leaves a tombstone that holds it and keeps the TTL."""
    key = redeemer.put(GOOD, px=50_000)
    before = redeemer.now_ms()
    assert redeemer.redeem_one(Ask(key)) == Answer("ok", GOOD)
    word, claim, at_ms, src, raw = redeemer.value(key).split(b" ", 4)
    assert (word, claim, src, raw) == (b"consumed", b"c0ffee.1", b"192.0.2.7", GOOD)
    assert before <= int(at_ms) <= redeemer.now_ms()
    assert 0 < redeemer.client.pttl(key) <= 50_000


def test_the_same_claim_gets_the_same_answer(redeemer: Redeemer) -> None:
    """A lost reply may be asked for again by the claim that consumed, and by no other."""
    key = redeemer.put(GOOD)
    first = redeemer.redeem_one(Ask(key))
    consumed = redeemer.value(key)
    assert redeemer.redeem_one(Ask(key)) == first == Answer("ok", GOOD)
    assert redeemer.redeem_one(Ask(key, claim="c0ffee.11")).code == "replayed"
    assert redeemer.redeem_one(Ask(key, claim="c0ffee.")).code == "replayed"
    assert redeemer.value(key) == consumed


@pytest.mark.parametrize("left_ms", [59_999, 30_000, 1_000])
def test_a_yes_tells_when_the_token_was_issued(redeemer: Redeemer, left_ms: int) -> None:
    """The moment of issue follows from ttl and PTTL, also at the second asking."""
    key = redeemer.put(GOOD, px=left_ms)
    issued_ms = redeemer.now_ms() - (60_000 - redeemer.client.pttl(key))
    for _ in range(2):
        assert abs(redeemer.redeem_one(Ask(key)).issued_ms - issued_ms) <= 2


@pytest.mark.parametrize(("age_ms", "code"), [(40_000, "ok"), (61_000, "replayed")])
def test_a_claim_is_forgotten_after_the_deadline(
    redeemer: Redeemer, age_ms: int, code: str
) -> None:
    """Nobody waits for an answer any more: the deadline of the redeemer is 60 seconds."""
    at_ms = redeemer.now_ms() - age_ms
    key = redeemer.put(b"consumed c0ffee.1 %d 192.0.2.7 %b" % (at_ms, GOOD))
    assert redeemer.redeem_one(Ask(key)).code == code


def test_a_replay_tells_when_and_from_where(redeemer: Redeemer) -> None:
    """A consumed token says when and by whom it was consumed, not who tries it now."""
    key = redeemer.put(GOOD)
    redeemer.redeem_one(Ask(key))
    at_ms = redeemer.value(key).split(b" ")[2]
    replay = redeemer.redeem_one(Ask(key, claim="c0ffee.2", src="198.51.100.1", acl="other"))
    assert replay == Answer("replayed", at_ms + b" 192.0.2.7")


def test_a_consume_without_address_is_told(redeemer: Redeemer) -> None:
    """A client without an address stands as a dash in the tombstone."""
    key = redeemer.put(GOOD)
    assert redeemer.redeem_one(Ask(key, src="")).code == "ok"
    assert redeemer.redeem_one(Ask(key, claim="c0ffee.2")).detail.endswith(b" -")


@pytest.mark.parametrize(("fence_age_ms", "code"), [(20_000, "fenced"), (40_000, "ok")])
def test_the_fence_counts_from_the_issue(redeemer: Redeemer, fence_age_ms: int, code: str) -> None:
    """A token issued 30 s ago, by its TTL, is refused by a younger fence and not by an older."""
    key = redeemer.put(GOOD, px=30_000)
    fence_ms = redeemer.now_ms() - fence_age_ms
    assert redeemer.redeem_one(Ask(key), fence_ms=fence_ms).code == code
    if code == "fenced":
        assert_untouched(redeemer, key)


@pytest.mark.parametrize(("ahead_ms", "code"), [(60_000, "early"), (-60_000, "ok")])
def test_nbf(redeemer: Redeemer, ahead_ms: int, code: str) -> None:
    """Before nbf a token is early and stays whole, after it is consumed."""
    raw = with_fields(f'"nbf":{redeemer.now_ms() + ahead_ms}')
    key = redeemer.put(raw)
    assert redeemer.redeem_one(Ask(key)).code == code
    if code == "early":
        assert_untouched(redeemer, key, raw)


BOUND = with_fields(
    '"host":["wiki.example"],"method":["GET","HEAD"],"path":["/x"],'
    f'"src":["192.0.2.0/24","2001:db8::/64"],"nonce":"{NONCE}"'
)


@pytest.mark.parametrize(
    ("binding", "wrong"),
    [
        ("acl", "Wiki"),
        ("acl", "wik"),
        ("acl", ""),
        ("host", "wiki.example.org"),
        ("host", ""),
        ("method", "POST"),
        ("method", "get"),
        ("method", ""),
        ("path", "/y"),
        ("path", ""),
        ("src", "198.51.100.1 198.51.100.0/24 198.51.0.0/16 198.0.0.0/8"),
        ("src", "192.0.2.0"),
        ("src", "2192.0.2.0/24"),
        ("src", ""),
        ("nonce", NONCE[::-1]),
        ("nonce", ""),
    ],
)
def test_a_wrong_attempt_never_burns_the_token(
    redeemer: Redeemer, binding: str, wrong: str
) -> None:
    """Each binding refuses with its own code, and the owner's token stays whole."""
    key = redeemer.put(BOUND)
    right = Ask(key, nonce=NONCE)
    assert redeemer.redeem_one(right.with_(binding, wrong)) == Answer(f"wrong_{binding}")
    assert_untouched(redeemer, key, BOUND)
    assert redeemer.redeem_one(right) == Answer("ok", BOUND)


@pytest.mark.parametrize(
    ("raw", "nonce", "code"),
    [
        (BOUND, f"!{NONCE}", "ok"),
        (BOUND, f"!{NONCE[::-1]}", "wrong_nonce"),
        (BOUND, f"!!{NONCE}", "wrong_nonce"),
        (BOUND, "!", "wrong_nonce"),
        (GOOD, f"!{NONCE}", "wrong_nonce"),
        (GOOD, "!", "wrong_nonce"),
        (GOOD, NONCE, "ok"),
    ],
)
def test_a_required_nonce(redeemer: Redeemer, raw: bytes, nonce: str, code: str) -> None:
    """Where a token must be bound to a browser, one that is not stays whole, whoever brings it."""
    key = redeemer.put(raw)
    assert redeemer.redeem_one(Ask(key, nonce=nonce)).code == code
    if code != "ok":
        assert_untouched(redeemer, key, raw)


def test_an_ipv6_client_of_a_dual_stack_token(redeemer: Redeemer) -> None:
    """One IPv4 and one IPv6 entry serve a client that comes by either."""
    ask = Ask(redeemer.put(BOUND), nonce=NONCE, src="2001:db8::9 2001:db8::/64 2001:db8::/56")
    assert redeemer.redeem_one(ask).code == "ok"


@pytest.mark.parametrize(
    ("prefix", "path", "is_inside"),
    [
        ("/x", "/x", True),
        ("/x", "/x/", True),
        ("/x", "/x/y", True),
        ("/x", "/xy", False),
        ("/x", "/", False),
        ("/x", "/X", False),
        ("/x/", "/x/y", True),
        ("/x/", "/x", False),
        ("/x.y", "/x-y", False),
        ("/", "/anything", True),
        ("/x", "/x/../y", False),
        ("/x", "/x/%2e%2E/y", False),
        ("/x", "/x/%2E/y", False),
        ("/x", "/x//y", False),
        ("/x", "/x/\\y", False),
        ("/x", "/x/y;z", False),
        ("/x", "/x/%2fy", False),
        ("/x", "/x/%2Fy", False),
        ("/x", "/x/%5Cy", False),
        ("/x", "/x/%00", False),
        ("/x", "/x/%41", True),
    ],
)
def test_path_prefixes(redeemer: Redeemer, prefix: str, path: str, is_inside: bool) -> None:  # noqa: FBT001 - a column of the table
    """A prefix ends at a segment boundary; a path that may be read in two ways opens nothing."""
    key = redeemer.put(with_fields(f'"path":["/elsewhere","{prefix}"]'))
    expected = "ok" if is_inside else "wrong_path"
    assert redeemer.redeem_one(Ask(key, path=path)).code == expected


def test_an_unbound_token_does_not_look_at_the_path(redeemer: Redeemer) -> None:
    """Only path-bound tokens refuse odd paths: what they mean is the application's affair."""
    assert redeemer.redeem_one(Ask(redeemer.put(GOOD), path="/x//..;y")).code == "ok"


# Strictness.


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_a_right_record_is_consumed(redeemer: Redeemer, raw: bytes) -> None:
    """Every record that the contract allows is good for one consume."""
    assert redeemer.redeem_one(Ask(redeemer.put(raw), nonce=NONCE)) == Answer("ok", raw)


@pytest.mark.parametrize("raw", MISSHAPEN.values(), ids=MISSHAPEN)
def test_a_misshapen_record_is_refused(redeemer: Redeemer, raw: bytes) -> None:
    """A record of the wrong shape is bad, not consumed, and its neighbours notice nothing."""
    before, bad, after = redeemer.put(GOOD), redeemer.put(raw), redeemer.put(GOOD)
    answers = redeemer.redeem(Ask(before), Ask(bad), Ask(after))
    assert answers == [Answer("ok", GOOD), Answer("bad_record"), Answer("ok", GOOD)]
    assert_untouched(redeemer, bad, raw)


@pytest.mark.parametrize("raw", MISSPELT.values(), ids=MISSPELT)
def test_a_misspelt_record_is_never_a_yes(redeemer: Redeemer, raw: bytes) -> None:
    """What redeem.lua does not look at, the agent's reading refuses."""
    answer = redeemer.redeem_one(Ask(redeemer.put(raw), nonce=NONCE))
    assert answer.code in {"ok", "bad_record", "wrong_nonce"}
    with pytest.raises(BadRecord):
        read_record(answer.detail or raw)


def test_a_key_without_end_is_refused(redeemer: Redeemer) -> None:
    """A token without TTL would live for ever: bad."""
    key = redeemer.put(GOOD, px=None)
    assert redeemer.redeem_one(Ask(key)) == Answer("bad_record")
    assert_untouched(redeemer, key)


def test_a_key_that_outlives_its_ttl_is_refused(redeemer: Redeemer) -> None:
    """More TTL than the record says would date the issue into the future, past any fence."""
    key = redeemer.put(GOOD, px=61_000)
    assert redeemer.redeem_one(Ask(key)) == Answer("bad_record")
    assert_untouched(redeemer, key)


def test_a_key_of_another_type_is_refused(redeemer: Redeemer) -> None:
    """A list where a record belongs is bad, and stays."""
    key = b"kat:t:" + b"f" * 64
    redeemer.client.rpush(key, GOOD)
    redeemer.client.expire(key, 60)
    assert redeemer.redeem_one(Ask(key)) == Answer("bad_record")
    assert redeemer.client.llen(key) == 1


def put_hash(client: redis.Redis, key: bytes) -> None:
    client.hset(key, "v", GOOD)


def putting(raw: bytes, px: int | None = 60_000) -> Callable[[redis.Redis, bytes], object]:
    return lambda client, key: client.set(key, raw, px=px)


BAD_KEYS: dict[str, Callable[[redis.Redis, bytes], object]] = {
    "a wrong type": putting(GOOD.replace(b"60", b'"60"')),
    "a missing field": putting(b'{"v":1,"sub":"user1","ttl":60}'),
    "an unknown field": putting(with_fields('"scr":["192.0.2.7"]')),
    "an empty list": putting(with_fields('"src":[]')),
    "an object for a list": putting(with_fields('"src":{"1":"192.0.2.7"}')),
    "NaN": putting(GOOD.replace(b"60", b"NaN")),
    "NaN as nbf": putting(with_fields('"nbf":NaN')),
    "Infinity": putting(GOOD.replace(b"60", b"Infinity")),
    "17 digits": putting(with_fields('"nbf":10000000000000000')),
    "1 MB": putting(b"[" * 2**20),
    "1 MB like a tombstone": putting(b"consumed c0ffee.1 1 - " + b" " * 2**20),
    "nested 10,000 deep": putting(b"[" * 10_000 + b"]" * 10_000),
    "nested 2,000 deep": putting(b"[" * 2_000 + b"]" * 2_000),
    "no TTL": putting(GOOD, px=None),
    "TTL above ttl": putting(GOOD, px=61_000),
    "a hash": put_hash,
}


@pytest.mark.parametrize("place", [0, 1, 64, 126, 127])
@pytest.mark.parametrize("spoil", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_record_harms_no_neighbour(
    redeemer: Redeemer, spoil: Callable[[redis.Redis, bytes], object], place: int
) -> None:
    """Anywhere among 128 tokens a bad one is refused and stays as it was; the others are good."""
    keys = [redeemer.put(GOOD) for _ in range(128)]
    redeemer.client.delete(keys[place])
    spoil(redeemer.client, keys[place])
    before = redeemer.client.dump(keys[place])
    codes = [answer.code for answer in redeemer.redeem(*map(Ask, keys))]
    assert codes == ["ok"] * place + ["bad_record"] + ["ok"] * (127 - place)
    assert redeemer.client.dump(keys[place]) == before


@pytest.mark.parametrize("value", [b"consumed ", b"consumed x y z", b"consumed c0ffee.1 1 -"])
def test_half_a_tombstone_is_bad(redeemer: Redeemer, value: bytes) -> None:
    """A value that only begins like a tombstone is neither a replay nor a yes."""
    assert redeemer.redeem_one(Ask(redeemer.put(value))) == Answer("bad_record")


def test_a_huge_tombstone_is_bad(redeemer: Redeemer) -> None:
    """What an issuer wrote to look like a tombstone is not searched by the megabyte."""
    small = b"consumed c0ffee.1 1 192.0.2.7 " + b"x" * 4096
    assert redeemer.redeem_one(Ask(redeemer.put(small))).code == "replayed"
    assert redeemer.redeem_one(Ask(redeemer.put(small + b"x" * 4096))) == Answer("bad_record")


def test_an_answer_must_fit(redeemer: Redeemer) -> None:
    """User and groups, with their commas, may take exactly the room that the ACK has."""
    raw = with_fields('"groups":["staff","ops"]')
    key = redeemer.put(raw)
    assert redeemer.redeem_one(Ask(key, room=5 + 9 - 1)) == Answer("bad_record")
    assert_untouched(redeemer, key, raw)
    assert redeemer.redeem_one(Ask(key, room=5 + 9)) == Answer("ok", raw)


# The call as a whole.


def test_each_token_is_judged_alone(redeemer: Redeemer) -> None:
    """A full batch of all kinds answers each ask in its place."""
    kinds = [
        (Ask(redeemer.put(GOOD)), "ok"),
        (Ask(b"kat:t:" + b"e" * 64), "unknown"),
        (Ask(redeemer.put(b"{")), "bad_record"),
        (Ask(redeemer.put(GOOD), acl="other"), "wrong_acl"),
        (Ask(redeemer.put(b"consumed c0ffee.9 1 - {}")), "replayed"),
    ]
    for _ in range(31):
        kinds.append((Ask(redeemer.put(GOOD)), "ok"))
        kinds.append((Ask(redeemer.put(b"[" * 3000)), "bad_record"))
        kinds.append((Ask(redeemer.put(GOOD), host=""), "ok"))
    answers = redeemer.redeem(*(ask for ask, _ in kinds))
    assert [answer.code for answer in answers] == [code for _, code in kinds]


def test_one_token_twice_in_a_batch(redeemer: Redeemer) -> None:
    """Two requests of one batch with the same token: the first wins."""
    key = redeemer.put(GOOD)
    first, second = redeemer.redeem(Ask(key, claim="c0ffee.1"), Ask(key, claim="c0ffee.2"))
    assert (first.code, second.code) == ("ok", "replayed")


def test_a_call_for_nothing(redeemer: Redeemer) -> None:
    """No token, no answer: only the time."""
    assert redeemer.redeem() == []


@pytest.mark.parametrize("arguments", [(), ("0",), ("x", "80"), ("0", ""), ("0", "80", "more")])
def test_a_crooked_call_is_refused_whole(redeemer: Redeemer, arguments: tuple[str, ...]) -> None:
    """Too few, too many or unreadable arguments consume nothing."""
    key = redeemer.put(GOOD)
    rest = Ask(key).arguments()
    with pytest.raises(redis.ResponseError, match="KATARGS"):
        redeemer.client.evalsha(redeemer.sha, 1, key, redeemer.replid, *arguments, *rest)
    assert_untouched(redeemer, key)


def test_another_server_consumes_nothing(redeemer: Redeemer) -> None:
    """A server with another replid than expected refuses the whole call."""
    key = redeemer.put(GOOD)
    for stranger in ("", "f" * 40, redeemer.replid[:-1]):
        redeemer.replid = stranger
        with pytest.raises(redis.ResponseError, match="KATFENCE this server"):
            redeemer.redeem(Ask(key))
    assert_untouched(redeemer, key)


def test_a_replica_consumes_nothing_and_a_promoted_one_is_a_stranger(
    start_redis: StartRedis,
) -> None:
    """A demoted server refuses at once; promoted again, it is refused until it is met anew."""
    with start_redis().client() as client:
        redeemer = Redeemer(client)
        key = redeemer.put(GOOD)
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(redis.ResponseError, match="KATFENCE this server"):
            redeemer.redeem(Ask(key))
        client.replicaof("NO", "ONE")
        with pytest.raises(redis.ResponseError, match="KATFENCE this server"):
            redeemer.redeem(Ask(key))
        assert_untouched(redeemer, key)
        assert Redeemer(client).redeem_one(Ask(key)) == Answer("ok", GOOD)


@pytest.mark.parametrize(
    ("setting", "value", "relaxed", "name"),
    [("maxmemory", "1", "0", b"OOM"), ("min-replicas-to-write", "1", "0", b"NOREPLICAS")],
)
def test_a_store_that_cannot_write_consumes_nothing(
    start_redis: StartRedis, setting: str, value: str, relaxed: str, name: bytes
) -> None:
    """Refused writes are named, consume nothing, and heal."""
    with start_redis().client() as client:
        redeemer = Redeemer(client)
        key = redeemer.put(GOOD)
        client.config_set(setting, value)
        assert redeemer.redeem_one(Ask(key)) == Answer("store_error", name)
        assert_untouched(redeemer, key)
        client.config_set(setting, relaxed)
        assert redeemer.redeem_one(Ask(key)) == Answer("ok", GOOD)


@pytest.mark.parametrize("command", ["get", "set", "pttl"])
def test_a_user_without_the_rights_consumes_nothing(start_redis: StartRedis, command: str) -> None:
    """An ACL user who lacks one of the commands gets store_error, never a yes."""
    with start_redis().client() as client:
        redeemer = Redeemer(client)
        key = redeemer.put(GOOD)
        client.execute_command("ACL", "SETUSER", "default", f"-{command}")
        assert redeemer.redeem_one(Ask(key)).code == "store_error"
        client.execute_command("ACL", "SETUSER", "default", f"+{command}")
        assert_untouched(redeemer, key)


def test_a_second_asking_that_cannot_be_dated(start_redis: StartRedis) -> None:
    """A tombstone whose TTL must not be read is a fault of the store: its token was not unknown."""
    with start_redis().client() as client:
        redeemer = Redeemer(client)
        key = redeemer.put(GOOD)
        redeemer.redeem_one(Ask(key))
        client.execute_command("ACL", "SETUSER", "default", "-pttl")
        assert redeemer.redeem_one(Ask(key)).code == "store_error"


def test_a_token_is_consumed_at_most_once(redis_server: RedisServer) -> None:
    """A token is consumed at most once, however many agents ask at the same time."""
    askers, tokens = 16, 20
    barrier = threading.Barrier(askers)

    with contextlib.ExitStack() as clients:
        redeemers = [Redeemer(clients.enter_context(redis_server.client())) for _ in range(askers)]
        keys = [redeemers[0].put(GOOD) for _ in range(tokens)]

        def ask(asker: int) -> list[str]:
            barrier.wait(timeout=10)
            claim = f"c0ffee.{asker}"
            return [redeemers[asker].redeem_one(Ask(key, claim=claim)).code for key in keys]

        with ThreadPoolExecutor(askers) as pool:
            answers = list(pool.map(ask, range(askers)))
    for codes in zip(*answers, strict=True):
        assert Counter(codes) == {"ok": 1, "replayed": askers - 1}


# The two judges.

shared_server = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def matching(key: bytes, record: Record) -> Ask:
    """Make the ask that a record's bindings let through."""
    return Ask(
        key,
        acl=record.acl[-1],
        src=f"203.0.113.9 {record.src[-1]}" if record.src else CLIENT,
        host=record.host[-1] if record.host else "wiki.example",
        method=record.method[-1] if record.method else "GET",
        path=record.path[-1] if record.path else "/",
        nonce=record.nonce or "",
    )


@shared_server
@given(record=records())
def test_redis_accepts_what_python_accepts(redeemer: Redeemer, record: Record) -> None:
    """A record that reads strictly is consumed by a request that matches it."""
    raw = write_record(record)
    key = redeemer.put(raw, px=record.ttl_s * 1000)
    answer = redeemer.redeem_one(matching(key, record))
    is_early = record.nbf_ms is not None and record.nbf_ms > redeemer.now_ms()
    assert answer == (Answer("early") if is_early else Answer("ok", raw))


@st.composite
def almost_records(draw: st.DrawFn) -> bytes:
    """Draw records with something changed: a field, its value, a byte, or half of it gone."""
    fields = json.loads(write_record(draw(records())))
    name = draw(st.sampled_from([*fields, "src", "nbf", "path", "scr", ""]))
    fields[name] = draw(json_values)
    raw = json.dumps(fields).encode()
    if draw(st.booleans()):
        position = draw(st.integers(0, len(raw) - 1))
        raw = raw[:position] + draw(st.binary(max_size=2)) + raw[position + 1 :]
    return raw


@shared_server
@given(raw=almost_records() | st.binary(max_size=300))
def test_no_record_confuses_the_judges(redeemer: Redeemer, raw: bytes) -> None:
    """Whatever stands under a key, Redis answers; and what Python accepts, Redis accepts."""
    try:
        record = read_record(raw)
    except BadRecord:
        key = redeemer.put(raw)
        assert redeemer.redeem_one(Ask(key)).code in CODES
        return
    key = redeemer.put(raw, px=record.ttl_s * 1000)
    answer = redeemer.redeem_one(matching(key, record))
    assert answer in {Answer("ok", raw), Answer("early")}


# How it is called.

FENCE = Fence(b"f" * 40, 1234)


def make_redeemer(tokens_per_call: int = MAX_TOKENS_PER_CALL) -> redeem.Redeemer:
    return redeem.Redeemer(Keys(), 80, tokens_per_call)


def fresh(**changes: Any) -> Check:
    return bringing(mint().encode(), **changes)


def key_of(check: Check) -> bytes:
    return b"kat:t:" + digest_of(check.token)


def written(calls: list[Call]) -> list[Command]:
    return [call.question.write(FENCE) for call in calls]


def test_the_shape_of_the_call() -> None:
    """The script is called as its head says: keys, three shared arguments, eight for each key."""
    one, other = fresh(), fresh(source=b"", nonce=NONCE.encode(), room_bytes=5)
    (command,) = written(make_redeemer().calls([one, other]))
    assert command[:3] == (b"EVALSHA", redeem.SHA, b"2")
    assert command[3:5] == (key_of(one), key_of(other))
    assert command[5:8] == (FENCE.replid, b"%d" % FENCE.since_ms, b"80")
    networks = b"192.0.2.7 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8"
    first, second = command[8:16], command[16:]
    assert first[1:] == (b"wiki", networks, b"wiki.example", b"GET", b"/x/y", b"", b"8000")
    assert second[1:] == (b"wiki", b"", b"wiki.example", b"GET", b"/x/y", NONCE.encode(), b"5")


def test_neither_token_nor_its_text_is_asked_about() -> None:
    """Redis is told digests; a token stands in no argument of a command."""
    checks = [fresh() for _ in range(3)]
    (command,) = written(make_redeemer().calls(checks))
    said = b" ".join(part for part in command if isinstance(part, bytes))
    assert not any(check.token in said or check.token[4:36] in said for check in checks)


@pytest.mark.parametrize(
    ("number", "per_call", "sizes"),
    [
        (0, 128, []),
        (1, 128, [1]),
        (128, 128, [128]),
        (129, 128, [128, 1]),
        (384, 128, [128, 128, 128]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_calls_are_cut_to_size(number: int, per_call: int, sizes: list[int]) -> None:
    """A large batch is cut into calls, in order, and none is lost at an edge."""
    checks = [fresh() for _ in range(number)]
    calls = make_redeemer(per_call).calls(checks)
    commands = written(calls)
    assert [int(command[2]) for command in commands] == sizes
    assert [len(command) for command in commands] == [6 + 9 * size for size in sizes]
    keys = [key for command in commands for key in command[3 : 3 + int(command[2])]]
    assert keys == [key_of(check) for check in checks]
    assert [call.question.key for call in calls] == [command[3] for command in commands]
    assert [len(call.kids) for call in calls] == sizes
    assert [kid for call in calls for kid in call.kids] == [kid_of(it.token) for it in checks]


def claims_of(calls: list[Call]) -> list[bytes]:
    """Return the first of the eight arguments of every token."""
    claims = []
    for command in written(calls):
        claims += command[6 + int(command[2]) :: 8]
    return [claim for claim in claims if isinstance(claim, bytes)]


def test_claims_are_unique_and_the_agents_own() -> None:
    """No two attempts share a claim: not of one token, not of two calls, not of two agents."""
    agents = [make_redeemer() for _ in range(3)]
    check = fresh()
    claims = [claim for agent in agents * 2 for claim in claims_of(agent.calls([check] * 200))]
    assert len(set(claims)) == len(claims) == 3 * 2 * 200
    assert all(re.fullmatch(rb"[0-9a-f]{32}\.[0-9a-f]+", claim) for claim in claims)
    assert len({claim.partition(b".")[0] for claim in claims}) == 3  # 128 random bits each


@given(st.binary(min_size=6), st.binary(min_size=6))
def test_nothing_of_a_request_is_in_its_claim(path: bytes, nonce: bytes) -> None:
    """A client cannot choose a claim, so it cannot make its replay look like our second try."""
    agent = make_redeemer()
    plain = fresh()
    odd = replace(plain, path=path, nonce=nonce, acl=path, host=nonce, method=path, unique_id=path)
    (with_it,) = claims_of(agent.calls([odd]))
    (without,) = claims_of(agent.calls([plain]))
    assert with_it.partition(b".")[0] == without.partition(b".")[0]
    assert int(without.partition(b".")[2], 16) == int(with_it.partition(b".")[2], 16) + 1


# What is taken for its answer.

TOKENS = [mint().encode() for _ in range(3)]
KIDS = [kid_of(token) for token in TOKENS]
OTHER = b"0" * 12


def call_for(*tokens: bytes) -> Call:
    (call,) = make_redeemer().calls([replace(CHECK, token=token) for token in tokens])
    return call


def test_answers_are_read_in_order() -> None:
    """Each token gets the code and the detail that stand behind its kid."""
    call = call_for(*TOKENS)
    entries = [KIDS[0], 1234, GOOD, KIDS[1], b"unknown", b"", KIDS[2], b"store_error", b"OOM"]
    assert read_answers(call, [9, call.claim, *entries]) == [
        (KIDS[0], 1234, GOOD),
        (KIDS[1], b"unknown", b""),
        (KIDS[2], b"store_error", b"OOM"),
    ]


def test_an_error_reply_is_the_store_away() -> None:
    """An error reply is a store_error for each token of its call, without what Redis echoes."""
    fault = redis.ResponseError(
        "OOM no, with args beginning with: " + digest_of(TOKENS[0]).decode()
    )
    answers = read_answers(call_for(*TOKENS[:2]), fault)
    assert answers == [(kid, b"store_error", b"OOM no") for kid in KIDS[:2]]


K = KIDS[0]
MISMATCHES: dict[str, Callable[[bytes], Any]] = {
    "another kid": lambda claim: [1, claim, OTHER, 1, GOOD],
    "another claim": lambda claim: [1, claim + b"0", K, 1, GOOD],
    "the next claim": lambda claim: [1, claim[:-1] + b"1", K, 1, GOOD],
    "no claim": lambda _: [1, None, K, 1, GOOD],
    "a claim that is an error": lambda claim: [1, redis.ResponseError(claim.decode()), K, 1, GOOD],
    "kids in another order": lambda claim: [1, claim, OTHER, 1, GOOD, K, 1, GOOD],
    "a kid as text": lambda claim: [1, claim, K.decode(), 1, GOOD],
    "the shape before there was a claim": lambda _: [1, K, b"ok", GOOD],
    "nothing": lambda _: [],
    "now only": lambda _: [1],
    "now and the claim only": lambda claim: [1, claim],
    "cut short": lambda claim: [1, claim, K, 1],
    "one more": lambda claim: [1, claim, K, 1, GOOD, b""],
    "one token more": lambda claim: [1, claim, K, 1, GOOD, OTHER, 1, GOOD],
    "the same kid twice": lambda claim: [1, claim, K, 1, GOOD, K, 1, GOOD],
    "no list": lambda _: b"ok",
    "null": lambda _: None,
    "a number": lambda _: 1,
    "a true": lambda _: True,
}


@pytest.mark.parametrize("spoil", MISMATCHES.values(), ids=MISMATCHES)
def test_what_is_not_our_answer(spoil: Callable[[bytes], Any]) -> None:
    """A reply that is not the one to this very call is believed in nothing, and not quoted."""
    call = call_for(TOKENS[0])
    with pytest.raises(ReplyMismatch) as caught:
        read_answers(call, spoil(call.claim))
    assert "user1" not in str(caught.value)
    assert len(str(caught.value)) < 100


def test_the_reply_to_another_call_for_the_same_tokens_is_refused(redeemer: Redeemer) -> None:
    """The kids fit and the claim does not: what one request consumed is not given to another."""
    server = Fence(redeemer.replid.encode(), 0)
    check = fresh()
    redeemer.client.set(key_of(check), GOOD, px=60_000)
    agent = make_redeemer()
    first, second = agent.calls([check]) + agent.calls([check])
    reply = redeemer.client.execute_command(*first.question.write(server))
    assert read_answers(first, reply)[0][2] == GOOD
    with pytest.raises(ReplyMismatch):
        read_answers(second, reply)


rubbish: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.integers()
    | st.binary()
    | st.sampled_from([*KIDS, b"ok", GOOD])
    | st.text(max_size=5).map(redis.ResponseError),
    lambda inner: st.lists(inner, max_size=4),
)


@given(st.lists(rubbish, max_size=9), st.lists(st.sampled_from(KIDS), min_size=1, max_size=3))
@example([1, 2, 3], [KIDS[0]])
def test_only_what_repeats_claim_and_kids_is_an_answer(noise: list[Any], kids: list[bytes]) -> None:
    """Whatever Redis says is a mismatch, unless it has the claim and exactly the asked kids."""
    call = call_for(TOKENS[0], TOKENS[1])
    entries = itertools.chain.from_iterable((kid, b"unknown", b"") for kid in kids)
    for reply in (noise, [1, call.claim, *noise], [1, call.claim, *entries]):
        if len(reply) == 8 and reply[1] == call.claim and reply[2::3] == KIDS[:2]:
            assert [answer[0] for answer in read_answers(call, reply)] == KIDS[:2]
        else:
            with pytest.raises(ReplyMismatch):
                read_answers(call, reply)
