"""The demo from its beginning to its end: everything is set up, walked through and taken down."""

import base64
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from haproxy.demo import portal, site
from haproxy.demo.people import Application
from haproxy.demo.serving import Served, serving
from spoa.demo.agent import USER, Agent, open_agent
from spoa.demo.authority import have_certificate
from spoa.demo.gate import (
    PORTAL,
    WIKI,
    Door,
    find_haproxy,
    haproxy_version,
    open_door,
    open_gate,
    server_address,
)
from spoa.demo.place import ACL, PROCESSING, Place, occupied
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
        occupied(place.config()) as folder,
        _stage(place, haproxy, folder, ended) as stage,
    ):
        screen.cast(
            {
                f"HAProxy {haproxy_version(haproxy)}": stage.gate.url,
                f"kat {version()}": stage.agent.endpoint,
                "portal": stage.portal_url,
                "metrics": f"http://{stage.agent.metrics}/metrics",
                "folder": place.folder,
                "logs": folder,
            }
        )
        wrong = _walk(stage, screen, folder)
        if not is_brief:
            _invite(screen, place, stage)
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
        screen.success(len(steps), stage.visits.requests)
    return wrong


def _invite(screen: Screen, place: Place, stage: Stage) -> None:
    ca = shlex.quote(str(stage.gate.ca))
    screen.browser(stage.portal_url, stage.gate.ca)
    screen.terminal(
        f"{place.kat} issue --acl {ACL} --user {USER} --ttl 60", f"{stage.gate.url} --cacert {ca}"
    )


@contextmanager
def _stage(place: Place, haproxy: Path, folder: Path, ended: Event) -> Iterator[Stage]:
    visits = site.Visits(folder / "access.log")
    with (
        open_door(have_certificate(folder)) as door,
        open_agent(place, folder / "agent.log", ended) as agent,
        serving(site.create(visits)) as application,
        _portal(door, agent) as portal_served,
    ):
        settings = {
            "KAT_APP": application.address,
            "KAT_AGENT": server_address(agent.endpoint),
            "KAT_ACL": ACL,
            "KAT_PROCESSING": PROCESSING,
            "KAT_HOSTS": f"{WIKI} 127.0.0.1",
            "KAT_PORTAL": door.portal,
            "KAT_PORTAL_APP": portal_served.address,
            "KAT_PORTAL_HOSTS": PORTAL,
            "KAT_NONCE_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        with open_gate(haproxy, door, settings, folder / "haproxy.log", ended) as gate:
            yield Stage(gate, agent, visits, door.portal)


@contextmanager
def _portal(door: Door, agent: Agent) -> Iterator[Served]:
    wiki = Application(ACL, "Wiki", door.wiki, frozenset({"staff"}))
    app = portal.create(
        url=door.portal, applications=[wiki], store_url=agent.store_url, prefix=agent.prefix
    )
    with serving(app) as served:
        yield served
