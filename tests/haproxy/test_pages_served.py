"""The pages as real HAProxy sends them: it reads them as log-format strings."""

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from haproxy.pages import read, render
from haproxy.pages.render import MAX_BYTES
from tests.support.haproxy import ANSWER_TIMEOUT_S, BACKLOG, Answer, binary, read_answer, versions

# All that log-format, HTML, string.Template, configuration files or a shell could take for theirs.
HOSTILE = (
    "100% %% %[src] %%[src] %{+Q}[src] %ci %] ] \"double\" 'single' <script>alert(1)</script> "
    "</p> &amp; &#37;[src] $title ${HOME} $$ \\ \\n \\[ {x} #y `z`  two  spaces "
    "\u00fc \u20ac \U0001f511"
)
PORTAL = "https://portal.example/in?return=https%3A%2F%2Fapp.example%2F&amp;nonce=00ff"
ACTION = "?kat=form&amp;a=1"
TOKEN = f"kat_{'0' * 38}"

PAGES = sorted(name for name in render(read()) if name.endswith(".html"))

# With what haproxy.cfg adds to a page, at its longest.
HEADERS_BYTES = 1024

CONFIGURATION = """
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
frontend pages
    bind fd@{descriptor}
    http-request set-var(txn.gate.portal) str("{portal}") unless {{ query -m found }}
    http-request set-var(txn.gate.portal) req.fhdr(portal) if {{ req.fhdr(portal) -m found }}
    http-request set-var(txn.gate.action) str("{action}")
    http-request set-var(txn.gate.token)  str({token})
    http-after-response set-header X-Long {headers}
"""
RULE = """
    http-request return status 200 content-type text/html lf-file "{file}" if {{ path /{name} }}
"""


class Reader(HTMLParser):
    """What a visitor reads, by element, and the attributes of the last one of each name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.attributes: dict[str, dict[str, str | None]] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.attributes[tag] = dict(attrs)
        self.texts[tag] = ""

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - HTMLParser's own signature
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside] += data


class Server:
    """A HAProxy that serves each file at its name."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, target: str, *headers: str) -> Answer:
        request = (f"GET /{target} HTTP/1.1", "Host: localhost", *headers, "", "")
        with socket.create_connection(("127.0.0.1", self._port), ANSWER_TIMEOUT_S) as client:
            client.sendall("\r\n".join(request).encode())
            return read_answer(client)

    def page(self, target: str) -> Reader:
        answer = self.get(target)
        assert answer.status == 200
        return Reader(answer.body)


def _document() -> str:
    """Return texts that are hostile wherever there may be one."""
    hostile = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')
    values = [f'{key} = "{hostile}"' for key in read() if key.startswith("page.")]
    return "\n".join(values)


def _longest() -> dict[str, str]:
    shipped = len(render(read('[page.503]\ntext = "x"'))["503.html"])
    return render(read(f'[page.503]\ntext = "{"x" * (MAX_BYTES - shipped + 1)}"'))


@contextmanager
def _serving(haproxy: Path, folder: Path, files: Mapping[str, str]) -> Iterator[Server]:
    """Run a HAProxy of this path that serves these files, until the block ends."""
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    configuration = folder / "haproxy.cfg"
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        configuration.write_text(
            CONFIGURATION.format(
                descriptor=listening.fileno(),
                portal=PORTAL,
                action=ACTION,
                token=TOKEN,
                headers="x" * HEADERS_BYTES,
            )
            + "".join(RULE.format(file=folder / name, name=name) for name in files)
        )
        process = subprocess.Popen(
            [haproxy, "-db", "-f", configuration], pass_fds=[listening.fileno()]
        )
        try:
            yield Server(listening.getsockname()[1])
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=versions())
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kinds = {"shipped": render(read()), "hostile": render(read(_document())), "long": _longest()}
    files = {
        f"{kind}-{name}": content for kind, made in kinds.items() for name, content in made.items()
    }
    folder = tmp_path_factory.mktemp("pages")
    with _serving(binary(request.param), folder, files) as serving:
        yield serving


@pytest.mark.parametrize("name", PAGES)
def test_the_portals_address_is_filled_in(server: Server, name: str) -> None:
    """The link leads to the portal with all that belongs to its address; without one, nowhere."""
    assert server.page(f"shipped-{name}").attributes["a"]["href"] == unescape(PORTAL)
    assert server.page(f"shipped-{name}?no-portal").attributes["a"]["href"] == ""


def test_the_form_is_filled_in(server: Server) -> None:
    """The confirm page posts the token to where HAProxy expects it."""
    page = server.page("shipped-confirm.html")
    assert page.attributes["form"]["action"] == unescape(ACTION)
    assert page.attributes["input"]["value"] == TOKEN


@pytest.mark.parametrize("name", PAGES)
def test_a_page_comes_out_whole(server: Server, name: str) -> None:
    """Nothing but what is filled in and `%%` differs from the file; no `%` of the style is lost."""
    expected = render(read())[name].replace("%%", "%")
    for variable, value in (("portal", PORTAL), ("action", ACTION), ("token", TOKEN)):
        expected = expected.replace(f"%[var(txn.gate.{variable})]", value)
    assert server.get(f"shipped-{name}").body == expected


@pytest.mark.parametrize("name", PAGES)
def test_a_hostile_text_is_read_as_it_was_written(server: Server, name: str) -> None:
    """Neither HAProxy nor a browser takes any part of a text for its own language."""
    page = server.page(f"hostile-{name}")
    texts = [page.texts[element] for element in ("title", "h1", "p", "a")]
    assert [text.strip() for text in texts] == [HOSTILE] * len(texts)
    assert page.texts.get("button", HOSTILE) == HOSTILE
    assert "script" not in page.attributes


def test_the_longest_page_leaves_room_for_what_is_filled_in(server: Server) -> None:
    """With 1 KiB of headers a page of MAX_BYTES takes an address of 5 KiB; 7 KiB are too much."""
    assert server.get("long-503.html", f"Portal: {'x' * 5 * 1024}").status == 200
    assert server.get("long-503.html", f"Portal: {'x' * 7 * 1024}").status == 500
