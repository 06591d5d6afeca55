"""The demo from its beginning to its end: everything is set up, walked through and taken down."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from spoa.demo.agent import ACL, USER, open_agent
from spoa.demo.application import Application
from spoa.demo.gate import find_haproxy, haproxy_version, open_gate, server_address
from spoa.demo.place import Place, occupied
from spoa.demo.screen import Screen
from spoa.demo.walk import Stage, walk
from spoa.version import version


def play(place: Place, haproxy: Path | None, ended: Event, *, is_brief: bool) -> bool:
    """Show the walk; unless it is to be brief, stay until `ended`. Tell whether all went right.

    Raises DemoError, ConfigError or StoreFault when it cannot go on, Ended when the walk was cut
    short.
    """
    haproxy = find_haproxy(haproxy)
    os.umask(0o077)  # what lies in the place is nobody else's
    screen = Screen(sys.stdout)
    screen.line(
        "HAProxy asks the agent, the agent consumes the token in Redis, and only on its yes"
    )
    screen.line(
        "does HAProxy ask the application, which counts: kept out means that it saw nothing.\n"
    )
    with (
        occupied(place.config()) as logs,
        _stage(place, haproxy, logs, ended) as stage,
    ):
        screen.cast(
            {
                f"HAProxy {haproxy_version(haproxy)}": stage.gate.url,
                f"kat {version()}": stage.agent.endpoint,
                "application": f"http://{stage.application.address}/",
                "metrics": f"http://{stage.agent.metrics}/metrics",
                "folder": place.folder,
                "logs": logs,
            }
        )
        wrong = _walk(stage, screen, logs)
        if not is_brief:
            screen.invitation(
                f"{place.kat} issue --acl {ACL} --user {USER} --ttl 60", stage.gate.url
            )
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


@contextmanager
def _stage(place: Place, haproxy: Path, logs: Path, ended: Event) -> Iterator[Stage]:
    with (
        Application() as application,
        open_agent(place, logs / "agent.log", ended) as agent,
    ):
        settings = {
            "KAT_APP": application.address,
            "KAT_AGENT": server_address(agent.endpoint),
            "KAT_ACL": ACL,
        }
        with open_gate(haproxy, settings, logs / "haproxy.log", ended) as gate:
            yield Stage(gate, agent, application)
