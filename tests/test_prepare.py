"""scripts/prepare, on machines that lack one thing each: stand-ins take apt-get's place."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ["bash", "cat", "dirname", "env", "grep", "rm", "sha256sum"]
PROGRAMS = [
    *("redis-server", "haproxy", "curl", "node", "openssl", "wrk", "gcc", "chromium", "spiped"),
    *("socat", "ip", "nft", "nsenter", "pgrep", "systemd-analyze", "firewall-offline-cmd"),
    "secilc",
]


@dataclass
class Machine:
    """A checkout in a path with a space, and a PATH that holds only what a test put there."""

    checkout: Path
    bin: Path

    def put(self, name: str, script: str = "exit 0") -> None:
        (self.bin / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (self.bin / name).chmod(0o755)

    def prepare(self, what: str = "demo", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "scripts/prepare", what],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Everything is there but redis-server, and the .venv is ready."""
    machine = Machine(tmp_path / "my projects", tmp_path / "bin")
    (machine.checkout / "scripts").mkdir(parents=True)
    (machine.checkout / ".venv/bin").mkdir(parents=True)
    machine.bin.mkdir()
    script = (ROOT / "scripts/prepare").read_text()
    # The system's own directories would show through otherwise.
    (machine.checkout / "scripts/prepare").write_text(
        script.replace("PATH=$PATH:/usr", "PATH=$PATH #")
    )
    (machine.checkout / "scripts/prepare").chmod(0o755)
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, machine.checkout)
    for name in TOOLS:
        (machine.bin / name).symlink_to(shutil.which(name) or name)
    for name in PROGRAMS:
        machine.put(name)
    machine.put("id", "echo 1000")
    machine.put("apt-cache", "echo Package: redis-server")
    make_ready(machine)
    return machine


def make_ready(machine: Machine) -> None:
    venv = machine.checkout / ".venv"
    (venv / "bin/python").symlink_to("/bin/true")
    (venv / "path").write_text(f"{machine.checkout}\n")
    hashed = "cat pyproject.toml requirements.lock | sha256sum > .venv/prepared"
    subprocess.run(["bash", "-c", hashed], cwd=machine.checkout, check=True)


def lacks(machine: Machine, *names: str) -> None:
    for name in names:
        (machine.bin / name).unlink()


def test_a_prepared_checkout_is_left_alone(machine: Machine) -> None:
    """The second time nothing is said and nothing is run."""
    machine.put("apt-get", "echo called >&2; exit 1")
    done = machine.prepare()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_wrong_word_is_answered_with_the_right_ones(machine: Machine) -> None:
    """A purpose that does not exist ends with the list of those that do."""
    done = machine.prepare("tset")
    assert done.returncode == 1
    assert done.stderr == "prepare: say what for: scripts/prepare demo|test|bench\n"


def test_without_apt_one_sentence_names_what_to_install(machine: Machine) -> None:
    """A machine that is no Debian is told what it needs, and nothing is tried."""
    lacks(machine, "redis-server", "haproxy")
    done = machine.prepare()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "please install redis-server haproxy" in done.stderr


def test_without_sudo_the_command_to_run_is_named(machine: Machine) -> None:
    """A plain user without sudo is told the very command that root has to run."""
    lacks(machine, "redis-server")
    machine.put("apt-get")
    done = machine.prepare()
    assert done.returncode == 1
    assert "run 'apt-get install" in done.stderr
    assert "redis-server' as root" in done.stderr


def sudo(machine: Machine, apt_get: str) -> Path:
    """Give the machine sudo and apt-get; return the file with the arguments sudo was given."""
    log = machine.checkout / "sudo.log"
    machine.put("sudo", f'echo "$*" >> "{log}"; [ "$1" != -n ] || shift; exec "$@"')
    machine.put("apt-get", apt_get)
    return log


def test_apt_is_announced_and_its_noise_is_hidden(machine: Machine) -> None:
    """What is installed is said beforehand; a successful apt-get says nothing itself."""
    lacks(machine, "redis-server")
    sudo(machine, "echo Reading package lists")
    done = machine.prepare()
    assert done.returncode == 0
    assert "installing redis-server with apt-get through sudo" in done.stderr
    assert "Reading package lists" not in done.stderr


def test_the_tests_get_what_their_examples_run_on(machine: Machine) -> None:
    """Who only tries the demo needs neither Node nor Chromium; who tests gets all installed."""
    lacks(machine, "node", "chromium")
    log = sudo(machine, "exit 0")
    machine.prepare("demo")
    assert not log.exists()
    machine.prepare("test")
    assert log.read_text().splitlines()[-1].endswith(" nodejs chromium")


@pytest.mark.parametrize(("state", "is_running"), [("running", True), ("offline", False)])
def test_a_firewall_that_is_installed_is_not_switched_on(
    machine: Machine, state: str, *, is_running: bool
) -> None:
    """Where systemd runs, firewalld is masked while apt-get would start it, and disabled after."""
    lacks(machine, "firewall-offline-cmd")
    machine.put("systemctl", f"echo {state}")
    log = sudo(machine, "exit 0")
    machine.prepare("test")
    commands = [line.partition("LOCK")[0] for line in log.read_text().splitlines()]
    told = [line.split("noninteractive ")[-1] for line in commands if "update" not in line]
    around = [it for it in told if it.startswith("systemctl")]
    assert any("firewalld" in it for it in told)
    if not is_running:
        assert around == []
        return
    assert told[0] == "systemctl mask firewalld"
    assert told[1].startswith("apt-get install")
    assert told[2:] == ["systemctl unmask firewalld", "systemctl disable firewalld"]


@pytest.mark.parametrize("what", ["demo", "test"])
def test_the_demo_gets_what_makes_its_certificate(machine: Machine, what: str) -> None:
    """Without openssl there is no TLS, so it is installed for the demo as for the tests."""
    lacks(machine, "openssl")
    log = sudo(machine, "exit 0")
    machine.prepare(what)
    assert log.read_text().splitlines()[-1].endswith(" openssl")


def test_a_failing_apt_is_quoted(machine: Machine) -> None:
    """When apt-get fails, its own words are shown."""
    lacks(machine, "redis-server")
    sudo(machine, "echo E: Unable to fetch; exit 100")
    done = machine.prepare()
    assert done.returncode == 1
    assert "E: Unable to fetch" in done.stderr


@pytest.mark.parametrize(("environment", "asks"), [({}, True), ({"CI": "true"}, False)])
def test_sudo_asks_nobody_in_ci(
    machine: Machine,
    environment: dict[str, str],
    asks: bool,  # noqa: FBT001 - a column of cases
) -> None:
    """With CI set sudo is told never to ask for a password."""
    lacks(machine, "redis-server")
    log = sudo(machine, "exit 0")
    machine.prepare(**environment)
    assert log.read_text().startswith("env " if asks else "-n env ")
    assert "DEBIAN_FRONTEND=noninteractive apt-get" in log.read_text()


def test_valkey_is_taken_where_redis_is_gone(machine: Machine) -> None:
    """A release that packages only Valkey gets valkey-server."""
    lacks(machine, "redis-server")
    machine.put("apt-cache", "exit 0")
    log = sudo(machine, "exit 0")
    machine.prepare()
    assert log.read_text().splitlines()[-1].endswith(" valkey-server")


def test_a_python_that_is_too_old_is_named(machine: Machine) -> None:
    """Without Python 3.11 one sentence says which version is there."""
    (machine.checkout / ".venv/path").unlink()
    machine.put("python3", '[ "$1" != -V ] || { echo Python 3.9.2; exit 0; }; exit 1')
    done = machine.prepare()
    assert done.returncode == 1
    assert done.stderr == (
        "prepare: Python 3.11 or newer is needed; python3 here is Python 3.9.2\n"
    )


def test_a_copied_checkout_makes_its_own_venv(machine: Machine) -> None:
    """A .venv that was made elsewhere is not trusted: its scripts would run the other one."""
    (machine.checkout / ".venv/path").write_text("/elsewhere\n")
    machine.put(
        "python3.12", 'case "$*" in *print*) echo 3.12;; "-m venv"*) echo made; exit 3;; esac'
    )
    done = machine.prepare()
    assert "making .venv with" in done.stderr
    assert done.returncode == 1


def test_a_debian_python_gets_its_venv_package(machine: Machine) -> None:
    """Where ensurepip is split off, the package of that very Python is installed."""
    (machine.checkout / ".venv/path").unlink()
    machine.put(
        "python3.13",
        'case "$*" in *print*) echo python3.13-venv;; *ensurepip* | *"-m venv"*) exit 1;; esac',
    )
    log = sudo(machine, "exit 0")
    machine.prepare()
    assert log.read_text().splitlines()[-1].endswith(" python3.13-venv")


@pytest.mark.parametrize(("environment", "status"), [({}, 0), ({"CI": "true"}, 1)])
def test_ci_does_without_no_haproxy_version(
    machine: Machine, environment: dict[str, str], status: int
) -> None:
    """Where a HAProxy version cannot be had, CI fails, and a developer goes on with the others."""
    versions = machine.checkout / "scripts/haproxy-versions"
    versions.write_text("#!/bin/sh\necho no mirror >&2; exit 1\n")
    versions.chmod(0o755)
    done = machine.prepare("test", **environment)
    assert (done.returncode, done.stderr) == (status, "no mirror\n")
