"""docs/host.md, its last section."""

from pathlib import Path

from tests.host.conftest import CONFIG, commands_of
from tests.host.machine import Machine, running_machine

_LEFT = """
systemctl list-unit-files 'kat*' --no-legend
systemctl list-units 'kat*' --no-legend --all
getent passwd kat || true
getent group kat kat-runtime || true
find /etc /run /var -path /run/checkout -prune -o -name 'kat*' -print
pgrep -u kat -a || true
"""


def found(machine: Machine) -> str:
    return machine.do("sh", "-c", _LEFT)


def test_undoing_everything_leaves_nothing(tmp_path: Path) -> None:
    """No unit, no user, no group, no file of ours is there after what the page says."""
    with running_machine(tmp_path) as machine:
        before = found(machine)
        files, agent, _ = commands_of("Install")
        machine.follow(files)
        machine.write("/etc/kat/kat.toml", CONFIG)
        machine.follow(agent)
        (tunnel,) = commands_of("Tunnels")
        machine.follow(tunnel)
        assert found(machine) != before
        (undo,) = commands_of("Undo everything")
        machine.follow(undo)
        assert machine.run("test", "-e", "/opt/kat").returncode == 1
        assert found(machine) == before
