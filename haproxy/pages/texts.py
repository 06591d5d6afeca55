"""Reads pages.toml, and what an operator lays over it."""

import difflib
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from haproxy.pages.colour import read_accent

SHIPPED: Final = Path(__file__).with_name("pages.toml").read_text()
"""The pages.toml from which operators start."""

Texts = Mapping[str, str]
"""Every value of a pages.toml by its whole key: `page.403.title`."""

_MAX_SHOWN_CHARS = 80

_is_language = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*").fullmatch


class PagesError(Exception):
    """The texts make no pages. `mistakes` holds one sentence for each reason."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def read(document: str = "") -> Texts:
    """Lay this TOML document over the shipped one. Raises PagesError with all mistakes."""
    shipped = dict(_leaves(tomllib.loads(SHIPPED)))
    try:
        own = dict(_leaves(tomllib.loads(document)))
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of 5000 digits is a ValueError of int().
        raise PagesError(f"is no TOML: {error}") from None
    found = {key: _mistake(key, value, shipped) for key, value in own.items()}
    mistakes = [f"{_shown(key)}: {mistake}" for key, mistake in found.items() if mistake]
    if mistakes:
        raise PagesError(*mistakes)
    return {key: str(value) for key, value in {**shipped, **own}.items()}


def _leaves(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(text: str) -> str:
    return ascii(text)[1:-1][:_MAX_SHOWN_CHARS]


def _mistake(key: str, value: object, shipped: Mapping[str, object]) -> str:
    """Say what is wrong with one value, or nothing."""
    if key not in shipped:
        near = difflib.get_close_matches(key, shipped, n=1)
        return f"unknown key{''.join(f'; do you mean {name}?' for name in near)}"
    if not isinstance(value, str):
        return "is no text: write it in quotes"
    if not value.strip():
        return "is empty: people would not know what to do"
    if any(unicodedata.category(char) == "Cc" and char not in "\t\r\n" for char in value):
        return "holds a control character"
    return _mistake_of_form(key, value)


def _mistake_of_form(key: str, value: str) -> str:
    match key:
        case "language" if not _is_language(value):
            return f"{_shown(value)} is no language tag like en or pt-BR"
        case "accent":
            try:
                read_accent(value)
            except ValueError as error:
                return str(error)
    return ""
