"""Makes the files of errors/ out of texts and one template."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

from haproxy.pages.colour import Colour, dark, light, read_accent
from haproxy.pages.signs import SIGNS
from haproxy.pages.texts import PagesError, Texts

# HAProxy makes an answer in one buffer: 16384 bytes (tune.bufsize), less 1024 (tune.maxrewrite). A
# page may take half of it. In the other half are the headers, and what is filled in: the portal's
# address with that of the page to come back to, and the form's. What does not fit is answered by
# HAProxy's own bare 500.
MAX_BYTES: Final = 8192

_ERRORS: Final = {
    "401": "token_missing",
    "403": "token_refused",
    "429": "too_many_guesses",
    "503": "unavailable",
}
"""What programs act upon, by status."""

# Here something else comes first: a button, or to wait.
_LINK_IS_SECOND: Final = ("confirm", "429", "503")

_FOLDER = Path(__file__).parent
_PAGE = Template((_FOLDER / "page.html").read_text())
_FORM = Template((_FOLDER / "form.html").read_text())


def render(texts: Texts) -> dict[str, str]:
    """Return name and content of each file of errors/. Raises PagesError if one is too large."""
    files = {f"{name}.html": _page(name, texts) for name in SIGNS}
    files |= {f"{status}.json": _answer(status, texts) for status in _ERRORS}
    sizes = {name: len(content.encode()) for name, content in files.items()}
    too_large = [
        f"{name} would have {size} bytes, the limit is {MAX_BYTES}: shorten its texts"
        for name, size in sizes.items()
        if size > MAX_BYTES
    ]
    if too_large:
        raise PagesError(*too_large)
    return files


def _page(name: str, texts: Texts) -> str:
    own = {key: texts.get(f"page.{name}.{key}", "") for key in ("title", "text", "link", "button")}
    accent = read_accent(texts["accent"])
    return _PAGE.substitute(
        language=texts["language"],
        light=_declarations(light(accent)),
        dark=_declarations(dark(accent)),
        sign=SIGNS[name],
        title=_literal(own["title"]),
        text="".join(f"  <p>{_literal(text)}</p>\n" for text in _paragraphs(own["text"])),
        form=_FORM.substitute(button=_literal(own["button"])) if own["button"] else "",
        link=_literal(own["link"]),
        rank="second" if name in _LINK_IS_SECOND else "first",
    )


def _declarations(scheme: Mapping[str, Colour]) -> str:
    return "; ".join(f"--{name}: {colour}" for name, colour in scheme.items())


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text.strip())


def _literal(text: str) -> str:
    """Write a text so that a browser shows it, and HAProxy prints it, as it is.

    HAProxy reads the pages as log-format strings (lf-file), in which `%` is all that is special: no
    quotes, backslashes or `$`, and spaces stay. tests/haproxy/test_pages_served.py proves it.
    """
    return html.escape(text).replace("%", "%%")


def _answer(status: str, texts: Texts) -> str:
    """Write what a program gets. HAProxy sends these files as they are."""
    answer = {"error": _ERRORS[status], "message": texts[f"json.{status}"]}
    return json.dumps(answer, separators=(",", ":")) + "\n"
