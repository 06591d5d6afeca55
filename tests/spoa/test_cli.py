"""`kat`, as typed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.redis import RedisServer
from tokens.token import is_well_formed

DEADLINE_S = 30
_MAIN = "from spoa.cli import main; main()"
_CAPTURE = Path(__file__).parent.parent / "spop/vectors/2.6/agent-disconnect.txt"


def _kat(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `kat` with no configuration but `environ`."""
    return _kat_in_shell('exec "$@"', *arguments, **environ)


def _kat_in_shell(shell: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `kat`, which is "$@" in this line of a shell."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    return subprocess.run(
        ["/bin/sh", "-c", shell, "sh", sys.executable, "-c", _MAIN, *arguments],
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


def test_no_description_is_cut() -> None:
    """The list of commands is whole sentences."""
    _, _, commands = _kat("--help").stdout.partition("Commands:")
    assert "serve" in commands
    assert "..." not in commands


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("check", "--help"), ("check",), ("inspect", str(_CAPTURE))],
)
@pytest.mark.parametrize(
    ("shell", "reason"),
    [('"$@" >/dev/full', "No space left on device"), ('"$@" >&-', "Bad file descriptor")],
)
def test_a_stdout_that_takes_nothing_is_told(
    arguments: tuple[str, ...], shell: str, reason: str
) -> None:
    """What could not be printed is one sentence about stdout, and exit 1."""
    done = _kat_in_shell(shell, *arguments)
    assert (done.returncode, done.stderr) == (1, f"kat: cannot write to stdout: {reason}\n")


def test_a_token_nobody_can_read_is_no_success(redis_server: RedisServer) -> None:
    """`kat issue` with a closed stdout fails."""
    issue = ("issue", "--acl", "demo", "--user", "u")
    done = _kat_in_shell('"$@" >&-', *issue, KAT_STORE__URL=_url(redis_server))
    assert done.returncode == 1
    assert "stdout" in done.stderr


def _with_import(failing: str) -> subprocess.CompletedProcess[str]:
    """Run `kat check` where importing typer raises."""
    code = f"""if True:
        import sys
        from importlib.abc import MetaPathFinder
        class Failing(MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "typer":
                    raise {failing}
        sys.meta_path.insert(0, Failing())
        from spoa.cli import main
        main()
    """
    return subprocess.run(
        [sys.executable, "-c", code, "check"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_without_the_agents_extra_it_says_what_to_install() -> None:
    """A service that only issues tokens has no typer, and its `kat` is a sentence."""
    done = _with_import("ModuleNotFoundError('No module', name='typer')")
    assert (done.returncode, done.stderr) == (1, "kat: needs typer: install kat-spoa[agent]\n")


def test_an_impatient_user_sees_no_traceback() -> None:
    """Ctrl-C while still importing is exit 130, without a word."""
    done = _with_import("KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


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


def test_issue_does_not_blame_a_store_that_answers_for_being_away(
    place: Path, start_redis: Callable[..., RedisServer]
) -> None:
    """Whether `kat serve` runs is asked only where nothing could be connected to."""
    server = start_redis()
    with server.client() as client:
        client.config_set("requirepass", "right-one")
    (place / "redis").mkdir()
    (place / "redis/redis.sock").symlink_to(server.socket)
    done = _kat("issue", "--acl", "demo", "--user", "u", KAT_STATE_DIR=str(place))
    assert done.returncode == 1
    assert done.stderr.endswith("asks for a password\n")


def test_serve_says_it_in_json_where_asked(place: Path) -> None:
    """Who collects JSON lines collects the reason of a failed start too."""
    done = _kat(
        "serve",
        KAT_STATE_DIR=str(place),
        KAT_STORE__URL="redis://127.0.0.1:1",
        KAT_LISTEN__SPOP=f"unix:{place}/none/s",
        KAT_LOG__FORMAT="json",
    )
    assert done.returncode == 1
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert f"unix:{place}/none/s cannot be bound" in told[-1]["msg"]
    assert told[-1]["level"] == "error"


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
