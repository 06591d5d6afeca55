"""docs/redis-contract.md: what it shows works, what it lists is what the code does."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from tests.support.records import in_place_of, with_fields
from tests.support.redeem import Answer, Ask, Redeemer
from tests.support.redis import RedisServer
from tokens.record import BadRecord, read_record
from tokens.token import digest, is_well_formed

PAGE = (Path(__file__).parents[2] / "docs" / "redis-contract.md").read_text()
TYPICAL = b'{"v":1,"sub":"user1","acl":["confluence"],"ttl":60}'


def example(language: str) -> str:
    code = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert code
    return code[1]


def test_the_shell_example_issues_a_token(
    redis_server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    """The lines for the shell print a token that agents accept once, and leave it nowhere else."""
    redis_cli = tmp_path / "redis-cli"
    redis_cli.write_text(
        f'#!/bin/sh\nexec {shutil.which("redis-cli")} -s {redis_server.socket} "$@"\n'
    )
    redis_cli.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    shell = subprocess.run(
        ["sh", "-eu"],
        input=example("sh"),
        env={"PATH": path},
        text=True,
        capture_output=True,
        timeout=30,
        check=True,
    )
    token = shell.stdout.removesuffix("\n").encode()
    assert shell.stderr == "OK\n"
    assert is_well_formed(token)
    ask = Ask(b"kat:t:" + digest(token), acl="confluence")
    assert client.keys() == [ask.key]
    assert Redeemer(client).redeem_one(ask) == Answer("ok", TYPICAL)


def test_the_python_example_issues_a_token(
    redis_server: RedisServer, client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines for Python do the same, against the Redis of the test."""
    code = example("python")
    assert "redis://127.0.0.1" in code
    exec(code.replace("redis://127.0.0.1", f"unix://{redis_server.socket}"), {})
    token = capsys.readouterr().out.removesuffix("\n").encode()
    ask = Ask(b"kat:t:" + digest(token), acl="confluence")
    assert Redeemer(client).redeem_one(ask).code == "ok"


def test_the_one_command_is_the_typical_record() -> None:
    """The command that the page begins with writes a record that reads strictly."""
    (raw,) = re.findall(r"SET kat:t:<h> '(.*)' EX 60 NX", PAGE)
    assert raw.encode() == TYPICAL
    assert read_record(TYPICAL).sub == "user1"


def test_the_table_of_fields_is_complete() -> None:
    """Each field of the page's table is known to the reader, and the reader knows no other."""
    listed = re.findall(r"^\| `(\w+)` \| [^|]*optional \|", PAGE, re.MULTILINE)
    required = re.findall(r"^\| `(\w+)` \| (?:(?!optional)[^|])* \|", PAGE, re.MULTILINE)
    assert required == ["v", "sub", "acl", "ttl"]
    for field in listed:
        with pytest.raises(BadRecord, match=f"^{field}: null where"):
            read_record(with_fields(f'"{field}":null'))
    for field in required:
        with pytest.raises(BadRecord, match=rf"^{field}: nothing where|^unknown field '{field}'"):
            read_record(in_place_of(f'"{field}":', '"meta":'))
    code = Path(read_record.__code__.co_filename).read_text()
    assert set(re.findall(r'take\("(\w+)"', code)) == {*listed, *required}


def test_the_answers_are_those_of_the_script() -> None:
    """Every answer that redeem.lua can give stands in the page's table."""
    script = (Path(__file__).parents[2] / "tokens" / "redeem.lua").read_text()
    given = set(re.findall(r"return '(\w+)'", script))
    listed = set(re.findall(r"\| `(\w+)` \|", PAGE)) | {
        f"wrong_{binding}" for binding in ("acl", "host", "method", "path", "src", "nonce")
    }
    assert given <= listed
