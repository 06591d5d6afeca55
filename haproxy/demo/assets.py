"""The sixty assets of the sample application's page: files made on the spot. Pure.

Each fills one tile of the page, so that everybody sees what has come.
"""

from typing import Final, NamedTuple

NUMBER: Final = 60
_KINDS: Final = ("css", "js", "svg")

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Asset(NamedTuple):
    """One of them."""

    number: int
    kind: str

    @property
    def path(self) -> str:
        return f"/asset/{self.number}.{self.kind}"

    @property
    def media_type(self) -> str:
        return _TYPES[self.kind]

    @property
    def content(self) -> str:
        colour = f"hsl({220 + self.number} 60% {45 + self.number % 7 * 3}%)"
        match self.kind:
            case "css":
                return f"#t{self.number} {{ --here: css; background: {colour} }}\n"
            case "js":
                return (
                    f"{{ const tile = document.getElementById('t{self.number}');\n"
                    f"tile.dataset.here = 'js'; tile.style.background = '{colour}'; }}\n"
                )
            case _:
                return (
                    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40">'
                    f'<rect width="40" height="40" fill="{colour}"/></svg>\n'
                )


ASSETS: Final = tuple(Asset(number, _KINDS[number % len(_KINDS)]) for number in range(NUMBER))
