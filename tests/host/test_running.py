"""What docs/host.md installs, running: systemd starts it, HAProxy asks it, nobody else can."""

import re

import pytest

from tests.host.conftest import commands_of, status, token
from tests.host.machine import Machine
from tests.support.eventually import eventually

SPOP = "/run/kat/spoa.sock"
RUNTIME = "/run/haproxy/kat.sock"
REDIS = "/var/lib/kat/redis/redis.sock"

_CONNECT = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def may_connect(machine: Machine, path: str, user: str, *groups: str) -> bool:
    """Tell whether a process of this user, with these groups and no other, reaches a socket."""
    others = ("--groups", ",".join(groups)) if groups else ("--clear-groups",)
    become = ("setpriv", "--reuid", user, "--regid", user_group(machine, user), *others)
    done = machine.run(*become, "/opt/kat/bin/python", "-c", _CONNECT, path)
    assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


def user_group(machine: Machine, user: str) -> str:
    return machine.do("id", "-g", user)


def test_a_token_opens_once_what_haproxy_guards(machine: Machine) -> None:
    """HAProxy's unit and ours, each as its own user: one yes for a token, none without one."""
    eventually(lambda: status(machine) == "403", "a gate that is asked")
    header = f"X-KAT: {token(machine)}"
    assert status(machine, "--header", header) == "200"
    assert status(machine, "--header", header) == "403"


def test_kat_check_finds_nothing_wrong(machine: Machine) -> None:
    """Every line begins with ok, as the page says."""
    lines = machine.do("/opt/kat/bin/kat", "check").splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert any("an agent answers" in line for line in lines)


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        ("/run/kat", "kat:haproxy", "2750"),
        (SPOP, "kat:haproxy", "660"),
        (RUNTIME, "root:kat-runtime", "660"),
        ("/var/lib/kat", "kat:kat", "700"),
        (REDIS, "kat:kat", "700"),
        ("/etc/kat", "root:kat", "750"),
        ("/etc/kat/kat.toml", "root:kat", "640"),
    ],
)
def test_what_lies_there_has_its_owner_and_mode(
    machine: Machine, path: str, owner: str, mode: str
) -> None:
    """Each file is the one of the page's picture."""
    assert machine.do("stat", "--format", "%U:%G %a", path) == f"{owner} {mode}"


@pytest.mark.parametrize(
    ("user", "groups", "reached"),
    [
        ("haproxy", (), {SPOP}),
        ("kat", (), {SPOP, REDIS}),
        ("kat", ("kat-runtime",), {SPOP, REDIS, RUNTIME}),
        ("nobody", (), set()),
        ("nobody", ("kat",), set()),
        ("nobody", ("kat-runtime",), {RUNTIME}),
        ("www-data", (), set()),
    ],
)
def test_who_may_touch_which_socket(
    machine: Machine, user: str, groups: tuple[str, ...], reached: set[str]
) -> None:
    """As the page's table says, by trying."""
    tried = {path for path in (SPOP, RUNTIME, REDIS) if may_connect(machine, path, user, *groups)}
    assert tried == reached


@pytest.mark.parametrize(("unit", "others"), [("kat", set()), ("kat-allowlist", {"kat-runtime"})])
def test_the_processes_of_a_unit_have_no_group_and_no_power_to_spare(
    machine: Machine, unit: str, others: set[str]
) -> None:
    """All of a unit's processes, Redis too: user kat, no capability, a filter of system calls."""
    path = machine.property(unit, "ControlGroup")
    pids = machine.do("cat", f"/sys/fs/cgroup{path}/cgroup.procs").split()
    # The agent: supervisor, private Redis, a worker at least.
    assert len(pids) >= (3 if unit == "kat" else 1)
    allowed = {machine.do("getent", "group", group).split(":")[2] for group in {"kat", *others}}
    for pid in pids:
        found = dict(re.findall(r"(?m)^(\w+):\s*(.*)$", machine.do("cat", f"/proc/{pid}/status")))
        assert set(found["Uid"].split()) == {machine.do("id", "-u", "kat")}
        assert {*found["Gid"].split(), *found["Groups"].split()} <= allowed
        assert {found[kind] for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "1")


def test_user_kat_is_in_no_group_but_its_own(machine: Machine) -> None:
    """Neither HAProxy's nor that of the Runtime socket, which one unit adds for itself."""
    assert machine.do("id", "--name", "--groups", "kat") == "kat"


def test_kat_allowlist_is_up_and_opens_what_is_granted(machine: Machine) -> None:
    """Under its unit it reads the grants, reaches HAProxy, and keeps systemd's watchdog content."""
    grant = ("/opt/kat/bin/kat", "grant", "--acl", "vpn", "--user", "bob", "--for", "1h")
    assert machine.property("kat-allowlist", "ActiveState") == "active"
    assert machine.property("kat-allowlist", "WatchdogUSec") == "30s"
    machine.do("runuser", "-u", "kat", "--", *grant, "192.0.2.7")
    shown = ("socat", "-", f"UNIX-CONNECT:{RUNTIME}")
    eventually(
        lambda: "192.0.2.7" in machine.do(*shown, stdin="show acl #500\n"), "the grant in HAProxy"
    )
    assert "vpn" in machine.do(*shown, stdin="show table kat_alive\n")


def test_haproxy_stays_without_the_agent_and_finds_it_again(machine: Machine) -> None:
    """Agent stopped: 503 from a HAProxy that systemd can restart and reload. Started: as before."""
    machine.do("systemctl", "stop", "kat")
    try:
        assert machine.do("sh", "-c", "ls -A /run/kat") == ""
        machine.do("systemctl", "restart", "haproxy")
        machine.do("systemctl", "reload", "haproxy")
        eventually(
            lambda: machine.property("haproxy", "ActiveState") == "active", "the end of the reload"
        )
        eventually(lambda: status(machine) == "503", "an answer without an agent")
    finally:
        machine.do("systemctl", "start", "kat")
    eventually(lambda: status(machine) == "403", "the agent's answer")
    header = f"X-KAT: {token(machine)}"
    eventually(lambda: status(machine, "--header", header) == "200", "an open gate")


def test_a_killed_agent_is_started_again(machine: Machine) -> None:
    """SIGKILL to the supervisor leaves nothing behind that keeps the next one from starting."""
    before = machine.property("kat", "MainPID")
    machine.do("systemctl", "kill", "--signal=KILL", "kat")
    eventually(
        lambda: (
            machine.property("kat", "MainPID") not in {before, "0"}
            and machine.property("kat", "ActiveState") == "active"
        ),
        "another agent",
    )
    eventually(lambda: status(machine) == "403", "the agent's answer")


def test_the_files_of_the_install_section_are_all_there_are() -> None:
    """What the page installs by a pattern is what the tests looked at."""
    files, agent, allowlist = commands_of("Install")
    assert "host/systemd/*.service" in files
    assert "enable --now kat\n" in agent
    assert "enable --now kat-allowlist\n" in allowlist
