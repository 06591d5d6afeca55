"""The Lua scripts that stand beside the policy."""

from hashlib import sha1

import pytest
import redis

from tokens.policy import cut, grant, proofs, redeem
from tokens.policy.gate import SCRIPTS
from tokens.policy.script import load_script


@pytest.mark.parametrize("name", ["cut", "grant", "redeem", "touch"])
def test_redis_knows_a_script_by_its_name(name: str, client: redis.Redis) -> None:
    """What is loaded from a file is called by the SHA-1 that Redis gives it."""
    text, sha = load_script(f"{name}.lua")
    assert client.script_load(text).encode() == sha


def test_a_gate_names_every_script_that_it_calls() -> None:
    """What a Redis is given before it is asked are the scripts that questions call, all of them."""
    called = {module.SHA for module in (cut, grant, proofs, redeem)}
    assert {sha1(script).hexdigest().encode() for script in SCRIPTS} == called
