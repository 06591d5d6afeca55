"""The scripts of the contract on Redis and on Valkey: the same answers from both."""

from importlib.resources import files

from tests.support.records import GOOD
from tests.support.redeem import Answer, Ask, Redeemer
from tests.support.redis import RedisServer


def test_every_script_loads(every_redis: RedisServer) -> None:
    """Each .lua file of the package is a script that both take."""
    folders = [files("tokens").joinpath(name) for name in ("policy", "admin")]
    found = [file for folder in folders for file in folder.iterdir()]
    scripts = [file for file in found if file.name.endswith(".lua")]
    assert {"redeem.lua", "cut.lua"} <= {file.name for file in scripts}
    with every_redis.client() as client:
        for file in scripts:
            assert len(client.script_load(file.read_bytes())) == 40


def test_a_token_is_consumed_once(every_redis: RedisServer) -> None:
    """Consumed, repeated by its own claim, replayed by another, fenced, bad: all are told apart."""
    with every_redis.client() as client:
        redeemer = Redeemer(client)
        key = redeemer.put(GOOD)
        assert redeemer.redeem_one(Ask(key)) == Answer("ok", GOOD)
        assert redeemer.redeem_one(Ask(key)) == Answer("ok", GOOD)
        assert redeemer.redeem_one(Ask(key, claim="c0ffee.2")).code == "replayed"
        late = redeemer.put(GOOD)
        assert redeemer.redeem_one(Ask(late), fence_ms=2**45).code == "fenced"
        assert redeemer.redeem_one(Ask(late)).code == "ok"
        bad = [redeemer.put(b"{" * 100), redeemer.put(GOOD, px=None), redeemer.put(GOOD)]
        client.delete(bad[2])
        client.hset(bad[2], "not", "a string")
        assert [answer.code for answer in redeemer.redeem(*map(Ask, bad))] == ["bad_record"] * 3
