"""The demo from its beginning to its end: everything is set up, walked through and taken down."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from spoa.config.model import Config
from spoa.demo.agent import USER, open_agent
from spoa.demo.application import Application
from spoa.demo.gate import find_haproxy, haproxy_version, open_gate, server_address
from spoa.demo.programs import DemoError
from spoa.demo.screen import Screen
from spoa.demo.walk import Stage, walk
from spoa.version import version

# What a second terminal needs in order to find the same agent.
_PLACES = ("KAT_CONFIG", "KAT_STATE_DIR", "KAT_RUN_DIR")


def play(config: Config, haproxy: Path | None, ended: Event, *, is_brief: bool) -> bool:
    """Show the walk; unless it is to be brief, stay until `ended`. Tell whether all went right.

    Raises DemoError or StoreFault when it cannot go on, Ended when the walk was cut short.
    """
    haproxy = find_haproxy(haproxy)
    os.umask(0o077)  # what lies in the state directory is nobody else's
    logs = _logs(config)
    screen = Screen(sys.stdout)
    screen.line(
        "HAProxy asks the agent, the agent consumes the token in Redis, and only on its yes"
    )
    screen.line(
        "does HAProxy ask the application, which counts: kept out means that it saw nothing.\n"
    )
    with _stage(config, haproxy, logs, ended) as stage:
        screen.cast(
            {
                f"HAProxy {haproxy_version(haproxy)}": stage.gate.url,
                f"kat {version()}": stage.agent.endpoint,
                "application": f"http://{stage.application.address}/",
                "metrics": f"http://{stage.agent.metrics}/metrics",
                "logs": logs,
            }
        )
        wrong = _walk(stage, screen, logs)
        if not is_brief:
            screen.invitation(_issue_command(stage.agent.acl), stage.gate.url)
            ended.wait()
            screen.line("\nStopping HAProxy, the agent and Redis.")
    return wrong == 0


def _walk(stage: Stage, screen: Screen, logs: Path) -> int:
    """Take every step and count those that went wrong."""
    screen.heading()
    steps = []
    for step in walk(stage):
        screen.step(step)
        steps.append(step)
    wrong = sum(not step.is_right for step in steps)
    if wrong:
        screen.failure(wrong, len(steps), logs)
    else:
        screen.success(len(steps), stage.application.requests)
    return wrong


def _logs(config: Config) -> Path:
    """Make the folder for logs, and empty it: what is quoted is of this time."""
    folder = config.state_dir / "demo"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for log in folder.glob("*.log"):
            log.unlink()
    except OSError as error:
        raise DemoError(f"{folder} cannot be used: {error.strerror}") from None
    return folder


@contextmanager
def _stage(config: Config, haproxy: Path, logs: Path, ended: Event) -> Iterator[Stage]:
    with (
        Application() as application,
        open_agent(config, logs / "agent.log", ended) as agent,
    ):
        settings = {
            "KAT_APP": application.address,
            "KAT_AGENT": server_address(agent.endpoint),
            "KAT_ACL": agent.acl,
        }
        with open_gate(haproxy, settings, logs / "haproxy.log", ended) as gate:
            yield Stage(gate, agent, application)


def _issue_command(acl: str) -> str:
    """Write `kat issue` so that another terminal in this folder can run it."""
    kat = Path(sys.prefix) / "bin" / "kat"
    here = kat.relative_to(Path.cwd()) if kat.is_relative_to(Path.cwd()) else kat
    places = [f"{name}={shlex.quote(os.environ[name])} " for name in _PLACES if name in os.environ]
    return f"{''.join(places)}{shlex.quote(str(here))} issue --acl {acl} --user {USER} --ttl 60"
