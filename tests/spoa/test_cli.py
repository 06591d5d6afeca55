"""`kat`, as typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.redis import RedisServer
from tokens.token import is_well_formed

DEADLINE_S = 30
_MAIN = "from spoa.cli import main; main()"


def _kat(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `kat` with no configuration but `environ`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *arguments],
        env={**clean, "KAT_CONFIG": os.devnull, **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def _url(server: RedisServer) -> str:
    return f"unix://{server.socket}"


def test_without_a_word_it_helps() -> None:
    """`kat` alone lists its commands."""
    done = _kat()
    told = done.stdout + done.stderr
    assert all(name in told for name in ("serve", "issue", "check", "inspect", "demo"))


def test_it_knows_its_version() -> None:
    """`kat --version` is one line."""
    done = _kat("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("kat ")


def test_help_loads_nothing_heavy() -> None:
    """Help waits for no pydantic, redis or prometheus_client; a worker's start for no typer."""
    code = """if True:
        import sys
        import spoa.cli
        assert "typer" not in sys.modules
        import spoa.cli.app
        print(*({"pydantic", "redis", "prometheus_client", "construct"} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_issue_prints_the_token_and_nothing_else(redis_server: RedisServer) -> None:
    """One line on stdout: a token that Redis knows."""
    done = _kat(
        "issue",
        "--acl",
        "demo",
        "--user",
        "user1",
        "--ttl",
        "60",
        KAT_STORE__URL=_url(redis_server),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert is_well_formed(done.stdout.removesuffix("\n").encode())
    with redis_server.client() as client:
        [key] = client.keys("kat:t:*")
        assert json.loads(client.get(key)) == {"v": 1, "sub": "user1", "acl": ["demo"], "ttl": 60}


def test_issue_writes_what_it_is_told(redis_server: RedisServer) -> None:
    """Every option becomes a field of the record; --json tells the kid."""
    done = _kat(
        *("issue", "--acl", "demo", "--acl", "wiki", "--user", "u", "--group", "a", "--group", "b"),
        *("--src", "10.0.0.1", "--host", "h", "--method", "GET", "--path", "/p", "--nbf", "1"),
        "--json",
        KAT_STORE__URL=_url(redis_server),
        KAT_STORE__PREFIX="other:",
    )
    told = json.loads(done.stdout)
    assert "the ACL 'wiki' is not configured" in done.stderr
    with redis_server.client() as client:
        [key] = client.keys("other:t:*")
        record = json.loads(client.get(key))
    assert key.decode().removeprefix("other:t:").startswith(told["kid"])
    assert told["ttl"] == record["ttl"] == 60
    assert (record["groups"], record["src"], record["nbf"]) == (["a", "b"], ["10.0.0.1"], 1)
    assert (record["host"], record["method"], record["path"]) == (["h"], ["GET"], ["/p"])


def test_issue_refuses_what_the_contract_forbids(redis_server: RedisServer) -> None:
    """A wrong argument is a sentence and exit 2, not a token."""
    done = _kat(
        "issue", "--acl", "demo", "--user", "u", "--ttl", "0", KAT_STORE__URL=_url(redis_server)
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "ttl" in done.stderr
    assert "Traceback" not in done.stderr


def test_issue_without_a_store_is_one_sentence(place: Path) -> None:
    """Nothing runs: exit 1, one line that says what to do."""
    done = _kat("issue", "--acl", "demo", "--user", "u", KAT_STATE_DIR=str(place))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "is `kat serve` running?" in done.stderr


@pytest.mark.parametrize("command", ["serve", "issue"])
def test_a_wrong_configuration_starts_nothing(command: str, tmp_path: Path) -> None:
    """Every mistake on stderr, one per line, exit 2."""
    file = tmp_path / "kat.toml"
    file.write_text("[limits]\ndeadline_ms = 0\nin_fligt = 1\n")
    arguments = ("--acl", "demo", "--user", "u") if command == "issue" else ()
    done = _kat(command, "-c", str(file), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert "deadline_ms = 0: must be greater than or equal to 1" in first
    assert "did you mean limits.in_flight?" in second


def test_serve_says_why_it_cannot(place: Path) -> None:
    """An address that cannot be bound is one sentence and exit 1."""
    done = _kat(
        "serve",
        KAT_STATE_DIR=str(place),
        KAT_STORE__URL="redis://127.0.0.1:1",
        KAT_LISTEN__SPOP=f"unix:{place}/none/s",
    )
    assert done.returncode == 1
    assert done.stderr == f"kat: unix:{place}/none/s cannot be bound: No such file or directory\n"


def test_check_names_what_is_wrong(place: Path) -> None:
    """`kat check` names an unreachable Redis and a socket that cannot be bound; exit 1."""
    done = _kat(
        "check",
        KAT_STATE_DIR=str(place),
        KAT_STORE__URL="redis://:hunter2@127.0.0.1:1",
        KAT_LISTEN__SPOP=f"unix:{place}/none/s",
        KAT_LISTEN__METRICS="",
    )
    assert done.returncode == 1
    assert "FAIL  store: Redis at 127.0.0.1:1 cannot be reached" in done.stdout
    assert f"FAIL  listen: unix:{place}/none/s cannot be bound" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_check_names_mistakes_in_the_file(tmp_path: Path) -> None:
    """`kat check` names unreadable TOML and unknown keys; exit 1."""
    file = tmp_path / "kat.toml"
    file.write_text("[limits\n")
    done = _kat("check", "-c", str(file))
    assert done.returncode == 1
    assert done.stdout.startswith(f"FAIL  config: {file}: is not TOML")
    file.write_text("[limits]\nin_fligt = 1\n")
    assert "in_fligt: unknown key" in _kat("check", "-c", str(file)).stdout


def test_check_is_content_with_what_is_right(place: Path, redis_server: RedisServer) -> None:
    """Exit 0 when nothing says FAIL."""
    done = _kat(
        "check",
        KAT_STATE_DIR=str(place),
        KAT_STORE__URL=_url(redis_server),
        KAT_LISTEN__METRICS="",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "FAIL" not in done.stdout
