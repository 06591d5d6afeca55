"""The whole world that a browser meets: portal, HAProxy with TLS, agent, Redis, sample application.

A `World` is there once per process. A `Door` is one HAProxy in front of it, and there are several:
of other versions, with other settings. Browsers ask all of them for the same URLs; which one a
`Person` meets is his detour's doing.
"""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

from starlette.types import ASGIApp, Receive, Scope, Send

from haproxy.demo import portal, site
from haproxy.demo.people import Application
from haproxy.demo.serving import serving
from tests.e2e.scene import Agent, until
from tests.support.haproxy import Haproxy, binary, running
from tokens.issue import Bindings, Issuer
from tokens.policy.session import session_digest
from tokens.record import Keys
from tokens.token import digest, kid

PORT = 8443
PORTAL = f"https://portal.localhost:{PORT}/"
WIKI = f"https://wiki.localhost:{PORT}/"
NEWEST, OLDEST = "3.2", "2.6"
COOKIE = "__Host-kat-demo"

TOKEN = re.compile(r"kat_[0-9A-Za-z]{38}")


@dataclass
class World:
    """What is behind every door."""

    folder: Path
    certificate: Path
    agent: Agent = field(repr=False)
    portal_address: str
    site_address: str
    visits: site.Visits
    received: list[tuple[bytes, bytes]] = field(repr=False)
    """All headers of all requests that the application got."""

    @contextmanager
    def door(
        self, name: str, *more: Path, version: str = NEWEST, **settings: str
    ) -> Iterator[Haproxy]:
        """Run a HAProxy in front of it all until the block ends, with `more` behind haproxy.cfg."""
        folder = self.folder / name
        folder.mkdir()
        ours = {
            "KAT_CERT": str(self.certificate),
            "KAT_HTTP": f"unix@{folder}/plain.sock",
            "KAT_HOSTS": "wiki.localhost",
            "KAT_APP": self.site_address,
            "KAT_PORTAL": PORTAL,
            "KAT_PORTAL_HOSTS": "portal.localhost",
            "KAT_PORTAL_APP": self.portal_address,
            "KAT_AGENT": f"unix@{self.agent.socket}",
            "KAT_PROCESSING": "5s",
            "KAT_NONCE_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "KAT_GUESSES": "2",
        }
        with running(
            binary(version), folder, {**ours, **settings}, *more, listener="KAT_HTTPS"
        ) as haproxy:
            until(lambda: _has_started(haproxy, folder / "plain.sock"))
            yield haproxy

    def link(self, page: str = "", **bindings: Unpack[Bindings]) -> str:
        """Issue a token to alice, as any other service would; return the link with it."""
        issued = Issuer(self.agent.client).issue("alice", "demo", 60, **bindings)
        return f"{WIKI}{page}?kat={issued.token}"

    def events(self, link: str, event: str = "") -> list[dict[str, object]]:
        """Return what the audit tells of a link's token so far; of one kind, if one is named."""
        entries = self.agent.client.xrange(Keys().audit) or []
        told = [one for _, entry in entries for one in json.loads((entry or {})[b"e"])]
        ours = [one for one in told if one.get("kid") == name_of(link)]
        return [one for one in ours if event in {"", one["event"]}]

    def end_session(self, cookie: str | None) -> None:
        """Let it expire."""
        assert cookie
        assert self.agent.client.delete(Keys().session(session_digest(cookie.encode()))) == 1

    def wait_for(self, link: str, event: str) -> dict[str, object]:
        """Wait until the audit tells this of a link's token, and return what it tells."""
        until(lambda: bool(self.events(link, event)))
        (told,) = self.events(link, event)
        return told

    def is_consumed(self, link: str) -> bool:
        return self.remains(link).startswith("consumed ")

    def remains(self, link: str) -> str:
        """Return what Redis holds under a link's token: its record, or its tombstone with that."""
        value = self.agent.client.get(Keys().token(digest(token_of(link).encode())))
        assert isinstance(value, bytes), "this token has expired, or never was"
        return value.decode()

    def traces(self) -> dict[str, str]:
        """Return what everybody behind the doors wrote down."""
        return {
            "agent.log": self.agent.log(),
            "access.log": (self.folder / "access.log").read_text(),
            "what the application got": repr(self.received),
            "audit": repr(self.agent.client.xrange(Keys().audit)),
        }


def token_of(link: str) -> str:
    (token,) = TOKEN.findall(link)
    assert isinstance(token, str)
    return token


def name_of(link: str) -> str:
    """Return what logs call the token of a link."""
    return kid(digest(token_of(link).encode())).decode()


@contextmanager
def whole_world(folder: Path, certificate: Path) -> Iterator[World]:
    """Run everything that is behind a door until the block ends."""
    configuration = folder / "kat.toml"
    configuration.write_text('[acl.demo]\nmode = "session"\nsession = { ttl = "8h" }\n')
    # A browser, HAProxy and all else on two cores: nothing here depends on how soon an answer is.
    agent = Agent(folder, {"KAT_CONFIG": str(configuration), "KAT_LIMITS__DEADLINE_MS": "4000"})
    visits = site.Visits(folder / "access.log")
    portal_app = portal.create(
        url=PORTAL,
        applications=[Application("demo", "Wiki", WIKI, frozenset({"staff"}))],
        store_url=f"unix://{folder}/state/redis/redis.sock",
    )
    received: list[tuple[bytes, bytes]] = []
    site_app = site.create(visits)
    site_app.add_middleware(_Recording, headers=received)
    try:
        with serving(portal_app) as portal_served, serving(site_app) as site_served:
            addresses = portal_served.address, site_served.address
            yield World(folder, certificate, agent, *addresses, visits, received)
    finally:
        agent.stop()


def _has_started(haproxy: Haproxy, socket: Path) -> bool:
    assert haproxy.process.poll() is None, haproxy.log()
    return socket.exists()


class _Recording:
    """Around the application: notes all headers, whatever they hold."""

    def __init__(self, app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._headers.extend(scope.get("headers", []))
        await self._app(scope, receive, send)
