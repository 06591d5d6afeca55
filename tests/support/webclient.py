"""A client of one served application: it keeps its cookies, and says where its forms come from."""

import re
from contextlib import closing
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlencode

ANSWER_TIMEOUT_S = 10


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    """By names in small letters."""
    body: str

    @property
    def location(self) -> str:
        return self.headers["location"]

    @property
    def page(self) -> str:
        """Return what a page of ours calls itself."""
        found = re.search(r'data-page="([a-z]+)"', self.body)
        return found[1] if found else ""


class WebClient:
    """One browser, as far as one application sees it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.cookie = ""

    def get(self, path: str = "/", **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, headers: dict[str, str] | None = None, **form: str) -> Answer:
        """Send a form; without headers as our own pages do."""
        ours = {"Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return self.ask("POST", path, urlencode(form), ours)

    def ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        sent = {**(headers or {}), **({"Cookie": self.cookie} if self.cookie else {})}
        with closing(HTTPConnection(self._address, timeout=ANSWER_TIMEOUT_S)) as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            text = response.read().decode()
        headers_in = {name.lower(): value for name, value in response.getheaders()}
        self._keep(headers_in.get("set-cookie", ""))
        return Answer(response.status, headers_in, text)

    def _keep(self, cookie: str) -> None:
        pair = cookie.partition(";")[0]
        if pair:
            self.cookie = "" if pair.endswith(("=", '=""')) else pair
