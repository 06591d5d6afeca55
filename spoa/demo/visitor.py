"""Somebody who asks HAProxy over TLS: a program, or a browser, with cookies of its own."""

from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from socket import create_connection
from ssl import SSLContext, create_default_context
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from spoa.demo.programs import LOOPBACK, DemoError

_ANSWER_TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """What comes back."""

    status: int
    location: str
    body: str


class Visitor:
    """Asks by names that lead to this machine, and believes one CA. Follows no redirect."""

    def __init__(self, ca: Path) -> None:
        self._tls = create_default_context(cafile=str(ca))
        self._cookies: dict[tuple[str, str], str] = {}

    def get(self, url: str, **headers: str) -> Answer:
        return self._ask("GET", url, None, headers)

    def post(self, url: str, **form: str) -> Answer:
        """Send a form of the same site, as its own pages do."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Sec-Fetch-Site": "same-origin",
        }
        return self._ask("POST", url, urlencode(form), headers)

    def _ask(self, method: str, url: str, body: str | None, headers: dict[str, str]) -> Answer:
        """Send one request. Raises DemoError, which quotes no URL, when nothing answers."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        if cookies := self._cookies_of(host):
            headers = {**headers, "Cookie": cookies}
        with closing(_Connection(host, parts.port, self._tls)) as connection:
            try:
                connection.request(method, target, body, headers)
                answer = connection.getresponse()
                text = answer.read().decode(errors="replace")
            except (OSError, HTTPException) as error:
                raise DemoError(f"HAProxy gave no answer to {host}: {error!r}") from None
        for cookie in answer.headers.get_all("Set-Cookie", ()):
            self._keep(host, cookie)
        return Answer(answer.status, answer.headers.get("Location", ""), text)

    def _cookies_of(self, host: str) -> str:
        ours = [(name, value) for (of, name), value in self._cookies.items() if of == host]
        return "; ".join(f"{name}={value}" for name, value in ours)

    def _keep(self, host: str, cookie: str) -> None:
        name, _, value = cookie.partition(";")[0].partition("=")
        self._cookies[host, name] = value


class _Connection(HTTPSConnection):
    """Leads to this machine whatever the name: not every resolver knows that of *.localhost."""

    def __init__(self, host: str, port: int | None, tls: SSLContext) -> None:
        super().__init__(host, port)
        self._tls = tls

    def connect(self) -> None:
        plain = create_connection((LOOPBACK, self.port), _ANSWER_TIMEOUT_S)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
